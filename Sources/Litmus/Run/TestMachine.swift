// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// A machine between two tests, in its initial state.
struct TestMachine: Sendable {
    /// Machines of one kind can replace each other. Only their memory may have to be created again.
    struct Kind: Hashable, Sendable {
        let vm: VMName
        let hasTwoAliases: Bool
        /// Whether it has the guest that performs the steps of vCPUs. That guest occupies a memslot, so a test without
        /// vCPUs gets a machine without it.
        let hasGuest: Bool

        init(_ test: LitmusTest) {
            vm = VMName(test.vm)
            hasTwoAliases = test.hasTwoAliases
            hasGuest = test.steps.contains { if case .vcpu = $0.actor { true } else { false } }
        }
    }

    /// The initial files of a test, with their views and memslots.
    struct Files: Sendable {
        let memories: [Memory]
        let files: ShortMap<Name, any KVMGuestMemfd>
        let views: ShortMap<Name, World.View>
        let slots: ShortMap<SlotKey, World.Slot>
    }

    let vm: any KVMVirtualMachine
    /// Nil if no vCPU has run.
    let agent: Agent?
    /// Nil if they must be created again.
    let files: Files?
    /// The last test that used the machine.
    var last: Source?

    /// Empties the second-stage tables like those of a new machine, for a test that counts the agent's pages.
    ///
    /// - Returns: whether they are empty, as far as the kernel counts.
    func unmapGuest() -> Bool {
        guard let agent, let counter = vm as? any SecondStageCounting else { return true }
        do throws(Errno) {
            try agent.unmapPages()
            return try counter.countPages4K() == 0
        } catch {
            return false
        }
    }
}

/// The machines that earlier tests have left. It belongs to the thread that runs the tests: a vCPU is best run by the
/// thread that ran it before, because older kernels wait for all others when it changes.
final class MachinePool {
    /// In the order of their last use.
    private var machines: [(kind: TestMachine.Kind, machine: TestMachine)] = []
    /// A machine has about seven descriptors, and tests need some of their own.
    private let most = min(24, max(1, sysconf(Int32(_SC_OPEN_MAX)) / 64))
    /// The limit for machines of one kind.
    private static let mostOfKind = 4
    /// The threads of sweeps; nil before the first one.
    private var team: PreemptionTeam?
    private var sweeps: UInt64 = 0

    deinit { team?.end() }

    /// The threads of sweeps, to which the calling thread is bound until ``PreemptionTeam/unbind()``.
    ///
    /// - Throws: if the system cannot create them.
    func preemptionTeam() throws(HostFailure) -> PreemptionTeam {
        if let team {
            team.bind()
            return team
        }
        guard let new = PreemptionTeam() else {
            throw HostFailure("pthread_create", .resourceTemporarilyUnavailable)
        }
        team = new
        return new
    }

    /// A number for each sweep.
    func nextSweep() -> UInt64 {
        sweeps += 1
        return sweeps
    }

    /// The machine with the test's memory. If there is none and no room for another machine of the kind, the least
    /// recently used one, whose memory must be created again.
    ///
    /// - Parameter memories: the initial memories of the test; nil if it always creates its memory itself.
    func take(_ kind: TestMachine.Kind, _ memories: [Memory]?) -> TestMachine? {
        let places = machines.indices.filter { machines[$0].kind == kind }
        let same = memories.flatMap { wanted in
            places.first { machines[$0].machine.files?.memories == wanted }
        }
        let any = places.first { machines[$0].machine.files == nil }
        let isFull = places.count >= Self.mostOfKind || machines.count >= most
        guard let place = same ?? any ?? (isFull || memories == nil ? places.first : nil) else {
            if isFull, !machines.isEmpty { machines.removeFirst() }
            return nil
        }
        return machines.remove(at: place).machine
    }

    func put(_ machine: TestMachine, _ kind: TestMachine.Kind) { machines.append((kind, machine)) }
}

extension LitmusTest {
    /// Whether the test uses an initial file after closing it, or an initial view after unmapping it. It needs its own
    /// files and views then, and leaves none for the next test.
    var endsItsFiles: Bool {
        let late = LateUses(self)
        let ending = Set(steps.compactMap(\.action.endedView))
        return memory.contains { memory in
            late.files.contains(memory.name) || late.views.contains(memory.name)
                || ending.contains(memory.name)
        }
    }

    /// Whether a count of pages includes the agent's pages, which a used machine already has in its tables. A vCPU
    /// without an earlier access maps them at its first hypercall, and on a default VM any memslot removes them.
    var countsPagesOfTheGuest: Bool {
        let counts = steps.contains { $0.action == .zapped }
        let moves = steps.contains { step in
            switch step.action {
            case .hypercall, .preFault: true
            default: false
            }
        }
        return counts && (vm == .default || moves)
    }
}
