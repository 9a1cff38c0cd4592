// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

@testable import MiniVMM

/// A scripted backend with per-VM attributes: it records every call, checks slots as Linux does, can
/// refuse a call on request, and shows the memory that a guest would access.
final class ScriptedPerVMKVM: Backend {
    let identity = BackendIdentity(name: "ScriptedPerVMKVM", host: "a test", kind: .simulated)
    let runsVCPUsInTurns = true
    let vm = ScriptedPerVM()

    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func supportedCPUID() throws(Errno) -> CPUIDTable { CPUIDTable(entries: []) }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        guard sharedBit == nil else { throw .invalidArgument }
        return type == .softwareProtected ? vm : ScriptedVM()
    }
    func now() -> UInt64 { 0 }
    func sleep(for duration: Duration) {}
}

final class ScriptedPerVM: PerVMAttributes {
    /// One call, in pages.
    enum Call: Equatable, CustomStringConvertible {
        case attributes(UInt64, UInt64, PageState)
        case slot(UInt32, UInt64, UInt64)
        case delete(UInt32)
        /// A hole in the private memory.
        case hole(UInt64, UInt64)

        var description: String {
            switch self {
            case .attributes(let start, let count, let state): "\(start)+\(count) \(state.rawValue)"
            case .slot(let id, let start, let count): "slot \(id) \(start)+\(count)"
            case .delete(let id): "delete \(id)"
            case .hole(let start, let count): "hole \(start)+\(count)"
            }
        }
    }

    struct State {
        var calls: [Call] = []
        var slots: [UInt32: ckvm_userspace_memory_region2] = [:]
        /// By guest-physical address.
        var attributes = AttributeMap(size: 1 << 40, initial: .shared)
        /// By descriptor; weak, so that a closed file disappears.
        var files: [Int32: WeakFile] = [:]
        /// The flags of the files that were created.
        var flags: [GuestMemfdFlags] = []
        /// Number of `KVM_SET_MEMORY_ATTRIBUTES` calls until one is refused; nil refuses none.
        var attributesUntilRefusal: Int?
        var attributesErrno = Errno.noMemory
        var slotRefusal: Errno?
        /// Called before each change of attributes.
        var onAttributes: (@Sendable () -> Void)?
    }
    struct WeakFile {
        weak var file: ScriptedGuestMemfd?
    }
    let state = Mutex(State())

    var contentPromise: ContentPromise { .undefined }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { capability == .memslots ? 64 : 0 }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {}
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { ScriptedVCPU() }

    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        let file = try ScriptedGuestMemfd(size: size, of: self)
        state.withLock {
            $0.files[file.descriptor] = WeakFile(file: file)
            $0.flags.append(flags)
        }
        return file
    }

    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try state.withLock { state throws(Errno) in
            if let errno = state.slotRefusal { throw errno }
            if region.memory_size == 0 {
                guard state.slots.removeValue(forKey: region.slot) != nil else { throw .invalidArgument }
                state.calls.append(.delete(region.slot))
                return
            }
            guard state.slots[region.slot] == nil || region.flags & CKVM_MEM_GUEST_MEMFD == 0 else {
                throw .invalidArgument
            }
            state.calls.append(
                .slot(region.slot, region.guest_phys_addr / pageSize, region.memory_size / pageSize))
            state.slots[region.slot] = region
        }
    }

    func setMemoryAttributes(_ request: ckvm_memory_attributes) throws(Errno) {
        state.withLock { $0.onAttributes }?()
        try state.withLock { state throws(Errno) in
            guard request.flags == 0, let range = PageRange(start: request.address, size: request.size) else {
                throw .invalidArgument
            }
            if let left = state.attributesUntilRefusal {
                state.attributesUntilRefusal = left == 0 ? nil : left - 1
                if left == 0 { throw state.attributesErrno }
            }
            let target: PageState = request.attributes == 0 ? .shared : .private
            state.calls.append(.attributes(range.start / pageSize, range.pageCount, target))
            state.attributes.set(range, to: target)
        }
    }

    /// The calls since the last time.
    func takeCalls() -> [String] {
        state.withLock { state in
            defer { state.calls = [] }
            return state.calls.map(\.description)
        }
    }

    // MARK: guest accesses

    enum Access: Equatable {
        case word(UInt64)
        /// No slot.
        case mmio
        case fault(PageState)
    }

    /// Reads the word at a guest-physical address, or writes it, as a vCPU would.
    func guest(_ gpa: UInt64, write: UInt64? = nil) -> Access {
        let (region, kind) = state.withLock { state in
            (
                state.slots.values.first {
                    $0.guest_phys_addr <= gpa && gpa < $0.guest_phys_addr + $0.memory_size
                }, state.attributes.value(at: gpa) ?? .shared
            )
        }
        guard let region else { return kind == .private ? .fault(.private) : .mmio }
        let offset = gpa - region.guest_phys_addr
        if kind == .shared || region.flags & CKVM_MEM_GUEST_MEMFD == 0 {
            return Self.word(region.userspace_addr + offset, write: write)
        }
        let file = state.withLock { $0.files[Int32(bitPattern: region.guest_memfd)]?.file }
        guard let file else { return .fault(.private) }
        return Self.word(file.view.address + region.guest_memfd_offset + offset, write: write)
    }

    /// KVM's own write on behalf of a guest: to `userspace_addr`, whatever the page's state.
    func emulate(_ gpa: UInt64, write: UInt64) {
        let region = state.withLock { state in
            state.slots.values.first {
                $0.guest_phys_addr <= gpa && gpa < $0.guest_phys_addr + $0.memory_size
            }
        }
        if let region { _ = Self.word(region.userspace_addr + gpa - region.guest_phys_addr, write: write) }
    }

    private static func word(_ address: UInt64, write: UInt64?) -> Access {
        var word = write ?? 0
        let done = unsafe withUnsafeMutableBytes(of: &word) { bytes in
            guard let base = bytes.baseAddress else { return 0 }
            return write == nil
                ? unsafe ckvm_copy_from(base, address, 8) : unsafe ckvm_copy_to(address, base, 8)
        }
        return done == 8 ? .word(word) : .fault(.shared)
    }
}

/// The private memory of a file: a memfd that only the test's guest accesses.
final class ScriptedGuestMemfd: KVMGuestMemfd {
    private let memfd: Memfd
    let view: any HostMapping
    private let vm: ScriptedPerVM

    init(size: UInt64, of vm: ScriptedPerVM) throws(Errno) {
        memfd = try Memfd(size: size)
        view = try memfd.map(offset: 0, length: size)
        self.vm = vm
    }

    var descriptor: Int32 { memfd.descriptor }
    var size: UInt64 { memfd.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        throw .inappropriateIOCTLForDevice
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        throw .operationNotSupportedByDevice
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try memfd.allocate(punchHole: punchHole, offset: offset, length: length)
        guard punchHole else { return }
        vm.state.withLock { $0.calls.append(.hole(offset / pageSize, length / pageSize)) }
    }
}
