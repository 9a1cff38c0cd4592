// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

/// An implementation of the in-place guest_memfd interface of Linux 7.4.
///
/// Every requirement of these protocols is one system call, with the uAPI's own structs in and out
/// and its errno thrown. ``LinuxKVM`` passes the calls to the running kernel, the adapters emulate them with
/// the interfaces of an older kernel, and SoftKVM is a KVM in user space.
///
/// All types are safe to share between threads, as descriptors are; a vCPU runs on one thread at a time.
public protocol Backend: AnyObject, Sendable {
    /// Which backend this is. All output includes it: printed lines, files and pictures.
    var identity: BackendIdentity { get }

    /// `KVM_CHECK_EXTENSION` on the system descriptor: what some VM type supports.
    ///
    /// - Returns: 0 for an unknown capability.
    /// - Throws: the errno of the ioctl. An unknown capability is not an error.
    func checkExtension(_ capability: Capability) throws(Errno) -> Int

    /// `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// - Throws: `E2BIG` if the kernel has more than 256 entries, `ENOMEM`.
    func supportedCPUID() throws(Errno) -> CPUIDTable

    /// `KVM_CREATE_VM`.
    ///
    /// - Parameter sharedBit: a guest-physical address bit that marks an access as *shared*, as in TDX
    ///   (where `KVM_TDX_INIT_VM` fixes it). The VM then has one memslot per region, at the address
    ///   without the bit. An access is shared or private by its address; if it does not match the
    ///   page's attribute it exits with `KVM_EXIT_MEMORY_FAULT`, whose `gpa` is without the bit. With `nil` an
    ///   access has the kind that the attribute says, so it always matches.
    /// - Throws: `EINVAL` if the backend has no such VM type or cannot tell the accesses apart.
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine

    /// Announces that vCPUs are about to run. A backend whose vCPUs are processes starts the process that they are
    /// forked from, while this process is still small.
    func prepareToRun()

    /// Nanoseconds on this backend's monotonic clock (simulated in SoftKVM).
    func now() -> UInt64

    /// Waits on that clock, with a precision of a nanosecond. The caller must hold no lock.
    func sleep(for duration: Duration)

    /// True if all vCPUs share one host thread: ``KVMVCPU/run()`` then throws `EINTR` at the end of a
    /// time slice, and the caller runs the next one. Two vCPUs are never inside at the same time.
    var runsVCPUsInTurns: Bool { get }

    /// True if RIP may already be past the instruction at the memory fault of a write, because the kernel
    /// emulated the write as MMIO.
    var retiresFaultingWrites: Bool { get }
}

extension Backend {
    /// Does nothing: the vCPUs of most backends are not processes.
    public func prepareToRun() {}
    /// False: at a memory fault RIP is the address of the faulting instruction.
    public var retiresFaultingWrites: Bool { false }
}

/// A virtual machine: the descriptor of `KVM_CREATE_VM`.
public protocol KVMVirtualMachine: AnyObject, Sendable {
    /// The effect of a conversion on the contents on this VM if the call does not specify it.
    var contentPromise: ContentPromise { get }

    /// `KVM_CHECK_EXTENSION` on the VM.
    ///
    /// - Returns: 0 for a capability that a VM of this type does not have.
    /// - Throws: the errno of the ioctl. An unknown capability is not an error.
    func checkExtension(_ capability: Capability) throws(Errno) -> Int

    /// `KVM_ENABLE_CAP` on the VM.
    ///
    /// - Parameter argument: `kvm_enable_cap.args[0]`.
    /// - Throws: `EINVAL` for a capability or argument that the VM does not support.
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
    /// - Throws: `EINVAL` for a region that is malformed, extends past its file, or changes a slot that has a
    ///   guest_memfd; `EEXIST` if another slot has some of its addresses or pages; `EBADF` if `guest_memfd`
    ///   is not an open descriptor; `ENOMEM`.
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno)

    /// `KVM_CREATE_VCPU`.
    ///
    /// - Throws: `EEXIST` for an id in use, `EINVAL` for an id out of range, `ENOMEM`.
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU
}

