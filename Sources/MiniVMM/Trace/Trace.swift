// SPDX-License-Identifier: MIT
/// Where a machine's events go. A machine without one records nothing and pays one test of a pointer.
///
/// Events of several vCPUs come from several threads; each sink guards itself.
public final class Trace: Sendable {
    private let kernel: any KVMInterface
    private let sinks: [any TraceSink]
    /// ``KVMInterface/now()`` when the trace began.
    public let start: UInt64

    /// Begins all sinks with the kernel's identity and the time of its clock.
    public init(kernel: any KVMInterface, sinks: [any TraceSink]) {
        self.kernel = kernel
        self.sinks = sinks
        start = kernel.now()
        for sink in sinks { sink.begin(kernel: kernel.identity, time: start) }
    }

    /// Stamps an event with the kernel's clock and hands it on.
    public func record(_ event: TraceEvent, by actor: Actor) {
        let time = kernel.now()
        for sink in sinks { sink.write(event, by: actor, time: time) }
    }

    /// Writes out what is buffered.
    public func flush() {
        for sink in sinks { sink.flush() }
    }
}

/// A format of the trace.
public protocol TraceSink: AnyObject, Sendable {
    /// Called once, before the first event.
    ///
    /// - Parameter time: nanoseconds of ``KVMInterface/now()``.
    func begin(kernel: KernelIdentity, time: UInt64)
    /// Called for each event, from any thread and possibly from several at once. `time` as in
    /// ``begin(kernel:time:)``, but two calls may come in another order than their times.
    func write(_ event: TraceEvent, by actor: Actor, time: UInt64)
    /// Everything written so far is to reach its destination. May be called several times.
    func flush()
}
