// SPDX-License-Identifier: MIT

// The entries. One or two sentences each; the documents have the rest. Facts about TDX, SEV-SNP, pKVM and CCA are from
// the vendors' specifications and from the kernel's source.

extension Glossary {
    static let memory: [Term] = [
        Term(
            "private", [], .interface,
            "The state of a page that only the guest may access. A host access through the mapping raises SIGBUS, a system call on it "
                + "fails with EFAULT.", topics: ["state private"]),
        Term(
            "shared", [], .interface,
            "The state of a page that both the guest and the host may access.", topics: ["state shared"]),
        Term(
            "attribute", ["memory attribute", "KVM_MEMORY_ATTRIBUTE_PRIVATE"], .interface,
            "The state that KVM records for each page: bit 3 (value 8) is PRIVATE, and without it the page is shared. No call reads attributes "
                + "back."),
        Term(
            "private alias", [], .guests,
            "On a VM with two aliases, the guest-physical address that accesses a page as private memory: the shared bit (TDX, CCA) is "
                + "clear, or the C-bit (SEV-SNP) is set."),
        Term(
            "shared alias", [], .guests,
            "On a VM with two aliases, the guest-physical address that accesses the same page as shared memory: the private alias with "
                + "the shared bit set.", topics: ["A34"]),
        Term(
            "alias", [], .guests,
            "One of several guest-physical addresses of the same page. With two aliases, the address decides whether an access is "
                + "private or shared; with one, the page's state decides."),
        Term(
            "shared bit", ["S-bit", "shared GPA bit"], .guests,
            "The bit of a guest-physical address that selects the shared alias. On TDX it is the highest bit that a guest-physical "
                + "address can have: bit 47 or 51."),
        Term(
            "C-bit", ["encryption bit"], .interface,
            "The bit of a guest's page table entry that makes an access private on AMD SEV. Its position is in CPUID 8000_001F. Code "
                + "fetches and page walks are always private."),
        Term(
            "GPA", ["guest-physical address"], .interface,
            "Guest-physical address: what the guest's page tables produce and the host's second-level page tables translate. In this "
                + "project a GPA is without the shared bit, unless stated otherwise."),
        Term(
            "GFN", ["guest frame number"], .interface,
            "Guest frame number: the guest-physical address divided by the page size, 4096."),
        Term(
            "GVA", ["guest-virtual address"], .guests,
            "Guest-virtual address: what an instruction of the guest uses, before the guest's own page tables translate it."
        ),
        Term(
            "HVA", ["host-virtual address", "userspace address"], .interface,
            "Host-virtual address: an address of the monitor's process. A memslot names one as userspace_addr.",
            topics: ["userspace_addr"]),
        Term(
            "PFN", ["page frame number"], .interface,
            "Page frame number: the number of a page of the host's physical memory."),
        Term(
            "memslot", ["memory slot", "slot"], .interface,
            "A range of guest-physical addresses and the memory that backs it, set with KVM_SET_USER_MEMORY_REGION2. An address without "
                + "a memslot is MMIO.", topics: ["call memslot"]),
        Term(
            "guest_memfd", ["gmem"], .interface,
            "A file of the kernel that holds guest memory, so that the memory need not be mapped into the host's page tables. Made by "
                + "KVM_CREATE_GUEST_MEMFD (Linux 6.8); with in-place conversion it also records each page's state.",
            topics: ["call guest_memfd"]),
        Term(
            "host mapping", ["mapping"], .interface,
            "The guest_memfd in the monitor's address space, made by mmap. It stays through conversions, but only its shared pages can "
                + "be accessed.", topics: ["mmap"]),
        Term(
            "page table", ["page tables", "EPT", "NPT", "second-level page table"], .interface,
            "Translates addresses: the guest's own from virtual to guest-physical, and the host's second level (EPT, NPT) from "
                + "guest-physical to physical. A conversion removes the mapped pages of its range from the second level."
        ),
        Term(
            "hole", ["punch hole", "punch a hole"], .interface,
            "A range of a file without memory. FALLOC_FL_PUNCH_HOLE frees pages of a guest_memfd: they read as zeros afterwards and "
                + "keep their state.", topics: ["fallocate", "A11"]),
        Term(
            "untouched page", ["unallocated page"], .interface,
            "A page of a guest_memfd that has a state but no memory yet. Its first access reads zeros.",
            topics: ["state untouched"]),
        Term(
            "reference", ["refcount", "page reference"], .interface,
            "A count that keeps a page from being freed or converted. Mappings, system calls in progress, pipes and devices hold "
                + "references.", topics: ["in-use"]),
        Term(
            "pin", ["pinning", "long-term pin"], .interface,
            "A reference that is held for as long as a device or an io_uring buffer needs the page, also for DMA. A page that is "
                + "pinned cannot become private.", topics: ["A4"]),
        Term(
            "hold", ["holder"], .litmus,
            "In this project, a reference that a test or a guest makes the host take on purpose: by vmsplice, io_uring, O_DIRECT or "
                + "gup_test. The holder releases it on request, or refuses.", topics: ["in-use"]),
        Term(
            "GUP", ["get_user_pages", "pin_user_pages"], .interface,
            "get_user_pages: the kernel's functions that take references on pages of a process. For a private page of a guest_memfd "
                + "they fail, and the system call returns EFAULT."),
        Term(
            "dirty logging", ["dirty log"], .interface,
            "KVM's record of the pages that a guest has written, used for live migration. KVM refuses it for a memslot with a "
                + "guest_memfd."),
    ]

