public import CKVMShim
public import MiniVMM
public import SystemPackage

/// A VM of ``SoftKVM``.
///
/// What changes is guarded by the model's lock.
public final class SoftVM: SecondStageCounting, PerVMAttributes, DirtyLogging, @unchecked Sendable {
    let model: Model
    let type: VMType
    let sharedBit: Int?
    /// Unique in the model.
    let number: UInt64
    private let library: EngineLibrary
    private(set) var slots = Memslots()
    private var vcpus: [Weak<SoftVCPU>] = []
    /// The engines of those vCPUs that have run.
    private var engines: [Engine] = []
    /// What is private by guest-physical address, where that is the VM's to say (``PerVMAttributes``).
    private(set) var attributes: AttributeMap?
    /// Hypercall numbers that leave with `KVM_EXIT_HYPERCALL`, one bit each.
    private(set) var exitHypercalls: UInt64 = 0

    init(_ model: Model, type: VMType, sharedBit: Int?, library: EngineLibrary) {
        self.model = model
        self.type = type
        self.sharedBit = sharedBit
        self.library = library
        model.vmsCreated += 1
        number = model.vmsCreated
        if type == .softwareProtected, !model.configuration.inPlaceConversion {
            attributes = AttributeMap(size: .max & ~(pageSize - 1), initial: .shared)
        }
    }

    deinit {
        // The slots go with the VM, and the files forget them.
        model.look {
            for slot in slots.ascending { slot.file.unbind(slot) }
        }
    }

    public var contentPromise: ContentPromise {
        type == .softwareProtected ? model.contentPromise : .undefined
    }

    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        Self.answer(capability, type: type, configuration: model.configuration)
    }

    static func answer(_ capability: Capability, type: VMType, configuration: SoftKVM.Configuration) -> Int {
        let converts =
            type == .softwareProtected && configuration.inPlaceConversion
            && !configuration.plantedFaults.contains(.capabilityHidden)
        return switch capability {
        case .memslots: Int(Memslots.limit)
        case .maxVCPUs: maximumVCPUs
        case .exitHypercall: 1 << CKVM_HC_MAP_GPA_RANGE
        case .userMemory2, .memoryFaultInfo, .guestMemfd, .preFaultMemory: 1
        case .vmTypes: 1 << VMType.default.rawValue | 1 << VMType.softwareProtected.rawValue
        case .guestMemfdFlags: Int(allowedFlags(type, configuration).rawValue)
        case .memoryAttributes:
            type == .softwareProtected && !configuration.inPlaceConversion
                ? Int(CKVM_MEMORY_ATTRIBUTE_PRIVATE) : 0
        case .guestMemfdMemoryAttributes: converts ? Int(CKVM_MEMORY_ATTRIBUTE_PRIVATE) : 0
        default: 0
        }
    }

    static let maximumVCPUs = 256

    /// INIT_SHARED on a VM with private memory needs in-place conversion: it could never become private.
    private static func allowedFlags(_ type: VMType, _ configuration: SoftKVM.Configuration)
        -> GuestMemfdFlags
    {
        let flags: GuestMemfdFlags =
            type == .default || configuration.inPlaceConversion ? [.mmap, .initShared] : [.mmap]
        return configuration.contentDesign == .creationFlag
            ? flags.union(ContentDesign.creationFlagBit) : flags
    }

    /// `EINVAL` for anything but ``Capability/exitHypercall`` with `KVM_HC_MAP_GPA_RANGE` or nothing.
    public func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        guard capability == .exitHypercall, argument & ~(1 << CKVM_HC_MAP_GPA_RANGE) == 0 else {
            throw .invalidArgument
        }
        model.call { exitHypercalls = argument }
    }

    public func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        guard size > 0, size <= UInt64(Int64.max), size % pageSize == 0,
            flags.isSubset(of: Self.allowedFlags(type, model.configuration))
                || model.faults.contains(.unknownFileFlagsAccepted)
        else { throw .invalidArgument }
        return try model.call { () throws(Errno) in
            let file = try GuestFile(
                model, owner: number, vmType: type, size: size, flags: flags)
            let memfd = SoftGuestMemfd(file)
            model.add(memfd)
            return memfd
        }
    }

    public func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try model.call { () throws(Errno) in try slots.set(region, of: self) }
    }

    /// `EEXIST` for an id that is taken, `EINVAL` for one that is out of range.
    public func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        try model.call { () throws(Errno) in
            guard (0..<Self.maximumVCPUs).contains(id) else { throw .invalidArgument }
            guard !vcpus.contains(where: { $0.object?.id == id }) else { throw .fileExists }
            vcpus.removeAll { $0.object == nil }
            let vcpu = SoftVCPU(self, id: id, library: library)
            vcpus.append(Weak(vcpu))
            return vcpu
        }
    }

    /// The `pages_4k` statistic: pages in the second-stage tables. A page comes in when a vCPU first reads, writes
    /// or fetches from it, or walks it as a page table, and goes when it is converted, punched, or its slot deleted.
    public var pages4K: UInt64 {
        model.look { slots.ascending.reduce(0) { $0 + $1.mappedPages } }
    }

    public func countPages4K() -> UInt64 { pages4K }

    /// The call of Linux 6.8 to 7.3, and of later ones that are built with it and do not convert in place.
    public func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno) {
        try model.call { () throws(Errno) in
            guard !model.configuration.inPlaceConversion else { throw .inappropriateIOCTLForDevice }
            let known = attributes == nil ? 0 : CKVM_MEMORY_ATTRIBUTE_PRIVATE
            guard request.flags == 0, request.attributes & ~known == 0,
                let range = PageRange(start: request.address, size: request.size)
            else { throw .invalidArgument }
            let state: PageState = request.attributes == 0 ? .shared : .private
            if attributes?.uniformState(of: range) == state { return }
            change(range, to: state)
        }
    }

    private func change(_ range: PageRange, to state: PageState) {
        attributes?.set(range, to: state)
        for slot in slots.ascending {
            if let part = slot.range.intersection(range)?.offset(from: slot.range.start) {
                slot.zap(part, deleted: true)
            }
        }
    }

    public func dirtyLog(slot number: UInt32) throws(Errno) -> UInt64 {
        try model.call { () throws(Errno) in
            guard number < Memslots.limit else { throw .invalidArgument }
            guard let slot = slots.ascending.first(where: { $0.id == number }), let bits = slot.takeWritten()
            else { throw .noSuchFileOrDirectory }
            // The next write of each vCPU to a page counts again.
            model.lastRunner = nil
            return bits
        }
    }

    // MARK: for the slots; the caller holds the lock

    func zap(_ gpas: PageRange, keepingAccess: Bool) {
        for engine in engines { engine.zap(gpas, keepingAccess: keepingAccess) }
    }

    func codeChanged(_ gpas: PageRange) {
        for engine in engines { engine.forgetCode(at: gpas) }
    }

    func add(_ engine: Engine) { engines.append(engine) }
    func remove(_ engine: Engine) { engines.removeAll { $0 === engine } }
}

extension Memslot {
    /// Pages of the slot that are in the second-stage tables.
    fileprivate var mappedPages: UInt64 {
        PageRange(start: 0, size: range.size).map { mapped.bytes(.private, in: $0) / pageSize } ?? 0
    }
}
