// SPDX-License-Identifier: MIT
public import MiniVMM
import Synchronization

/// Keeps a trace in memory to make pictures of it after the run.
///
/// All methods may be called from any thread: a lock guards the trace. Memory is bounded: of a long trace, the
/// first and the last events are kept, as by ``TraceReader``.
public final class TraceRecorder: TraceSink {
    private let builder: Mutex<TraceBuilder>

    /// - Parameter mostEvents: number of events to keep, at least 2. Of a longer trace, the first
    ///   `mostEvents / 2` events and about as many of the last ones are kept.
    public init(mostEvents: Int = TraceReader.defaultEvents) {
        builder = Mutex(TraceBuilder(mostEvents: mostEvents))
    }

    /// Stores the backend and the start time, in nanoseconds of ``Backend/now()``.
    public func begin(backend: BackendIdentity, time: UInt64) {
        builder.withLock { $0.begin(backend: backend, time: time) }
    }

    /// Adds an event at a time in nanoseconds of ``Backend/now()``. Bytes that a guest prints are joined
    /// into one `console` event per line.
    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        builder.withLock { $0.add(event, by: actor, time: time) }
    }

    /// Does nothing, because events stay in memory.
    public func flush() {}

    /// The trace so far, including console lines that have not ended. Recording can continue.
    public func recorded() -> RecordedTrace { builder.withLock { $0 }.finished() }
}