    static let conversions: [Term] = [
        Term(
            "conversion", ["convert", "convert to private", "convert to shared"], .interface,
            "A change of pages from private to shared or back.", topics: ["KVM_SET_MEMORY_ATTRIBUTES2"]),
        Term(
            "explicit conversion", ["explicit"], .guests,
            "A conversion that the guest requests by a call that names the range. The request can be refused with an errno."
        ),
        Term(
            "implicit conversion", ["implicit"], .guests,
            "A conversion that the guest requests by accessing a page through the wrong alias: the access is a memory fault, the "
                + "monitor converts the page, and the instruction runs again.", topics: ["exit 39"]),
        Term(
            "in-place conversion", ["in place", "in-place"], .interface,
            "A conversion that changes the state of a page and keeps its memory: private and shared are the same page of the "
                + "guest_memfd. Linux 7.4 has it.", topics: ["7.4"]),
        Term(
            "per-VM attributes", ["VM attributes", "per-VM"], .interface,
            "The older interface (Linux 6.8 to 7.3): attributes by guest-physical address, set on the VM. Private and shared memory "
                + "are two places, so a conversion loses the contents.", topics: ["KVM_SET_MEMORY_ATTRIBUTES"]
        ),
        Term(
            "memory fault", ["memory-fault exit"], .interface,
            "An exit of KVM_RUN (KVM_EXIT_MEMORY_FAULT, 39) with EFAULT: the guest's access did not match the page's state, or KVM "
                + "could not get the page. The exit names the page and the kind of access.",
            topics: ["exit 39"]),
        Term(
            "fault loop", ["livelock of faults"], .interface,
            "A vCPU that runs into the same memory fault again and again, because the monitor does not convert the page or converts it "
                + "to the wrong state.", topics: ["A34"]),
        Term(
            "livelock", [], .interface,
            "A state in which a program keeps running but makes no progress, for example retries that fail every time because another "
                + "thread takes a new reference.", topics: ["A7"]),
        Term(
            "EAGAIN", ["page in use", "busy page"], .interface,
            "The errno of a conversion to private when a page of the range is in use. Nothing has been converted, and error_offset "
                + "names the lowest such page.", topics: ["errno EAGAIN"]),
        Term(
            "error_offset", [], .interface,
            "The field of the conversion call that names a page after EAGAIN (the lowest page in use) or ENOMEM (the start of the "
                + "request). It is an offset in the file, not a GPA.", topics: ["call error_offset"]),
        Term(
            "retry", ["retry policy"], .run,
            "To call again after EAGAIN. The monitor retries a limited number of times, waits longer each time, and then gives up.",
            topics: ["A3"]),
        Term(
            "bisect", ["bisection"], .run,
            "To convert everything around a page in use: the range is split at error_offset, the parts are converted one by one, and "
                + "the page itself is tried last (--in-use bisect).", topics: ["A6"]),
        Term(
            "give up", ["gave up", "given up"], .run,
            "To stop retrying a conversion. The guest gets -EAGAIN, no data is lost, and the monitor reports which pages were "
                + "converted."),
        Term(
            "all or nothing", ["atomic conversion"], .interface,
            "The rule of the conversion call: it converts the whole range, or fails and converts no page of it.",
            topics: ["KVM_SET_MEMORY_ATTRIBUTES2"]),
        Term(
            "content policy", ["contents", "content mode"], .interface,
            "The part of a conversion request that decides about the bytes of its pages: preserve, zero or unspecified. The monitor honours it or "
                + "refuses the request.", topics: ["contents"]),
        Term(
            "preserve", [], .interface,
            "The content policy by which the bytes are the same after the conversion, or the request is refused.",
            topics: ["contents preserve"]),
        Term(
            "zero", ["zeroing"], .interface,
            "The content policy by which the bytes are zero after the conversion, or the request is refused.",
            topics: ["contents zero"]),
        Term(
            "unspecified", [], .interface,
            "The content policy by which the bytes may be anything after the conversion.",
            topics: ["contents unspecified"]),
        Term(
            "hazard", [], .interface,
            "A numbered way in which a correct-looking program fails around conversions: A for Linux 7.4, H for posted versions only.",
            topics: ["hazard"]),
        Term(
            "validation table", ["validation row", "row"], .interface,
            "The checks of KVM_SET_MEMORY_ATTRIBUTES2 in the kernel's order, rows 0 to 12. The first row whose condition holds is the "
                + "answer.", topics: ["KVM_SET_MEMORY_ATTRIBUTES2"]),
        Term(
            "posted version", ["RFC", "RFC v1", "RFC v2", "RFC v3", "RFC v4", "RFC v5"], .history,
            "A version of the in-place interface that was sent for review and not applied: RFC v1 to v5 and v6 to v8. SoftKVM can "
                + "behave like each of them (--abi).", topics: ["version"]),
    ]

