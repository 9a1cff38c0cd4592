// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// Finds out by trial whether data breakpoints of `KVM_SET_GUEST_DEBUG` work for a guest in ring 0. They do not where KVM
/// interprets the guest's instructions, and no capability tells.
final class WatchpointProbe: ExitObserver {
    private let hasStopped = Atomic<Bool>(false)

    private init() {}

    /// push %rax; out %al, $0xf4
    private static let code: [UInt8] = [0x50, 0xe6, 0xf4]

    /// Runs a guest of two instructions that writes to a watched address.
    ///
    /// - Parameters:
    ///   - backend: the backend of the guest that is debugged.
    ///   - configuration: that of the guest.
    static func succeeds(on backend: any Backend, like configuration: MachineConfiguration) -> Bool {
        let probe = WatchpointProbe()
        var small = MachineConfiguration()
        small.aliases = configuration.aliases
        small.ramSize = 4 << 20
        guard let image = try? BootImage.flat(code),
            let machine = try? Machine(
                backend: backend, configuration: small, image: image, console: Console(nil), observer: probe)
        else { return false }
        _ = machine.run(timeout: .seconds(60))
        return probe.hasStopped.load(ordering: .acquiring)
    }

    func mayEnter(_ vcpu: any KVMVCPU, _ machine: Machine) -> Bool {
        guard !hasStopped.load(ordering: .relaxed), let registers = try? vcpu.registers() else { return true }
        let place = Breakpoint(kind: .write, address: registers.rsp &- 8, size: 8)
        if let plan = BreakpointPlan([place]) { try? vcpu.setGuestDebug(plan.request(isStep: false)) }
        return true
    }

    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        guard case .debug(let debug) = exit, debug.dr6 & 1 != 0 else { return }
        hasStopped.store(true, ordering: .releasing)
        try? vcpu.setGuestDebug(ckvm_guest_debug())
    }
}
