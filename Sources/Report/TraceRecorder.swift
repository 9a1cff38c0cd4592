// SPDX-License-Identifier: MIT
public import MiniVMM
import Synchronization

/// Keeps what happens in memory, for pictures of it right afterwards.
///
/// Its lock guards it; events of several vCPUs come from several threads. Its memory is bounded: of a long trace the
/// first and the last events are kept, as ``TraceReader`` does with a file.
public final class TraceRecorder: TraceSink {
    private let builder: Mutex<TraceBuilder>

    public init(mostEvents: Int = TraceReader.defaultEvents) {
        builder = Mutex(TraceBuilder(mostEvents: mostEvents))
    }

    public func begin(kernel: KernelIdentity, time: UInt64) {
        builder.withLock { $0.begin(kernel: kernel, time: time) }
    }

    public func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        builder.withLock { $0.add(event, by: actor, time: time) }
    }

    public func flush() {}

    /// What was recorded so far.
    public func recorded() -> RecordedTrace { builder.withLock { $0 }.finished() }
}