    static let virtualisation: [Term] = [
        Term(
            "KVM", [], .interface,
            "The Linux kernel's interface to the CPU's virtualisation: a program opens /dev/kvm and makes VMs, memslots and vCPUs with "
                + "ioctls."),
        Term(
            "VMM", ["monitor", "virtual machine monitor"], .architecture,
            "Virtual machine monitor: the program that makes a VM, runs its vCPUs and handles their exits. MiniVMM is one; QEMU is "
                + "another."),
        Term(
            "backend", [], .backends,
            "In MiniVMM, what implements the KVM interface: LinuxKVM, PerVMAttributesKVM, MemslotTrapKVM or SoftKVM. Chosen with "
                + "--backend."),
        Term(
            "adapter", [], .backends,
            "A backend that emulates in-place conversion on a kernel without it: PerVMAttributesKVM with per-VM attributes, "
                + "MemslotTrapKVM by splitting memslots."),
        Term(
            "SoftKVM", ["soft", "software KVM"], .backends,
            "The backend that implements KVM in user space, without /dev/kvm: the Linux 7.4 rules as a program, and the Unicorn engine "
                + "as the CPU."),
        Term(
            "vCPU", ["virtual CPU"], .interface,
            "Virtual CPU: the registers of one CPU of a VM. A thread of the monitor runs it with KVM_RUN.",
            topics: ["KVM_RUN"]),
        Term(
            "guest", [], .guests,
            "The software inside a VM. The guests of MiniVMM are small programs without an operating system."),
        Term(
            "host", [], .architecture,
            "The machine and its kernel, and the processes on it, in contrast to the guest. The host is not trusted with private "
                + "memory."),
        Term(
            "exit", ["VM exit"], .interface,
            "The return from guest code to the host, with a reason. KVM handles most exits itself; KVM_RUN returns the others to the "
                + "monitor.", topics: ["exit"]),
        Term(
            "hypercall", ["VMCALL", "VMMCALL"], .guests,
            "A call from the guest to KVM, by VMCALL on Intel and VMMCALL on AMD. KVM_HC_MAP_GPA_RANGE requests a conversion.",
            topics: ["KVM_HC_MAP_GPA_RANGE"]),
        Term(
            "MMIO", ["memory-mapped I/O"], .interface,
            "Memory-mapped I/O: an access to a guest-physical address without a memslot, which the monitor handles as an access to a "
                + "device.", topics: ["exit MMIO"]),
        Term(
            "kick", [], .architecture,
            "To make a running vCPU leave the guest, with a signal or immediate_exit. KVM_RUN then returns EINTR."
        ),
        Term(
            "triple fault", [], .guests,
            "An exception while the CPU could not deliver the exception before it. It ends the guest with KVM_EXIT_SHUTDOWN.",
            topics: ["exit SHUTDOWN"]),
        Term(
            "software-protected VM", ["KVM_X86_SW_PROTECTED_VM", "SW_PROTECTED"], .interface,
            "A VM type of KVM with private memory but without hardware protection, for development. Contents survive conversions in "
                + "both directions.", topics: ["KVM_X86_SW_PROTECTED_VM"]),
        Term(
            "confidential VM", ["CVM", "confidential computing"], .interface,
            "A VM whose private memory is out of the host's reach, by hardware (TDX, SEV-SNP, CCA) or by the hypervisor (pKVM)."
        ),
        Term(
            "SIGBUS", [], .interface,
            "The signal that a thread of the host gets when it accesses a private page through the host mapping.",
            topics: ["call SIGBUS"]),
        Term(
            "DMA", ["direct memory access"], .interface,
            "Direct memory access: a device's own access to memory. The pages are pinned for it. On SEV-SNP the hardware refuses DMA to "
                + "private pages.",
            topics: ["A4"]),
        Term(
            "VFIO", ["iommufd"], .interface,
            "The kernel's interfaces that give a device to a guest. They pin guest memory for as long as the device may access it.",
            topics: ["A4"]),
    ]

