import MiniVMM

/// A machine between two tests: nothing of the last one is left on it.
struct TestMachine: Sendable {
    /// Machines of one kind can stand in for each other; only their memory may have to be made anew.
    struct Kind: Hashable, Sendable {
        let vm: VMName
        let hasTwoDoors: Bool
        /// It has the guest that does the steps of vCPUs. That guest takes a memslot, so a test without vCPUs gets a
        /// machine without it.
        let hasGuest: Bool

        init(_ test: LitmusTest) {
            vm = VMName(test.vm)
            hasTwoDoors = test.hasTwoDoors
            hasGuest = test.steps.contains { if case .vcpu = $0.role { true } else { false } }
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
}

/// The machines that earlier tests have left, one of each kind. It belongs to the thread that runs the tests: a vCPU is best
/// run by the thread that ran it before, since older kernels wait for all others when it changes.
final class MachinePool {
    private var machines: [TestMachine.Kind: TestMachine] = [:]

    func take(_ kind: TestMachine.Kind) -> TestMachine? { machines.removeValue(forKey: kind) }

    func put(_ machine: TestMachine, _ kind: TestMachine.Kind) { machines[kind] = machine }
}

extension LitmusTest {
    /// Whether it can begin on a machine that another test has left. One that closes or unmaps what every machine has, and
    /// uses it afterwards, needs files and views that are made for that.
    var canShareMachine: Bool {
        let late = LateUses(self)
        let ending = Set(steps.compactMap(\.action.endedView))
        return !memory.contains { memory in
            late.files.contains(memory.name) || late.views.contains(memory.name)
                || ending.contains(memory.name)
        }
    }
}
