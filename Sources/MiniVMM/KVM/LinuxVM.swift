// SPDX-License-Identifier: MIT
public import CKVMShim
import Synchronization
public import SystemPackage

/// A VM of ``LinuxKVM``.
public final class LinuxVM: PerVMAttributes {
    /// Found out when the VM was created. ``ContentPromise/undefined`` on a default VM and on a kernel without
    /// guest_memfd.
    public let contentPromise: ContentPromise
    let vm: OwnedDescriptor
    private let runPageLength: Int
    /// Nonnil once it has been requested. Guarded by its lock.
    let pages4K = Mutex<BinaryStatistic?>(nil)

    init(system: borrowing OwnedDescriptor, type: VMType, runPageLength: Int) throws(Errno) {
        vm = OwnedDescriptor(owning: Int32(try ioctl(system, CKVM_CREATE_VM, value: type.rawValue)))
        self.runPageLength = runPageLength
        // A default VM cannot convert.
        guard type == .softwareProtected else {
            contentPromise = .undefined
            return
        }
        // docs/ABI.md, section 2: on a software-protected VM contents are preserved in both directions, unless the
        // kernel has content modes.
        do throws(Errno) {
            let scratch = try Self.createGuestMemfd(of: vm, size: pageSize, flags: [])
            contentPromise = .discovered(on: scratch, otherwise: .preserved)
        } catch {
            // Without guest_memfd there is nothing to convert. A host out of descriptors proves nothing.
            if error.isHostLimit { throw error }
            contentPromise = .undefined
        }
    }