    static let vendors: [Term] = [
        Term(
            "TDX", ["Intel TDX", "trust domain", "TD"], .confidential,
            "Intel Trust Domain Extensions: confidential VMs whose private memory the TDX module manages in the secure EPT. Contents do "
                + "not survive a conversion: the guest reads zeros after accepting a page."),
        Term(
            "launch", ["measured launch", "LAUNCH_FINISH", "finalised", "finalized"], .confidential,
            "The time before a confidential VM runs, in which the monitor writes its image into memory and the firmware measures and "
                + "encrypts it. It is the only time at which contents can be preserved on SNP and TDX; when it ends, the VM is finalised."
        ),
        Term(
            "pending", ["unaccepted page"], .confidential,
            "The state of a private page of a TDX guest that the host has added and the guest has not accepted."
        ),
        Term(
            "validated", ["guest-valid", "guest-invalid", "validated bit"], .confidential,
            "The state of a private page of an SNP guest that the guest has taken with PVALIDATE. Until then it is guest-invalid."
        ),
        Term(
            "secure EPT", ["SEPT"], .confidential,
            "The second-level page table for private memory of a TDX guest, owned by the TDX module. The host changes it only by calls "
                + "to the module: add, block, track, remove."),
        Term(
            "TDX module", ["SEAM", "SEAMCALL", "TDCALL"], .interface,
            "Intel's firmware between host and TDX guests. The host calls it with SEAMCALL, the guest with TDCALL."
        ),
        Term(
            "ACCEPT", ["TDG.MEM.PAGE.ACCEPT", "accept a page"], .confidential,
            "The TDX guest's call that takes over a pending private page. The module zeroes the page. Touching a page before accepting "
                + "it is #VE, or ends the VM."),
        Term(
            "MapGPA", ["TDG.VP.VMCALL MapGPA", "MAPGPA"], .confidential,
            "The TDX guest's request to convert a range; the shared bit of the address is the wanted state. KVM passes it to the "
                + "monitor in chunks of 2 MiB as KVM_HC_MAP_GPA_RANGE, and the answer RETRY means to continue at the address in R11."
        ),
        Term(
            "#VE", ["VE", "virtualization exception"], .confidential,
            "The exception (vector 20) by which a TDX guest handles accesses and instructions that the module leaves to it."
        ),
        Term(
            "SEV-SNP", ["SNP", "AMD SEV-SNP", "SEV"], .confidential,
            "AMD Secure Encrypted Virtualization with Secure Nested Paging: confidential VMs with encrypted memory and the RMP, which "
                + "records the owner of each page. Contents do not survive a conversion: the reader gets ciphertext or garbage."
        ),
        Term(
            "RMP", ["reverse map table"], .confidential,
            "Reverse map table of SEV-SNP: an entry for each page of host memory with its owner, guest-physical address and state. The "
                + "host changes entries with RMPUPDATE, the guest validates its own with PVALIDATE."),
        Term(
            "PVALIDATE", ["validate a page"], .confidential,
            "The SEV-SNP instruction by which a guest declares a private page valid or not. The bytes stay as they are. Touching a "
                + "page that is not valid raises #VC."),
        Term(
            "GHCB", ["guest-hypervisor communication block"], .confidential,
            "Guest-hypervisor communication block: the shared page through which an SEV-ES or SEV-SNP guest passes requests to the "
                + "hypervisor with VMGEXIT, page state changes among them."),
        Term(
            "page state change", ["PSC"], .confidential,
            "The SEV-SNP guest's request to convert a list of pages, through the GHCB. KVM passes it to the monitor as "
                + "KVM_HC_MAP_GPA_RANGE; a refusal leaves earlier entries converted."),
        Term(
            "#VC", ["VC", "VMM communication exception"], .confidential,
            "The exception (vector 29) by which an SEV-ES or SEV-SNP guest handles events that need the hypervisor. Error code 0x404 "
                + "means that the guest touched a private page that is not validated."),
        Term(
            "VMPL", ["VM privilege level"], .interface,
            "Virtual machine privilege level of SEV-SNP. Level 0 can restrict the page permissions of the others, and only level 0 can use "
                + "PVALIDATE."),
        Term(
            "pKVM", ["protected KVM"], .interface,
            "Protected KVM on arm64: the hypervisor at EL2 keeps the host out of a guest's memory by page tables, without encryption. "
                + "The guest shares and unshares pages with hypercalls; contents survive in both directions."),
        Term(
            "CCA", ["Arm CCA", "realm", "RMM"], .interface,
            "Arm Confidential Compute Architecture: VMs called realms, managed by the realm management monitor (RMM). The top bit of a "
                + "guest-physical address selects the shared alias, and the guest sets the state (RIPAS) of its pages."
        ),
    ]

