// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// A backend, and what has been found out about it.
final class BackendFacts: Sendable {
    let backend: any Backend
    /// How vCPUs request a conversion; determined at the first use. Guarded by its lock.
    private let hypercall = Mutex<HypercallMethod?>(nil)
    /// Guarded by its lock.
    private let cpuid = Mutex<CPUIDTable?>(nil)
    /// The needs that tests have asked about, with why they are not met. Guarded by its lock.
    private let needs = Mutex<[QuestionedNeed: String?]>([:])
    /// Guarded by its lock.
    private let inPlaceOff = Mutex<Bool?>(nil)
    /// The same backend with two aliases above it, created when the first test needs it. Guarded by its lock.
    private let aliases = Mutex<BackendFacts?>(nil)

    init(_ backend: any Backend) { self.backend = backend }

    /// The backend as SoftKVM, whose interleavings can be explored.
    var soft: SoftKVM? { backend as? SoftKVM }
    /// Where the contents of converted pages are decided; nil for the place of the interface's version.
    var design: ContentDesign? { soft?.configuration.contentDesign }
    /// Whether faults are planted.
    var isFaulty: Bool { soft?.configuration.plantedFaults.isEmpty == false }
    /// The same backend without planted faults. `needs` is checked on it, so that a fault cannot make the tests that
    /// catch it skip.
    var sound: BackendFacts {
        guard isFaulty, var configuration = soft?.configuration else { return self }
        configuration.plantedFaults = []
        return BackendFacts(SoftKVM(configuration))
    }
    /// Whether it is a real kernel that converts in place itself, with or without aliases above it.
    var isLinux: Bool { backend.identity.kind == .linux }
    /// Whether the in-place interface is emulated above the kernel.
    var isAdapter: Bool { backend.identity.kind == .adapter }

    /// Cached: the call takes 100 µs under nested virtualization.
    func supportedCPUID() throws(Errno) -> CPUIDTable {
        try cpuid.withLock { known throws(Errno) in
            if let known { return known }
            let table = try backend.supportedCPUID()
            known = table
            return table
        }
    }

    /// This backend with two aliases, made from memslots because its VMs have no shared bit. Conversions are still the
    /// kernel's own.
    var withAliases: BackendFacts {
        aliases.withLock { known in
            let facts = known ?? BackendFacts(AliasesKVM(over: backend))
            known = facts
            return facts
        }
    }

    private struct QuestionedNeed: Hashable {
        let need: Need
        let type: VMType
    }

    /// Why a need of a test is not met on VMs of this type; nil if it is met. Checked once, because a scratch VM takes the
    /// kernel a grace period to close: 16 ms, the time of a dozen tests.
    func absence(of need: Need, on type: VMType) throws(Stop) -> String? {
        try needs.withLock { known throws(Stop) in
            let question = QuestionedNeed(need: need, type: type)
            if let answer = known[question] { return answer }
            let answer = try Needs(sound.backend, type).absence(of: need)
            known[question] = .some(answer)
            return answer
        }
    }

    /// Whether the kernel does not convert in place itself (`ENOTTY`). Checked once, as ``absence(of:on:)`` is.
    func isInPlaceOff() throws(Stop) -> Bool {
        guard !isAdapter else { return false }
        return try inPlaceOff.withLock { known throws(Stop) in
            if let known { return known }
            let isOff = try lacksConversion()
            known = isOff
            return isOff
        }
    }

    private func lacksConversion() throws(Stop) -> Bool {
        do throws(Errno) {
            let vm = try backend.createVM(.default, sharedBit: nil)
            let file = try vm.createGuestMemfd(size: pageSize, flags: [])
            var request = ckvm_memory_attributes2()
            try file.setMemoryAttributes2(&request)
        } catch {
            if error.isHostLimit { throw .host(HostFailure("a scratch VM", error)) }
            return error == .inappropriateIOCTLForDevice
        }
        return false
    }

    var hypercallMethod: HypercallMethod {
        hypercall.withLock { known in
            if let known { return known }
            // SoftKVM's CPU has VMMCALL. On other kernels the instruction is tried with a time limit, because on some
            // it never returns.
            let hasVMMCALL = (try? backend.supportedCPUID())?.hasVMMCALL ?? true
            let isThere =
                soft != nil
                || isLinux && BackendProbe(backend).hypercallInstruction().verdict == .yes
            let method: HypercallMethod = isThere ? hasVMMCALL ? .vmmcall : .vmcall : .port
            known = method
            return method
        }
    }

    /// Forks a child with these views.
    func fork(_ views: [Name: any HostMapping]) throws(Stop) -> any Child {
        if soft != nil {
            do throws(Errno) {
                return try ModelChild(views)
            } catch {
                throw .broken("a child could not be forked (\(error.name))", "mmap", error)
            }
        }
        // On a default VM the mappings are the kernel's own.
        guard !isAdapter || views.values.allSatisfy({ $0 is LinuxHostMapping }) else {
            throw .skip(
                "\(backend.identity.name) protects private pages only in its own process")
        }
        do throws(Errno) {
            return try ForkedChild(views)
        } catch {
            if error == .resourceTemporarilyUnavailable { throw .host(HostFailure("fork", error)) }
            throw .broken("a child could not be forked (\(error.name))", "fork", error)
        }
    }
}

/// How a vCPU requests a conversion.
enum HypercallMethod: Sendable {
    case vmmcall
    case vmcall
    /// Port 0xe8, with the same registers.
    case port
}

/// The time limit of a test, and the vCPUs to kick when it has passed.
final class TestDeadline: Sendable {
    private struct State {
        var vcpus: [any KVMVCPU] = []
        var isOver = false
        /// Why no further run begins.
        var stop: Cut.Reason?
        /// The steps in progress, at most one for each actor.
        var steps: [Step] = []
    }
    private let state = Mutex(State())

    var isOver: Bool { state.withLock { $0.isOver } }

    /// Why the test ends after the current run or piece; nil if it continues.
    var stop: Cut.Reason? { state.withLock { $0.stop } }
    func stop(_ reason: Cut.Reason) { state.withLock { $0.stop = $0.stop ?? reason } }

    func add(_ vcpu: any KVMVCPU) { state.withLock { $0.vcpus.append(vcpu) } }
    func remove(_ vcpu: any KVMVCPU) { state.withLock { $0.vcpus.removeAll { $0 === vcpu } } }

    func begin(_ step: Step) { state.withLock { $0.steps.append(step) } }
    func end(_ step: Step) {
        state.withLock { state in
            guard let place = state.steps.firstIndex(where: { $0.actor == step.actor }) else { return }
            state.steps.remove(at: place)
        }
    }

    /// The steps in progress, as written.
    var steps: [String] {
        state.withLock { $0.steps.map(\.text).sorted() }
    }

    /// Kicks every vCPU. A vCPU that is about to enter the guest is kicked as well.
    func end() {
        let vcpus = state.withLock { state in
            state.isOver = true
            return state.vcpus
        }
        for vcpu in vcpus { vcpu.kick() }
    }
}