/// A VM whose kernel records private memory by guest-physical address (Linux 6.8 to 7.3), beside the interface that
/// the rest of this library uses.
public protocol PerVMAttributes: KVMVirtualMachine {
    /// `KVM_SET_MEMORY_ATTRIBUTES`. All or nothing.
    ///
    /// - Throws: `ENOTTY` if the kernel does not support it, `EINVAL` on a VM without private memory, `ENOMEM`.
    func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno)
}

/// An SNP or TDX VM, whose guest has a part in each conversion.
public protocol ConfidentialVirtualMachine: KVMVirtualMachine {
    /// `KVM_SEV_SNP_LAUNCH_UPDATE` or `KVM_TDX_INIT_MEM_REGION`, in place: private guest-physical pages become the guest's,
    /// with the bytes that the host has put there.
    ///
    /// - Throws: `EINVAL` after ``finalize()``, or for a page that is shared or has no memslot.
    func launch(_ range: PageRange) throws(Errno)

    /// `KVM_SEV_SNP_LAUNCH_FINISH` or `KVM_TDX_FINALIZE_VM`. vCPUs can run from now on.
    ///
    /// - Throws: `EINVAL` the second time.
    func finalize() throws(Errno)

    /// Clears SEPT_VE_DISABLE in the attributes of a TD, before ``finalize()``: the touch of a page that the guest has not
    /// accepted raises #VE in the guest, and does not end the TD. Does nothing on SNP.
    func raiseVE()

    /// Gives a guest page another host page of its memslot. No monitor can do this; a hostile kernel can.
    ///
    /// - Parameters:
    ///   - gpa: the guest page.
    ///   - other: the guest page to which the host page belongs; `gpa` itself undoes it.
    /// - Throws: `EINVAL` for a page without a memslot.
    func remap(_ gpa: UInt64, to other: UInt64) throws(Errno)

    /// Takes private pages from the guest. No monitor can do this; a hostile kernel can.
    ///
    /// - Throws: `EINVAL` for a page without a memslot.
    func take(_ range: PageRange) throws(Errno)

    /// From now on, does one entry of each page state change, and writes into the guest's list that it was the last. No monitor
    /// can do this; a hostile kernel can.
    func shrinkLists()

    /// How far the guest has taken its private pages: the changes since the last call, in order. The first call returns none, and
    /// begins to record them. Hardware tells no monitor.
    func takeGuestPages() -> [GuestPages]
}

/// Private pages of an SNP or TDX guest, and how far it has taken them.
public struct GuestPages: Hashable, Sendable {
    /// Guest-physical.
    public var range: PageRange
    /// The new state.
    public let state: GuestPageState

    /// A change.
    public init(range: PageRange, state: GuestPageState) {
        self.range = range
        self.state = state
    }
}

/// A guest_memfd: all or part of a VM's RAM.
public protocol KVMGuestMemfd: AnyObject, Sendable {
    /// The descriptor by which a memslot names the file.
    var descriptor: Int32 { get }

