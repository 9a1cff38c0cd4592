// SPDX-License-Identifier: MIT
import CKVMShim

/// The thread of one vCPU, or of all of them if the backend runs them in turns.
struct VCPUThread {
    let machine: Machine
    let vcpus: [any KVMVCPU]

    /// Runs until the machine stops or every one of its vCPUs has halted.
    func run() {
        var loops = vcpus.map { RunLoop(machine: machine, vcpu: $0) }
        var live = Array(loops.indices)
        while !live.isEmpty, !machine.isStopping {
            var turn = 0
            while turn < live.count, !machine.isStopping {
                if let observer = machine.observer, !observer.mayEnter(vcpus[live[turn]], machine) {
                    turn += 1
                    continue
                }
                switch loops[live[turn]].run() {
                case .yielded: turn += 1
                case .halted: live.remove(at: turn)
                case .stopped: break
                }
            }
        }
        machine.observer?.threadEnded(vcpus, machine)
        for loop in loops { machine.add(loop.statistics) }
    }
}
