// SPDX-License-Identifier: MIT
/// Somebody who looks at each exit before anything is done about it, and may change the machine meanwhile.
///
/// Decided when a machine is made: without one an exit costs one test of a pointer.
public protocol ExitObserver: AnyObject, Sendable {
    /// The vCPU has left. Called on its thread, which waits; time slices and kicks are no exits.
    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine)
}

extension Exit {
    /// A time slice, a kick or a signal.
    var isInterruption: Bool { if case .interrupted = self { true } else { false } }
}
