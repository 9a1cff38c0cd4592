// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

@testable import MiniVMM

/// A scripted backend without memory attributes: it keeps a table of memslots, checks it as
/// Linux does, can refuse a call on request, and its vCPUs return the exits of a script.
final class ScriptedKVM: Backend {
    let identity = BackendIdentity(name: "ScriptedKVM", host: "a test", kind: .simulated)
    let runsVCPUsInTurns = true
    let vm = ScriptedVM()
    let hasProtectableMappings: Bool

    init(protectableMappings: Bool = true) {
        hasProtectableMappings = protectableMappings
        vm.hasProtectableMappings.store(protectableMappings, ordering: .relaxed)
    }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func supportedCPUID() throws(Errno) -> CPUIDTable {
        var entry = ckvm_cpuid_entry2()
        entry.function = 0x8000_0008
        entry.eax = 48
        return CPUIDTable(entries: [entry])
    }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine { vm }
    func now() -> UInt64 { 0 }
    func sleep(for duration: Duration) {}
}

final class ScriptedVM: KVMVirtualMachine {
    struct Slots {
        var byID: [UInt32: ckvm_userspace_memory_region2] = [:]
        /// Number of calls until one is refused with `ENOMEM`; nil refuses none.
        var callsUntilRefusal: Int?
        var calls = 0
    }
    let slots = Mutex(Slots())
    let hasProtectableMappings = Atomic<Bool>(true)
    let vcpu = ScriptedVCPU()

    var contentPromise: ContentPromise { .undefined }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        switch capability {
        case .memslots: 64
        case .userMemory2: 1
        default: 0
        }
    }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) { throw .invalidArgument }
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        let memfd = try Memfd(size: size)
        return hasProtectableMappings.load(ordering: .relaxed) ? memfd : OpaqueFile(memfd)
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { vcpu }

    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try slots.withLock { slots throws(Errno) in
            slots.calls += 1
            if let left = slots.callsUntilRefusal {
                slots.callsUntilRefusal = left == 0 ? nil : left - 1
                if left == 0 { throw .noMemory }
            }
            if region.memory_size == 0 {
                guard slots.byID.removeValue(forKey: region.slot) != nil else { throw .invalidArgument }
                return
            }
            guard slots.byID[region.slot] == nil, region.slot < 64 else { throw .invalidArgument }
            let overlaps = slots.byID.values.contains {
                region.guest_phys_addr < $0.guest_phys_addr + $0.memory_size
                    && $0.guest_phys_addr < region.guest_phys_addr + region.memory_size
            }
            guard !overlaps else { throw .fileExists }
            slots.byID[region.slot] = region
        }
    }

    /// The memslots by address, in a comparable form: [address, size, file offset].
    var table: [[UInt64]] {
        slots.withLock { slots in
            slots.byID.values.map { [$0.guest_phys_addr, $0.memory_size, $0.guest_memfd_offset] }
                .sorted { $0[0] < $1[0] }
        }
    }
}

/// Its mappings pretend not to be memory of this process.
private final class OpaqueFile: KVMGuestMemfd {
    private let memfd: Memfd
    init(_ memfd: Memfd) { self.memfd = memfd }
    var descriptor: Int32 { memfd.descriptor }
    var size: UInt64 { memfd.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        try memfd.setMemoryAttributes2(&request)
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        OpaqueMapping(try memfd.map(offset: offset, length: length))
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try memfd.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}

private final class OpaqueMapping: HostMapping {
    private let mapping: any HostMapping
    init(_ mapping: any HostMapping) { self.mapping = mapping }
    /// Not an address of this process.
    var address: UInt64 { 1 << 60 }
    var length: UInt64 { mapping.length }
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        unsafe try mapping.read(at: offset, into: buffer)
    }
    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        unsafe try mapping.write(at: offset, from: buffer)
    }
    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) { throw .invalidArgument }

    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try mapping.hold(at: offset, length: length)
    }
}

/// A vCPU whose every entry is the next step of a script, which may end with an errno. A step that sets no exit,
/// and the end of the script, mean HLT.
final class ScriptedVCPU: KVMVCPU {
    let id = 0
    let runPage: RunPage
    private let memory: OwnedRunPage
    let script = Mutex<[@Sendable (ScriptedVCPU) -> Errno?]>([])

    @safe private struct OwnedRunPage: ~Copyable, @unchecked Sendable {
        let pointer: UnsafeMutablePointer<ckvm_run>
        init() {
            unsafe pointer = .allocate(capacity: 1)
            unsafe pointer.initialize(to: ckvm_run())
        }
        deinit { unsafe pointer.deallocate() }
    }

    init() {
        memory = OwnedRunPage()
        runPage = unsafe RunPage(memory.pointer, length: MemoryLayout<ckvm_run>.size)
    }

    func run() throws(Errno) {
        let step = script.withLock { $0.isEmpty ? nil : $0.removeFirst() }
        runPage.exitReason = CKVM_EXIT_HLT
        if let step, let errno = step(self) { throw errno }
    }

    /// The next entry exits with this access.
    func access(_ address: UInt64, length: UInt32, write: [UInt8]? = nil) {
        script.withLock {
            $0.append { vcpu in
                var access = ckvm_run_mmio()
                access.phys_addr = address
                access.len = length
                access.is_write = write == nil ? 0 : 1
                for (index, byte) in (write ?? []).enumerated() {
                    withUnsafeMutableBytes(of: &access.data) { unsafe $0[index] = byte }
                }
                vcpu.runPage.mmio = access
                vcpu.runPage.exitReason = CKVM_EXIT_MMIO
                return nil
            }
        }
    }

    func kick() { runPage.setImmediateExit() }
    func registers() throws(Errno) -> ckvm_regs { ckvm_regs() }
    func setRegisters(_ registers: ckvm_regs) throws(Errno) {}
    func specialRegisters() throws(Errno) -> ckvm_sregs { ckvm_sregs() }
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {}
    func setCPUID(_ table: CPUIDTable) throws(Errno) {}
}
