// SPDX-License-Identifier: MIT
public import CKVMShim
public import ConversionModel
public import MiniVMM
public import SystemPackage

/// A VM of ``SoftKVM``.
///
/// Mutable state is guarded by the model's lock.
public final class SoftVM: SecondStageCounting, PerVMAttributes, DirtyLogging, ConfidentialVirtualMachine,
    @unchecked Sendable
{
    let model: Model
    /// The number of this VM in the model.
    public let number: VMID
    let type: VMType
    let sharedBit: Int?
    /// The bit of SNP or TDX in the guest's page tables; nil for other types.
    let encryptionBit: EncryptionBit?
    private let library: EngineLibrary
    private var vcpus: [Weak<SoftVCPU>] = []
    /// The engines of vCPUs that have run.
    private var engines: [Engine] = []
    /// Hypercall numbers that exit with `KVM_EXIT_HYPERCALL`, one bit each.
    private(set) var exitHypercalls: UInt64 = 0
    /// ``shrinkLists()`` has been called. Guarded by the model's lock.
    private(set) var shrinksLists = false
    /// Changes since the last ``takeGuestPages()``; nil before the first. Guarded by the model's lock.
    private var guestPages: [GuestPages]?

    /// The model's lock is held.
    init(_ model: Model, _ number: VMID, library: EngineLibrary) {
        self.model = model
        self.number = number
        self.library = library
        type = model.kernel.type(of: number)
        sharedBit = model.kernel.sharedBit(of: number)
        encryptionBit = EncryptionBit(type)
    }

    deinit {
        if model.keepsBytes { return }
        model.withLock {
            model.remove(number)
            model.kernel.forget(number)
        }
    }

    /// ``ContentPromise/undefined`` on a default VM; otherwise as configured.
    public var contentPromise: ContentPromise { model.withLock { model.kernel.contentPromise(of: number) } }

    /// `KVM_CHECK_EXTENSION` on the VM.
    ///
    /// - Returns: 0 for a capability that a VM of this type does not have.
    /// - Throws: nothing.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        model.configuration.rules.checkExtension(capability, on: type)
    }

    /// `KVM_ENABLE_CAP`: sets the hypercall numbers that exit with `KVM_EXIT_HYPERCALL`, one bit each.
    ///
    /// - Throws: `EINVAL` for anything but ``Capability/exitHypercall`` with the bit of `KVM_HC_MAP_GPA_RANGE` or
    ///   no bit.
    public func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        guard capability == .exitHypercall, argument & ~(1 << CKVM_HC_MAP_GPA_RANGE) == 0 else {
            throw .invalidArgument
        }
        model.call { exitHypercalls = argument }
    }

    /// `KVM_CREATE_GUEST_MEMFD`. `size` in bytes. Only the first TiB of a file is backed by memory.
    ///
    /// - Throws: `EINVAL` if the size is 0, not whole pages or does not fit into 63 bits, or a flag is not
    ///   allowed; `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory left.
    public func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        try model.call { () throws(Errno) in
            let descriptor: DescriptorID
            do throws(ErrorNumber) {
                descriptor = try model.kernel.createGuestMemfd(number, size: size, flags: flags)
            } catch {
                throw Errno(error)
            }
            if model.keepsBytes { return SoftGuestMemfd(model, descriptor, size: size, nil) }
            do throws(Errno) {
                let memory = try model.host { () throws(Errno) in try FileMemory(size: size) }
                model.add(memory, for: model.kernel.file(of: descriptor))
                let memfd = SoftGuestMemfd(model, descriptor, size: size, memory)
                model.add(memfd)
                return memfd
            } catch {
                model.kernel.forget(descriptor)
                throw error
            }
        }
    }

    /// `KVM_SEV_SNP_LAUNCH_UPDATE` or `KVM_TDX_INIT_MEM_REGION` of private guest-physical pages, in place.
    ///
    /// - Throws: `EINVAL` as ``KernelModel/launch(_:_:)``.
    public func launch(_ range: PageRange) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.launch(number, range) }
    }

    /// `KVM_SEV_SNP_LAUNCH_FINISH` or `KVM_TDX_FINALIZE_VM`.
    ///
    /// - Throws: `EINVAL` the second time, and on a VM of another type.
    public func finalize() throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.finalize(number) }
    }

    /// Gives a guest page another host page of its file.
    ///
    /// - Throws: `EINVAL` for a page without a memslot, and for two pages of different files.
    public func remap(_ gpa: UInt64, to other: UInt64) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            guard let (file, offset) = kernel.homePage(number, of: other) else { throw .invalidArgument }
            try kernel.move(number, gpa, to: file, at: offset)
        }
    }

    /// Takes private pages from the guest.
    ///
    /// - Throws: `EINVAL` for a page without a memslot.
    public func take(_ range: PageRange) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.takeAway(number, range) }
    }

    /// From now on does one entry of each page state change, and makes the guest's list end there.
    public func shrinkLists() { model.withLock { shrinksLists = true } }

    /// The changes since the last call in order, of which the first returns none.
    public func takeGuestPages() -> [GuestPages] {
        model.withLock {
            defer { guestPages = [] }
            return guestPages ?? []
        }
    }

    /// Clears SEPT_VE_DISABLE in the attributes of a TD.
    public func raiseVE() { model.withLock { model.kernel.raiseVE(number) } }

    /// `KVM_SET_USER_MEMORY_REGION2`.
    ///
    /// - Throws: `EINVAL` for a region that is malformed, exceeds its file, or changes a slot that has a
    ///   guest_memfd; `EEXIST` if another slot contains some of its addresses or pages; `EBADF` if `guest_memfd` is
    ///   not an open descriptor of this backend; `EFAULT` if a region without a guest_memfd is not mapped at
    ///   `userspace_addr`; ``SoftKVM/noBackingMemory`` past the first TiB of a file.
    public func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            // Dirty logging may be switched on or off: the next write of each vCPU to a page must be recorded
            // again.
            model.lastRunner = nil
            try kernel.setMemoryRegion(
                number, UserspaceMemoryRegion(region),
                guestMemfd: region.flags & CKVM_MEM_GUEST_MEMFD == 0
                    ? nil : model.descriptor(Int32(bitPattern: region.guest_memfd), kernel))
        }
    }

    /// `KVM_CREATE_VCPU`, with an id from 0 to 255. The process of the vCPU starts at its first run.
    ///
    /// - Throws: `EEXIST` for an id that is in use, `EINVAL` for one out of range.
    public func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        try model.call { () throws(Errno) in
            guard (0..<KernelModel.vcpuLimit).contains(id) else { throw .invalidArgument }
            guard !vcpus.contains(where: { $0.object?.id == id }) else { throw .fileExists }
            vcpus.removeAll { $0.object == nil }
            let vcpu = SoftVCPU(self, id: id, library: library)
            vcpus.append(Weak(vcpu))
            return vcpu
        }
    }

    /// The `pages_4k` statistic: the number of pages in the second-stage tables. A page is added when a vCPU first
    /// reads, writes or fetches from it, or walks it as a page table, and removed when it is converted or punched
    /// or its slot is deleted.
    public var pages4K: UInt64 { model.withLock { model.kernel.mappedPages(of: number) } }

    /// As ``pages4K``.
    public func countPages4K() -> UInt64 { pages4K }

    /// `KVM_SET_MEMORY_ATTRIBUTES`: the call of Linux 6.8 to 7.3, and of later versions that are built with it and
    /// do not convert in place.
    ///
    /// - Throws: `ENOTTY` with in-place conversion; `EINVAL` if flags are not 0, an attribute is
    ///   unknown to the VM type, or the range is empty, not page aligned or wraps.
    public func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.setVMAttributes(
                number, address: request.address, size: request.size, attributes: request.attributes,
                flags: request.flags)
        }
    }

    /// `KVM_GET_DIRTY_LOG`. Bit 0 is the first page of the slot.
    ///
    /// - Throws: `ENOENT` if there is no such slot or it has no `KVM_MEM_LOG_DIRTY_PAGES`, `EINVAL` for a number
    ///   that no slot can have.
    public func dirtyLog(slot: UInt32) throws(Errno) -> UInt64 {
        try model.callModel { kernel throws(ErrorNumber) in
            let bits = try kernel.takeDirtyLog(number, slot: slot)
            // The next write of each vCPU to a page must be recorded again.
            model.lastRunner = nil
            return bits
        }
    }

    /// The result of a vCPU read at a guest-physical address. With a shared bit the access is taken to have the kind of the
    /// page.
    public func visibleToGuest(at gpa: UInt64) -> VisibleByte {
        model.withLock {
            guard let (file, offset, _) = model.kernel.guestByte(number, at: gpa),
                let bytes = unsafe model.memory(of: file)?.bytes(at: offset)
            else { return model.kernel.visibleToGuest(number, at: gpa) }
            return .byte(.known(unsafe bytes.load(as: UInt8.self)))
        }
    }

    // MARK: effects of the model; the lock is held

    func zap(_ gpas: PageRange, keepingAccess: Bool) {
        for engine in engines { engine.zap(gpas, keepingAccess: keepingAccess) }
    }

    /// How far the guest has taken these pages. A change of the pages behind those of one of the last two changes is joined with it,
    /// so a loop of PVALIDATE over many pages, each of which is assigned and then validated, is two changes.
    func note(_ gpas: PageRange, _ state: GuestPageState) {
        guard let known = guestPages else { return }
        for index in known.indices.suffix(2).reversed() {
            let old = known[index]
            if old.state == state, old.range.end == gpas.start,
                let joined = PageRange(start: old.range.start, size: old.range.size + gpas.size)
            {
                guestPages?[index].range = joined
                return
            }
            // A later change of the same page must stay behind this one.
            if old.range.intersection(gpas) != nil { break }
        }
        guestPages?.append(GuestPages(range: gpas, state: state))
    }

    func codeChanged(_ gpas: PageRange) {
        for engine in engines { engine.forgetCode(at: gpas) }
    }

    func add(_ engine: Engine) { engines.append(engine) }
    func remove(_ engine: Engine) { engines.removeAll { $0 === engine } }
}

extension UserspaceMemoryRegion {
    init(_ region: ckvm_userspace_memory_region2) {
        self.init(
            slot: region.slot, flags: region.flags, guestPhysicalAddress: region.guest_phys_addr,
            memorySize: region.memory_size, userspaceAddress: region.userspace_addr,
            guestMemfdOffset: region.guest_memfd_offset)
    }
}