    /// `KVM_CHECK_EXTENSION` on the VM.
    ///
    /// - Returns: 0 for a capability that a VM of this type does not have.
    /// - Throws: the errno of the ioctl. An unknown capability is not an error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        try ioctl(vm, CKVM_CHECK_EXTENSION, value: UInt(capability.rawValue))
    }

    /// `KVM_ENABLE_CAP` on the VM; `argument` is `args[0]`, all other fields are 0.
    ///
    /// - Throws: `EINVAL` for a capability or argument that the VM does not support.
    public func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        var request = ckvm_enable_cap()
        request.cap = capability.rawValue
        request.args.0 = argument
        try ioctl(vm, CKVM_ENABLE_CAP, &request)
    }

    /// `KVM_CREATE_GUEST_MEMFD`; `size` in bytes.
    ///
    /// - Throws: `EINVAL` if the size is 0 or not whole pages, or a flag is not allowed on this type of VM;
    ///   `ENOTTY` before Linux 6.8; `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory
    ///   left.
    public func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        try Self.createGuestMemfd(of: vm, size: size, flags: flags)
    }

    private static func createGuestMemfd(
        of vm: borrowing OwnedDescriptor, size: UInt64, flags: GuestMemfdFlags
    ) throws(Errno) -> LinuxGuestMemfd {
        var request = ckvm_create_guest_memfd()
        request.size = size
        request.flags = flags.rawValue
        let descriptor = try ioctl(vm, CKVM_CREATE_GUEST_MEMFD, &request)
        return LinuxGuestMemfd(owning: Int32(descriptor), size: size)
    }

    /// `KVM_SET_USER_MEMORY_REGION2`.
    ///
    /// - Throws: `EINVAL` for a region that is malformed, extends past its file, or changes a slot that has a
    ///   guest_memfd; `EEXIST` if another slot has some of its addresses or pages; `EBADF` if `guest_memfd`
    ///   is not an open descriptor; `ENOMEM`; `ENOTTY` before Linux 6.8.
    public func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        var region = region
        try ioctl(vm, CKVM_SET_USER_MEMORY_REGION2, &region)
    }

    /// `KVM_SET_USER_MEMORY_REGION`, for kernels before 6.8.
    ///
    /// - Throws: `EINVAL` for a malformed region, `EEXIST` if another slot has some of its addresses,
    ///   `ENOMEM`.
    public func setUserMemoryRegion(_ region: ckvm_userspace_memory_region) throws(Errno) {
        var region = region
        try ioctl(vm, CKVM_SET_USER_MEMORY_REGION, &region)
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES` on the VM, by guest-physical address.
    ///
    /// - Throws: `ENOTTY` if the kernel does not support it, `EINVAL` on a VM without private memory and for
    ///   an invalid range or attribute, `ENOMEM`.
    public func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno) {
        var request = request
        try ioctl(vm, CKVM_SET_MEMORY_ATTRIBUTES, &request)
    }

    /// `KVM_CREATE_VCPU`, and `mmap` of its `kvm_run` page.
    ///
    /// - Throws: `EEXIST` for an id in use, `EINVAL` for an id out of range, `EMFILE`, `ENFILE`
    ///   or `ENOMEM` if the host has no descriptor or memory left.
    public func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        try LinuxVCPU(vm: vm, id: id, runPageLength: runPageLength)
    }
}

/// A guest_memfd of ``LinuxKVM``.
public final class LinuxGuestMemfd: KVMGuestMemfd {
    /// Bytes, as requested.
    public let size: UInt64
    /// The number is kept after the descriptor is closed, for calls on a closed descriptor.
    let state: Mutex<(number: Int32, isOpen: Bool, isReserved: Bool)>

    init(owning descriptor: Int32, size: UInt64, isReserved: Bool = false) {
        state = Mutex((descriptor, isOpen: true, isReserved: isReserved))
        self.size = size
    }

    deinit {
        let (number, isOpen, isReserved) = state.withLock { $0 }
        if isOpen { _ = ckvm_close(number) }
        if isReserved { ReservedDescriptors.free(number) }
    }

    /// Unchanged by ``closeDescriptor()``.
    public var descriptor: Int32 { state.withLock { $0.number } }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2. `ENOTTY` means that the kernel does not convert in place;
    ///   `EAGAIN` and `ENOMEM` set `request.error_offset`.
    public func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        try ioctl(descriptor, CKVM_SET_MEMORY_ATTRIBUTES2, &request)
    }

    /// `mmap(MAP_SHARED, PROT_READ | PROT_WRITE)`; both arguments in bytes.
    ///
    /// - Throws: `ENODEV` without ``GuestMemfdFlags/mmap``, `EINVAL` for a length of 0 and an offset that is
    ///   not page aligned, `EBADF` for a closed descriptor, `ENOMEM`.
    public func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try mapAnywhere(offset: offset, length: length)
    }

    func mapAnywhere(offset: UInt64, length: UInt64) throws(Errno) -> LinuxHostMapping {
        LinuxHostMapping(try OwnedMapping(descriptor, offset: offset, length: length))
    }

    /// `fallocate` with `FALLOC_FL_KEEP_SIZE`, repeated after `EINTR`; offset and length are in bytes.
    ///
    /// - Throws: `EINVAL` if the length is 0, a bound is not page aligned or does not fit into 63 bits, or an
    ///   allocation ends past the file; `EFBIG` if the sum does not fit; `EBADF` for a closed descriptor;
    ///   `ENOMEM`.
    public func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try fallocate(descriptor, punchHole: punchHole, offset: offset, length: length)
    }
}

/// A host mapping that is accessed only by system calls, so that a private page is `EFAULT` and never SIGBUS.
public final class LinuxHostMapping: HostMapping {
    /// The result of `mmap`. It is kept after ``unmap()``, for calls on addresses where nothing is mapped.
    public let address: UInt64
    /// Bytes, as requested.
    public let length: UInt64
    /// Nil after it has been unmapped or moved.
    let mapping: Mutex<OwnedMapping?>

    init(_ mapping: consuming OwnedMapping) {
        address = mapping.address
        length = UInt64(mapping.length)
        self.mapping = Mutex(consume mapping)
    }

    /// `process_vm_readv` of this process, up to the first page that cannot be read.
    ///
    /// - Returns: how many bytes were read.
    /// - Throws: `EFAULT` if the first page cannot be read or the part extends past the mapping.
    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        let count = try checked(offset, buffer.count)
        guard count > 0, let base = buffer.baseAddress else { return 0 }
        return try value(unsafe ckvm_copy_from(base, address + offset, UInt64(count)))
    }

    /// `process_vm_writev` of this process, up to the first page that cannot be written.
    ///
    /// - Returns: how many bytes were written.
    /// - Throws: `EFAULT` if the first page cannot be written or the part extends past the mapping.
    public func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        let count = try checked(offset, buffer.count)
        guard count > 0, let base = buffer.baseAddress else { return 0 }
        return try value(unsafe ckvm_copy_to(address + offset, base, UInt64(count)))
    }

    /// `vmsplice` of the pages into a pipe of its own.
    ///
    /// - Throws: `EFAULT` for a page that the host cannot access or that is outside the mapping; `EAGAIN` for
    ///   more pages than fit in the pipe (16 by default); `EMFILE` or `ENFILE` without a descriptor for the
    ///   pipe.
    public func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        guard let count = Int(exactly: length) else { throw .invalidArgument }
        return try PipeHold(address: start(of: offset, length), length: count)
    }

    /// `madvise`.
    ///
    /// - Throws: the errno of `madvise(2)`: `EFAULT` where a page cannot be populated, `EINVAL` for an offset
    ///   that is not page aligned and for advice that a guest_memfd does not support, `ENOMEM` where nothing is
    ///   mapped, `EHWPOISON` for a page whose memory has failed. `EFAULT` also if the part extends past the
    ///   mapping.
    public func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        let start = try start(of: offset, length)
        _ = try value(
            advice == .hwPoison ? ckvm_poison(start, length) : ckvm_madvise(start, length, advice.number))
    }

    /// The address of a part that must be inside the mapping.
    func start(of offset: UInt64, _ length: UInt64) throws(Errno) -> UInt64 {
        guard let count = Int(exactly: length) else { throw .invalidArgument }
        _ = try checked(offset, count)
        return address + offset
    }

    private func checked(_ offset: UInt64, _ count: Int) throws(Errno) -> Int {
        guard offset <= length, UInt64(count) <= length - offset else { throw .badAddress }
        return count
    }
}

/// `fallocate(2)` with `FALLOC_FL_KEEP_SIZE`.
///
/// KVM interrupts an allocation when its thread has a signal pending, or task work from an io_uring. The completed part
/// stays, and the call is repeated.
func fallocate(
    _ file: Int32, punchHole: Bool, offset: UInt64, length: UInt64
) throws(Errno) {
    guard let offset = Int64(exactly: offset), let length = Int64(exactly: length) else {
        throw .invalidArgument
    }
    let interrupted = -Int(Errno.interrupted.rawValue)
    var result: Int
    repeat { result = ckvm_fallocate(file, punchHole, offset, length) } while result == interrupted
    _ = try value(result)
}

/// A vCPU of ``LinuxKVM``.
public final class LinuxVCPU: KVMVCPU {
    /// The id passed to `KVM_CREATE_VCPU`.
    public let id: Int
    /// Stays mapped as long as this object exists.
    public let runPage: RunPage
    let vcpu: OwnedDescriptor
    private let mapping: OwnedMapping
    /// The thread inside ``run()``, or 0. Written by that thread, read by ``kick()``.
    private let runner = Atomic<Int32>(0)

    init(vm: borrowing OwnedDescriptor, id: Int, runPageLength: Int) throws(Errno) {
        vcpu = OwnedDescriptor(owning: Int32(try ioctl(vm, CKVM_CREATE_VCPU, value: UInt(bitPattern: id))))
        let length = UInt64(runPageLength)
        let address = try value(Int(ckvm_mmap_run_page(vcpu.rawValue, length)))
        mapping = try OwnedMapping(owning: UInt64(address), length: length)
        runPage = unsafe RunPage(
            mapping.base.bindMemory(to: ckvm_run.self, capacity: 1), length: runPageLength)
        self.id = id
    }

    /// `KVM_RUN`, once. Sets `exit_reason` to `KVM_EXIT_UNKNOWN` first, so that a reason in the page comes from this
    /// run.
    ///
    /// - Throws: `EINTR` when kicked or on another signal; `EFAULT` or `EHWPOISON` with or without
    ///   `KVM_EXIT_MEMORY_FAULT`; any other errno of `KVM_RUN`.
    public func run() throws(Errno) {
        // A failing KVM_RUN may leave the previous reason in place.
        runPage.exitReason = CKVM_EXIT_UNKNOWN
        runner.store(ckvm_kickable_thread_id(), ordering: .sequentiallyConsistent)
        defer { runner.store(0, ordering: .releasing) }
        try ioctl(vcpu, CKVM_RUN, retryOnInterrupt: false)
    }

    /// Sets `kvm_run.immediate_exit`, then sends SIGUSR1 to the thread inside ``run()``, if there is one.
    public func kick() {
        runPage.setImmediateExit()
        let thread = runner.load(ordering: .sequentiallyConsistent)
        // The thread may have left meanwhile and even ended; then the signal reaches no thread.
        if thread != 0 { _ = ckvm_kick_thread(thread) }
    }

    /// `KVM_GET_REGS`.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    public func registers() throws(Errno) -> ckvm_regs {
        var registers = ckvm_regs()
        try ioctl(vcpu, CKVM_GET_REGS, &registers)
        return registers
    }

    /// `KVM_SET_REGS`.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    public func setRegisters(_ registers: ckvm_regs) throws(Errno) {
        var registers = registers
        try ioctl(vcpu, CKVM_SET_REGS, &registers)
    }

    /// `KVM_GET_SREGS`.
    ///
    /// - Throws: the errno of the ioctl; none is expected.
    public func specialRegisters() throws(Errno) -> ckvm_sregs {
        var registers = ckvm_sregs()
        try ioctl(vcpu, CKVM_GET_SREGS, &registers)
        return registers
    }

    /// `KVM_SET_SREGS`.
    ///
    /// - Throws: `EINVAL` for control registers that this CPU does not support.
    public func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        var registers = registers
        try ioctl(vcpu, CKVM_SET_SREGS, &registers)
    }

    /// `KVM_SET_GUEST_DEBUG`.
    ///
    /// - Throws: `EINVAL` for a flag that the kernel does not know, and for a guest whose registers are protected.
    public func setGuestDebug(_ request: ckvm_guest_debug) throws(Errno) {
        var request = request
        try ioctl(vcpu, CKVM_SET_GUEST_DEBUG, &request)
    }

    /// `KVM_SET_CPUID2`.
    ///
    /// - Throws: `E2BIG` for more than 256 entries; `EINVAL` if the vCPU has run and the table differs from
    ///   its current one.
    public func setCPUID(_ table: CPUIDTable) throws(Errno) {
        guard table.entries.count <= Int(CKVM_CPUID_MAX_ENTRIES) else { throw .argListTooLong }
        var request = ckvm_cpuid2()
        request.nent = UInt32(table.entries.count)
        unsafe withUnsafeMutableBytes(of: &request.entries) { bytes in
            let slots = unsafe bytes.bindMemory(to: ckvm_cpuid_entry2.self)
            for (index, entry) in table.entries.enumerated() { unsafe slots[index] = entry }
        }
        try ioctl(vcpu, CKVM_SET_CPUID2, &request)
    }
}