    static let tests: [Term] = [
        Term(
            "litmus test", ["litmus"], .litmus,
            "A small concurrent program with the outcomes that are allowed, forbidden or required. `minivmm litmus FILE` runs it."
        ),
        Term(
            "race", ["data race"], .litmus,
            "Two or more actors whose steps can happen in different orders. In a litmus test, a block whose threads run at the same "
                + "time."),
        Term(
            "interleaving", ["schedule"], .litmus,
            "One order of the atomic steps of several actors. SoftKVM explores a small race exhaustively, that is, in every "
                + "interleaving."),
        Term(
            "atomic step", ["atomic", "atomic piece"], .litmus,
            "A part of a step that no other actor can see half done, for example a system call or one access of a vCPU."
        ),
        Term(
            "outcome", [], .litmus,
            "The results of the steps of a race that a litmus test names, such as `c = EAGAIN at 0`."),
        Term(
            "allowed outcome", ["allowed", "forbidden", "required", "forbidden outcome", "required outcome"],
            .litmus,
            "An outcome that a test permits. A forbidden outcome must never occur, and a required outcome must occur in at least one "
                + "interleaving."),
        Term(
            "witness order", ["witness"], .litmus,
            "One order of steps that leads to a given outcome, as evidence that the outcome can occur."),
        Term(
            "planted fault", ["plant", "fault injection", "mutant"], .litmus,
            "A deliberate error in SoftKVM (--plant), to check that the tests detect it."),
        Term(
            "model", ["the model"], .architecture,
            "The Linux 7.4 rules as a value without a kernel (the module ConversionModel). SoftKVM is built on it, and `minivmm "
                + "explore` compares kernels with it."),
        Term(
            "finding", ["difference from the model"], .explore,
            "A test whose result on a backend differs from the model, shrunk to the fewest steps that still show it."
        ),
        Term(
            "shrink", ["shrunk", "minimise", "minimize"], .explore,
            "To remove steps from a failing test as long as it still fails."),
        Term(
            "trace", [], .trace,
            "The events of a run with their times: as text on the terminal, or as JSON lines that `minivmm report TRACE` draws.",
            topics: ["event"]),
    ]
}