    /// Bytes.
    var size: UInt64 { get }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`: converts a range in place. All or nothing.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2. For `EAGAIN` and `ENOMEM`, `request.error_offset` then holds the
    ///   byte offset of the page that failed; otherwise the struct is unchanged.
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
    /// - Throws: `EINVAL` if the length is 0, a bound is not page aligned, or an allocation ends past the
    ///   file; `EFBIG` if the end does not fit into 63 bits; `EBADF` for a closed descriptor; `ENOMEM`.
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno)
}

/// A host mapping of a guest_memfd.
public protocol HostMapping: AnyObject, Sendable {
    /// The address for a memslot's `userspace_addr`. Dereferencing it directly may raise SIGBUS.
    var address: UInt64 { get }

    /// Bytes.
    var length: UInt64 { get }

    /// Reads as a system call on this memory would (`process_vm_readv`), up to the first unreadable
    /// page.
    ///
    /// - Parameter offset: bytes from the start of the mapping.
    /// - Returns: how many bytes were read.
    /// - Throws: `EFAULT` if the first page cannot be read or the part extends past the mapping.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int

    /// Writes as a system call on this memory would (`process_vm_writev`), up to the first unwritable
    /// page.
    ///
    /// - Parameter offset: bytes from the start of the mapping.
    /// - Returns: how many bytes were written.
    /// - Throws: `EFAULT` if the first page cannot be written or the part extends past the mapping.
    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int

    /// `madvise` on a part of the mapping.
    ///
    /// - Throws: `EFAULT` if a page to be populated cannot be accessed, `EINVAL` for an offset that is not
    ///   page aligned and for advice that this memory does not support.
    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno)

    /// Takes references on the pages, as a device model would: by `vmsplice(2)` into a pipe, which every kernel has and
    /// which needs no privilege.
    ///
    /// - Throws: `EFAULT` for a page that the host cannot access, `EAGAIN` for more pages than fit in a pipe (16).
    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold
}

/// A vCPU. Call ``run()`` from one thread at a time; ``kick()`` from any.
public protocol KVMVCPU: AnyObject, Sendable {
    /// The id passed to `KVM_CREATE_VCPU`.
    var id: Int { get }

    /// The vCPU's `kvm_run` page.
    var runPage: RunPage { get }

    /// `KVM_RUN`, not retried.
    ///
    /// - Throws: `EINTR` when kicked; `EFAULT` or `EHWPOISON`, possibly with the exit
    ///   `KVM_EXIT_MEMORY_FAULT`; `EAGAIN` and other errnos of the backend.
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
    /// - Throws: `EINVAL` for control registers that this CPU does not support.
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno)

    /// `KVM_SET_CPUID2`, before the first run.
    ///
    /// - Throws: `E2BIG` for more than 256 entries, `EINVAL` once the vCPU has run.
    func setCPUID(_ table: CPUIDTable) throws(Errno)

    /// `KVM_SET_GUEST_DEBUG`, between two runs: single step, INT3 and the debug registers exit with `KVM_EXIT_DEBUG`.
    ///
    /// - Throws: `EINVAL` for a flag that the kernel does not know, and for a guest whose registers are protected;
    ///   `ENOTTY` if the backend has no such call.
    func setGuestDebug(_ request: ckvm_guest_debug) throws(Errno)

    /// Makes the current or the next ``run()`` end with `EINTR`: sets `kvm_run.immediate_exit` and signals the
    /// thread inside. Stays in effect until ``RunPage/clearImmediateExit()``.
    func kick()
}

extension KVMVCPU {
    /// Not supported.
    ///
    /// - Throws: `ENOTTY`: the backend has no such call.
    public func setGuestDebug(_ request: ckvm_guest_debug) throws(Errno) {
        throw .inappropriateIOCTLForDevice
    }
}

/// A VM whose monitor can access private guest memory, because the memory or the CPU is emulated. No real private memory
/// allows that.
public protocol PrivateMemoryAccess: KVMVirtualMachine {
    /// Reads what the guest has in a private page, without any effect on the guest.
    ///
    /// - Parameter gpa: guest-physical address without the shared bit. The bytes must be in one page.
    /// - Throws: `EFAULT` if there is no memory, `EOPNOTSUPP` if the backend below has no such access.
    func readPrivate(gpa: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno)

    /// Writes into a private page, as another vCPU would.
    ///
    /// - Parameter gpa: guest-physical address without the shared bit. The bytes must be in one page.
    /// - Throws: `EFAULT` if there is no memory, `EOPNOTSUPP` if the backend below has no such access.
    func writePrivate(gpa: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno)
}
