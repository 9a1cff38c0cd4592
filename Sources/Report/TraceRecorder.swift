// SPDX-License-Identifier: MIT
public import MiniVMM
import Synchronization

/// Keeps a trace in memory, for pictures of it right after the run.
///
/// All methods may be called from any thread: a lock guards the trace. Memory is bounded: of a long trace the
/// first and the last events are kept, as ``TraceReader`` does with a file.
public final class TraceRecorder: TraceSink {
    private let builder: Mutex<TraceBuilder>

    /// - Parameter mostEvents: events to keep, at least 2. Of a longer trace the first half and the last half
    ///   of that number are kept.
    public init(mostEvents: Int = TraceReader.defaultEvents) {
        builder = Mutex(TraceBuilder(mostEvents: mostEvents))
    }

    /// Notes the kernel and the time of the header, in nanoseconds of ``Backend/now()``.
    public func begin(backend: BackendIdentity, time: UInt64) {
        builder.withLock { $0.begin(backend: backend, time: time) }
    }

    /// Adds an event at a time in nanoseconds of ``Backend/now()``. Bytes that a guest prints are joined
    /// into one `console` event a line.
    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        builder.withLock { $0.add(event, by: actor, time: time) }
    }

    /// Does nothing: events stay in memory.
    public func flush() {}

    /// The trace so far, including console lines that have not ended. Recording can continue.
    public func recorded() -> RecordedTrace { builder.withLock { $0 }.finished() }
}
