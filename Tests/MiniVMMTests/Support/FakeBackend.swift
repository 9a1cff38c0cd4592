// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

@testable import MiniVMM

/// A backend that is fully controlled by a test: the answers of each conversion, the exits of each
/// vCPU, and a clock that only ``sleep(for:)`` advances.
final class FakeBackend: Backend {
    let identity = BackendIdentity(name: "FakeBackend", host: "a \"test\"", kind: .simulated)
    let runsVCPUsInTurns: Bool
    let vm: FakeVM
    private let cpuid: CPUIDTable
    private let clock = Mutex<UInt64>(1_000)
    private let sleeps = Mutex<[UInt64]>([])
    /// Called on each sleep, before time advances.
    let onSleep = Mutex<(@Sendable () -> Void)?>(nil)

    init(
        promise: ContentPromise = .preserved, addressBits: UInt32 = 48, gigabytePages: Bool = true,
        inTurns: Bool = true
    ) {
        vm = FakeVM(promise: promise)
        runsVCPUsInTurns = inTurns
        var width = ckvm_cpuid_entry2()
        width.function = 0x8000_0008
        width.eax = addressBits
        var features = ckvm_cpuid_entry2()
        features.function = 0x8000_0001
        features.edx = gigabytePages ? 1 << 26 : 0
        cpuid = CPUIDTable(entries: [width, features])
    }

    /// The duration of every sleep so far, in nanoseconds.
    var slept: [UInt64] { sleeps.withLock { $0 } }
    func advance(_ nanoseconds: UInt64) { clock.withLock { $0 += nanoseconds } }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func supportedCPUID() throws(Errno) -> CPUIDTable { cpuid }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine { vm }
    func now() -> UInt64 { clock.withLock { $0 } }
    func sleep(for duration: Duration) {
        let nanoseconds = duration.wholeNanoseconds
        sleeps.withLock { $0.append(nanoseconds) }
        onSleep.withLock { $0 }?()
        advance(nanoseconds)
    }
}

final class FakeVM: KVMVirtualMachine {
    let contentPromise: ContentPromise
    private let state = Mutex(State())

    private struct State {
        var files: [FakeFile] = []
        var slots: [ckvm_userspace_memory_region2] = []
        var capabilities: [UInt32: UInt64] = [:]
        var vcpus: [FakeVCPU] = []
    }

    init(promise: ContentPromise) { contentPromise = promise }

    var files: [FakeFile] { state.withLock { $0.files } }
    var slots: [ckvm_userspace_memory_region2] { state.withLock { $0.slots } }
    var capabilities: [UInt32: UInt64] { state.withLock { $0.capabilities } }
    var vcpus: [FakeVCPU] { state.withLock { $0.vcpus } }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        state.withLock { $0.capabilities[capability.rawValue] = argument }
    }
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        state.withLock { state in
            let file = FakeFile(
                size: size, initial: flags.contains(.initShared) ? .shared : .private,
                descriptor: Int32(100 + state.files.count))
            state.files.append(file)
            return file
        }
    }
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        state.withLock { $0.slots.append(region) }
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        state.withLock { state in
            let vcpu = FakeVCPU(id: id)
            state.vcpus.append(vcpu)
            return vcpu
        }
    }
}
