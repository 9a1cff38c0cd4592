// SPDX-License-Identifier: MIT
/// The destination of a machine's events. A machine without a trace records nothing; the check costs one pointer test.
///
/// Events of several vCPUs come from several threads; each sink does its own locking.
public final class Trace: Sendable {
    private let backend: any Backend
    private let sinks: [any TraceSink]
    /// ``Backend/now()`` when the trace began.
    public let start: UInt64

    /// Begins all sinks with the backend's identity and the time on its clock.
    ///
    /// - Parameter type: the VM's type. The identity says that an SNP or TDX VM is a model.
    public init(backend: any Backend, sinks: [any TraceSink], vm type: VMType = .softwareProtected) {
        self.backend = backend
        self.sinks = sinks
        start = backend.now()
        for sink in sinks { sink.begin(backend: backend.identity.running(type), time: start) }
    }

    /// Stamps an event with the backend's clock and passes it on.
    public func record(_ event: TraceEvent, by actor: Actor) {
        let time = backend.now()
        for sink in sinks { sink.write(event, by: actor, time: time) }
    }

    /// Writes out all buffered output.
    public func flush() {
        for sink in sinks { sink.flush() }
    }
}

/// An output format of the trace.
public protocol TraceSink: AnyObject, Sendable {
    /// Called once, before the first event.
    ///
    /// - Parameter time: nanoseconds of ``Backend/now()``.
    func begin(backend: BackendIdentity, time: UInt64)
    /// Called for each event, from any thread and possibly from several at once. `time` is as in
    /// ``begin(backend:time:)``, but two calls may arrive in another order than their times.
    func write(_ event: TraceEvent, by actor: Actor, time: UInt64)
    /// Everything written so far must reach its destination. May be called several times.
    func flush()
}
