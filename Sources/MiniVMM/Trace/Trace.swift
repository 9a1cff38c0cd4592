// SPDX-License-Identifier: MIT
/// Where a machine's events go. A machine without one records nothing and pays one test of a pointer.
///
/// Events of several vCPUs come from several threads; each sink guards itself.
public final class Trace: Sendable {
    private let backend: any Backend
    private let sinks: [any TraceSink]
    /// ``Backend/now()`` when the trace began.
    public let start: UInt64

    /// Begins all sinks with the kernel's identity and the time of its clock.
    public init(backend: any Backend, sinks: [any TraceSink]) {
        self.backend = backend
        self.sinks = sinks
        start = backend.now()
        for sink in sinks { sink.begin(backend: backend.identity, time: start) }
    }

    /// Stamps an event with the kernel's clock and hands it on.
    public func record(_ event: TraceEvent, by actor: Actor) {
        let time = backend.now()
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
    /// - Parameter time: nanoseconds of ``Backend/now()``.
    func begin(backend: BackendIdentity, time: UInt64)
    /// Called for each event, from any thread and possibly from several at once. `time` as in
    /// ``begin(kernel:time:)``, but two calls may come in another order than their times.
    func write(_ event: TraceEvent, by actor: Actor, time: UInt64)
    /// Everything written so far is to reach its destination. May be called several times.
    func flush()
}
