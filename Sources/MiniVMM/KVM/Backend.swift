// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

/// A kernel that answers the in-place guest_memfd interface of Linux 7.4.
///
/// Every requirement of these protocols stands for one system call, with the uAPI's own structs in and out
/// and its errno thrown. Whoever implements them is a kernel: ``LinuxKVM`` is the one below this process, the
/// adapters answer with what an older one has, SoftKVM is one in user space.
///
/// All types are safe to share between threads, as descriptors are; a vCPU runs on one thread at a time.
public protocol Backend: AnyObject, Sendable {
    /// Who answers. Everything that is printed, written or drawn carries it.
    var identity: BackendIdentity { get }

    /// `KVM_CHECK_EXTENSION` on the system descriptor: what some VM type could do.
    ///
    /// - Returns: 0 for a capability that the kernel does not know.
    /// - Throws: the errno of the ioctl. An unknown capability is no error.
    func checkExtension(_ capability: Capability) throws(Errno) -> Int

    /// `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// - Throws: `E2BIG` if the kernel has more than 256 entries, `ENOMEM`.
    func supportedCPUID() throws(Errno) -> CPUIDTable

    /// `KVM_CREATE_VM`.
    ///
    /// - Parameter sharedBit: a guest-physical address bit that says *shared* for an access, as TDX has it
    ///   (there it is fixed by `KVM_TDX_INIT_VM`). The VM then has one memslot a region, at the address
    ///   without the bit; an access is shared or private by its address, and one that does not match the
    ///   page's attribute leaves with `KVM_EXIT_MEMORY_FAULT`, whose `gpa` is without the bit. With `nil` the
    ///   kind of an access is taken from the attribute, so that none mismatches.
    /// - Throws: `EINVAL` where the kernel has no such VM type or cannot tell the accesses apart.
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine

    /// vCPUs are going to run. A kernel whose vCPUs are processes starts what those are forked from, before this process has
    /// much that would be forked with it.
    func prepareToRun()

    /// Nanoseconds on this kernel's monotonic clock (a virtual one in SoftKVM).
    func now() -> UInt64

    /// Waits on that clock, with a precision of a nanosecond. No lock may be held.
    func sleep(for duration: Duration)

    /// True where all vCPUs share one host thread: ``KVMVCPU/run()`` then ends with `EINTR` at the end of a
    /// time slice, and the caller runs the next one. Two vCPUs are never inside at once.
    var runsVCPUsInTurns: Bool { get }

    /// True where RIP may already be behind the instruction at the memory fault of a write, because the kernel below
    /// emulated the write as MMIO.
    var retiresFaultingWrites: Bool { get }
}

extension Backend {
    /// Does nothing: vCPUs of most kernels are no processes.
    public func prepareToRun() {}
    /// False: at a memory fault RIP names the instruction that faulted.
    public var retiresFaultingWrites: Bool { false }
}

/// A virtual machine: the descriptor of `KVM_CREATE_VM`.
public protocol KVMVirtualMachine: AnyObject, Sendable {
    /// What conversion does to contents on this VM when the call itself does not say.
    var contentPromise: ContentPromise { get }

    /// `KVM_CHECK_EXTENSION` on the VM.
    ///
    /// - Returns: 0 for a capability that a VM of this type does not have.
    /// - Throws: the errno of the ioctl. An unknown capability is no error.
    func checkExtension(_ capability: Capability) throws(Errno) -> Int

    /// `KVM_ENABLE_CAP` on the VM.
    ///
    /// - Parameter argument: `kvm_enable_cap.args[0]`.
    /// - Throws: `EINVAL` for a capability or an argument that the VM does not have.
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno)

    /// `KVM_CREATE_GUEST_MEMFD`.
    ///
    /// - Parameter size: bytes, a multiple of the page size.
    /// - Throws: `EINVAL` if the size is 0 or not whole pages, or a flag is not allowed on this type of VM;
    ///   `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory left.
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd

    /// `KVM_SET_USER_MEMORY_REGION2`. `guest_memfd` is a ``KVMGuestMemfd/descriptor`` and `userspace_addr` a
    /// ``HostMapping/address``; both must outlive the slot.
    ///
    /// - Throws: `EINVAL` for a region that is malformed, leaves its file, or changes a slot that has a
    ///   guest_memfd; `EEXIST` if another slot has some of its addresses or pages; `EBADF` if `guest_memfd`
    ///   is no open descriptor; `ENOMEM`.
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno)

    /// `KVM_CREATE_VCPU`.
    ///
    /// - Throws: `EEXIST` for an id that is taken, `EINVAL` for one that is out of range, `ENOMEM`.
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU
}

