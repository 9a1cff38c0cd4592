// SPDX-License-Identifier: MIT
/// Sees each exit before the monitor handles it, and may change the machine meanwhile.
///
/// Chosen when a machine is created: without one, an exit costs one test of a pointer.
public protocol ExitObserver: AnyObject, Sendable {
    /// The vCPU has exited. Called on its thread, which waits. Time slices and kicks are not reported.
    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine)
    /// The vCPU is about to be entered: for the first time, or after a time slice, a kick or `KVM_EXIT_DEBUG`. Called on
    /// its thread, which waits.
    ///
    /// - Returns: false to leave the vCPU out this time.
    func mayEnter(_ vcpu: any KVMVCPU, _ machine: Machine) -> Bool
    /// The monitor has set RIP to the instruction after a call, because KVM could not. Called on the vCPU's thread, before the
    /// vCPU is entered again.
    func steppedOver(_ vcpu: any KVMVCPU, _ machine: Machine)
    /// The vCPU has ended the machine in this way. Called on its thread, before the others know; the machine waits.
    ///
    /// - Returns: false to enter the vCPU again, because the observer itself is the cause.
    func ends(_ outcome: Outcome, _ vcpu: any KVMVCPU, _ machine: Machine) -> Bool
    /// The thread of these vCPUs has ended: they have all halted, or the machine is stopping.
    func threadEnded(_ vcpus: [any KVMVCPU], _ machine: Machine)
    /// The machine is stopping. Called by the thread that stops it, before it kicks the vCPUs.
    func stopping()
}

extension ExitObserver {
    /// Enters every vCPU.
    public func mayEnter(_ vcpu: any KVMVCPU, _ machine: Machine) -> Bool { true }
    /// Does nothing.
    public func steppedOver(_ vcpu: any KVMVCPU, _ machine: Machine) {}
    /// The machine ends.
    public func ends(_ outcome: Outcome, _ vcpu: any KVMVCPU, _ machine: Machine) -> Bool { true }
    /// Does nothing.
    public func threadEnded(_ vcpus: [any KVMVCPU], _ machine: Machine) {}
    /// Does nothing.
    public func stopping() {}
}

extension Exit {
    /// A time slice, a kick or a signal.
    var isInterruption: Bool { if case .interrupted = self { true } else { false } }
}
