// SPDX-License-Identifier: MIT
/// Sees each exit before the monitor handles it, and may change the machine meanwhile.
///
/// Chosen when a machine is created: without one, an exit costs one test of a pointer.
public protocol ExitObserver: AnyObject, Sendable {
    /// The vCPU has exited. Called on its thread, which waits. Time slices and kicks are not reported.
    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine)
}

extension Exit {
    /// A time slice, a kick or a signal.
    var isInterruption: Bool { if case .interrupted = self { true } else { false } }
}