/// A VM whose kernel keeps what is private by guest-physical address (Linux 6.8 to 7.3), beside the interface that
/// all the rest of this library speaks.
public protocol PerVMAttributes: KVMVirtualMachine {
    /// `KVM_SET_MEMORY_ATTRIBUTES`. All or nothing.
    ///
    /// - Throws: `ENOTTY` where the kernel does not have it, `EINVAL` on a VM without private memory, `ENOMEM`.
    func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno)
}

/// A guest_memfd: the RAM of a VM, or a part of it.
public protocol KVMGuestMemfd: AnyObject, Sendable {
    /// The number by which a memslot names the file.
    var descriptor: Int32 { get }

    /// Bytes.
    var size: UInt64 { get }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`: converts a range in place. All or nothing.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2. For `EAGAIN` and `ENOMEM` `request.error_offset` then holds the
    ///   byte offset of the page that failed; the struct is not touched otherwise.
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno)

    /// `mmap(MAP_SHARED, PROT_READ | PROT_WRITE)` of the file.
    ///
    /// - Throws: `ENODEV` without ``GuestMemfdFlags/mmap``.
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping

    /// `fallocate` with `FALLOC_FL_KEEP_SIZE`, and `FALLOC_FL_PUNCH_HOLE` when `punchHole` is set.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the file.
    ///   - length: bytes.
    /// - Throws: `EINVAL` if the length is 0, a bound is not page aligned, or an allocation ends after the
    ///   file; `EFBIG` if the end does not fit into 63 bits; `EBADF` for a closed descriptor; `ENOMEM`.
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno)
}

/// A host mapping of a guest_memfd.
public protocol HostMapping: AnyObject, Sendable {
    /// The address that a memslot's `userspace_addr` takes. Reading through it directly may be SIGBUS.
    var address: UInt64 { get }

    /// Bytes.
    var length: UInt64 { get }

    /// Reads as a system call on this memory would (`process_vm_readv`), up to the first page that cannot be
    /// read.
    ///
    /// - Parameter offset: bytes from the start of the mapping.
    /// - Returns: how many bytes were read.
    /// - Throws: `EFAULT` if the first page cannot be read or the part leaves the mapping.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int

    /// Writes as a system call on this memory would (`process_vm_writev`), up to the first page that cannot
    /// be written.
    ///
    /// - Parameter offset: bytes from the start of the mapping.
    /// - Returns: how many bytes were written.
    /// - Throws: `EFAULT` if the first page cannot be written or the part leaves the mapping.
    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int

    /// `madvise` on a part of the mapping.
    ///
    /// - Throws: `EFAULT` where a page that is to be populated cannot be touched, `EINVAL` for an offset that is not
    ///   page aligned and for advice that this memory cannot take.
    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno)

    /// Takes references on the pages, as a device model would: by `vmsplice(2)` into a pipe, which every kernel has and
    /// which needs no privilege.
    ///
    /// - Throws: `EFAULT` for a page the host cannot touch, `EAGAIN` for more pages than a pipe takes (16).
    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold
}

/// A vCPU. ``run()`` on one thread at a time; ``kick()`` from any.
public protocol KVMVCPU: AnyObject, Sendable {
    /// The number that `KVM_CREATE_VCPU` got.
    var id: Int { get }

    /// The vCPU's `kvm_run` page.
    var runPage: RunPage { get }

    /// `KVM_RUN`, not retried.
    ///
    /// - Throws: `EINTR` when kicked; `EFAULT` or `EHWPOISON`, and then the exit may be
    ///   `KVM_EXIT_MEMORY_FAULT`; `EAGAIN` and others as the kernel has them.
    func run() throws(Errno)

    /// `KVM_GET_REGS`, between two runs.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    func registers() throws(Errno) -> ckvm_regs
    /// `KVM_SET_REGS`, between two runs.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    func setRegisters(_ registers: ckvm_regs) throws(Errno)

    /// `KVM_GET_SREGS`, between two runs.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    func specialRegisters() throws(Errno) -> ckvm_sregs
    /// `KVM_SET_SREGS`, between two runs.
    ///
    /// - Throws: `EINVAL` for control registers that this CPU cannot have.
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno)

    /// `KVM_SET_CPUID2`, before the first run.
    ///
    /// - Throws: `E2BIG` for more than 256 entries, `EINVAL` once the vCPU has run.
    func setCPUID(_ table: CPUIDTable) throws(Errno)

    /// Makes the current or the next ``run()`` end with `EINTR`: sets `kvm_run.immediate_exit` and signals the
    /// thread that is inside. Stays in force until ``RunPage/clearImmediateExit()``.
    func kick()
}
