// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// A kernel, and what is known of it before a test runs.
final class BackendFacts: Sendable {
    let backend: any Backend
    /// How vCPUs ask for a conversion; found out when the first one does. Guarded by its lock.
    private let hypercall = Mutex<HypercallMethod?>(nil)
    /// Guarded by its lock.
    private let cpuid = Mutex<CPUIDTable?>(nil)
    /// The same kernel with two aliases above it, made when the first test needs it. Guarded by its lock.
    private let aliases = Mutex<BackendFacts?>(nil)

    init(_ backend: any Backend) { self.backend = backend }

    /// The kernel is the model itself.
    var soft: SoftKVM? { backend as? SoftKVM }
    /// Where it is decided what becomes of contents, if not as in a version of the interface.
    var design: ContentDesign? { soft?.configuration.contentDesign }
    /// Rules are broken on purpose.
    var isFaulty: Bool { soft?.configuration.plantedFaults.isEmpty == false }
    /// The same kernel with no rule broken: it has what a fault must not hide from the tests that look for it.
    var sound: BackendFacts {
        guard isFaulty, var configuration = soft?.configuration else { return self }
        configuration.plantedFaults = []
        return BackendFacts(SoftKVM(configuration))
    }
    /// A real kernel that converts by itself, with two aliases above it or without.
    var isLinux: Bool { backend.identity.kind == .linux }
    /// The in-place interface is answered by something above the kernel.
    var isAdapter: Bool { backend.identity.kind == .adapter }

    /// As the kernel said it first: it takes a hundred microseconds where CPUID leaves a virtual machine.
    func supportedCPUID() throws(Errno) -> CPUIDTable {
        try cpuid.withLock { known throws(Errno) in
            if let known { return known }
            let table = try backend.supportedCPUID()
            known = table
            return table
        }
    }

    /// A kernel whose memslots make two aliases over this one, whose VMs have no shared bit. This one still converts.
    var withAliases: BackendFacts {
        aliases.withLock { known in
            let facts = known ?? BackendFacts(AliasesKVM(over: backend))
            known = facts
            return facts
        }
    }

    /// The kernel does not convert in place by itself: `ENOTTY`.
    func isInPlaceOff() throws(Stop) -> Bool {
        guard !isAdapter else { return false }
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
            // VMMCALL is what SoftKVM's CPU has. Where it is not known the instruction is tried, with a time limit: on some
            // kernels it never returns.
            let hasVMMCALL = (try? backend.supportedCPUID())?.hasVMMCALL ?? true
            let isThere =
                soft != nil
                || isLinux && BackendProbe(backend).hypercallInstruction().verdict == .yes
            let method: HypercallMethod = isThere ? hasVMMCALL ? .vmmcall : .vmcall : .port
            known = method
            return method
        }
    }

    /// A child with these views.
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
                "\(backend.identity.name) keeps private pages from the process that it is in, and no other")
        }
        do throws(Errno) {
            return try ForkedChild(views)
        } catch {
            if error == .resourceTemporarilyUnavailable { throw .host(HostFailure("fork", error)) }
            throw .broken("a child could not be forked (\(error.name))", "fork", error)
        }
    }
}

/// By what a vCPU asks.
enum HypercallMethod: Sendable {
    case vmmcall
    case vmcall
    /// Port 0xe8, with the same registers.
    case port
}

/// How long a test may take, and who is stopped when it is over.
final class TestDeadline: Sendable {
    private struct State {
        var vcpus: [any KVMVCPU] = []
        var isOver = false
        /// Why no further run is begun.
        var stop: Cut.Reason?
        /// The steps under way, by actor.
        var steps: [Actor: Step] = [:]
    }
    private let state = Mutex(State())

    var isOver: Bool { state.withLock { $0.isOver } }

    /// Why the test is to end after the run, or the piece, that is under way; nil while it is not.
    var stop: Cut.Reason? { state.withLock { $0.stop } }
    func stop(_ reason: Cut.Reason) { state.withLock { $0.stop = $0.stop ?? reason } }

    func add(_ vcpu: any KVMVCPU) { state.withLock { $0.vcpus.append(vcpu) } }
    func remove(_ vcpu: any KVMVCPU) { state.withLock { $0.vcpus.removeAll { $0 === vcpu } } }

    func begin(_ step: Step) { state.withLock { $0.steps[step.actor] = step } }
    func end(_ step: Step) { state.withLock { $0.steps[step.actor] = nil } }

    /// The steps under way, as they are written.
    var steps: [String] {
        state.withLock { $0.steps.values.map(\.text).sorted() }
    }

    /// Kicks those inside, again and again if need be: who is about to enter is kicked as well.
    func end() {
        let vcpus = state.withLock { state in
            state.isOver = true
            return state.vcpus
        }
        for vcpu in vcpus { vcpu.kick() }
    }
}
