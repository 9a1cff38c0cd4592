// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// A machine between two tests: nothing of the last one is left on it.
struct TestMachine: Sendable {
    /// Machines of one kind can stand in for each other; only their memory may have to be made anew.
    struct Kind: Hashable, Sendable {
        let vm: VMName
        let hasTwoAliases: Bool
        /// It has the guest that does the steps of vCPUs. That guest takes a memslot, so a test without vCPUs gets a
        /// machine without it.
        let hasGuest: Bool

        init(_ test: LitmusTest) {
            vm = VMName(test.vm)
            hasTwoAliases = test.hasTwoAliases
            hasGuest = test.steps.contains { if case .vcpu = $0.actor { true } else { false } }
        }
    }

    /// The files that a test begins with, their views and their memslots.
    struct Files: Sendable {
        let memories: [Memory]
        let files: [Name: any KVMGuestMemfd]
        let views: [Name: World.View]
        let slots: [World.SlotKey: World.Slot]
    }

    let vm: any KVMVirtualMachine
    /// Nil where no vCPU has acted.
    let agent: Agent?
    /// Nil where they have to be made anew.
    let files: Files?
    /// The test that has used it last.
    var last: Source?

    /// Makes the second-stage tables as empty as those of a new machine, for a test that counts the guest's own pages.
    ///
    /// - Returns: whether they are, as far as the kernel counts.
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

/// The machines that earlier tests have left. It belongs to the thread that runs the tests: a vCPU is best run by the thread
/// that ran it before, since older kernels wait for all others when it changes.
final class MachinePool {
    /// Those used last come last.
    private var machines: [(kind: TestMachine.Kind, machine: TestMachine)] = []
    /// A machine has seven descriptors or so, and the tests need some for themselves.
    private let most = min(24, max(1, sysconf(Int32(_SC_OPEN_MAX)) / 64))
    /// Of one kind.
    private static let mostOfKind = 4

    /// The machine with the test's memory; else, where there is no room for another machine of the kind, the one that was
    /// not used for longest, whose memory has to be made anew.
    ///
    /// - Parameter memories: of the test; nil if it makes its memory itself in any case.
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
    /// Whether it closes a file that it begins with and uses it afterwards, or unmaps such a view. It needs files and views
    /// that are made for that, and leaves none for the next test.
    var endsItsFiles: Bool {
        let late = LateUses(self)
        let ending = Set(steps.compactMap(\.action.endedView))
        return memory.contains { memory in
            late.files.contains(memory.name) || late.views.contains(memory.name)
                || ending.contains(memory.name)
        }
    }

    /// Whether a count of pages has those of the guest that acts, which are in the tables of a used machine already: a vCPU
    /// that has made no access brings them with its first hypercall, and on a default VM they go with any memslot.
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
