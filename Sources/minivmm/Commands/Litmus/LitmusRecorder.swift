// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import Report
import Synchronization
import SystemPackage

/// Keeps one run of a test: the first notable one, else the last.
final class LitmusRecorder: RunRecorder {
    /// A run, as a trace in memory and as the values that a trace file gets.
    private struct Recorded {
        let recorder: TraceRecorder
        let events: EventLog?
    }
    private struct Runs {
        var current: Recorded?
        var kept: Recorded?
        var isNotable = false
    }
    private let runs = Mutex(Runs())
    private let keepsEvents: Bool

    /// - Parameter keepsEvents: whether ``write(to:title:_:)`` can write the trace. All events of a run are then in memory.
    init(keepsEvents: Bool = false) { self.keepsEvents = keepsEvents }

    func begin(backend: any Backend, vm type: VMType) -> Trace {
        let recorded = Recorded(recorder: TraceRecorder(), events: keepsEvents ? EventLog() : nil)
        runs.withLock { $0.current = recorded }
        return Trace(
            backend: backend, sinks: [recorded.recorder] + [recorded.events].compactMap { $0 }, vm: type)
    }

    func end(isNotable: Bool) {
        runs.withLock { runs in
            if !runs.isNotable {
                runs.kept = runs.current ?? runs.kept
                runs.isNotable = isNotable
            }
            runs.current = nil
        }
    }

    /// Whether a notable run was kept.
    var hasNotable: Bool { runs.withLock { $0.isNotable } }

    /// Draws the run that was kept. A skipped test has none, and nothing is drawn.
    ///
    /// - Returns: the files.
    func draw(_ pictures: PictureOptions, title: String) throws -> [String] {
        guard let kept = runs.withLock({ $0.kept }) else { return [] }
        try pictures.draw(kept.recorder.recorded(), title: title)
        return pictures.files
    }

    /// Writes the run that was kept to `trace.jsonl` of a directory, and draws it or the map of its schedules as
    /// `picture.svg`. Without a run there is no trace.
    ///
    /// - Parameter chart: the map of schedules; nil if the test names none.
    /// - Throws: status 125 and a message on standard error.
    func write(to directory: String, title: String, _ chart: ScheduleChart?) throws {
        let picture = ByteText.join(directory, "picture.svg")
        if let chart { try Picture.write(picture) { ScheduleDrawing(chart).writeSVG(to: &$0) } }
        guard let kept = runs.withLock({ $0.kept }), let events = kept.events else { return }
        let path = ByteText.join(directory, "trace.jsonl")
        do {
            let file = try FileDescriptor.open(
                FilePath(argument: path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
            let failure = try file.closeAfter { events.write(to: file) }
            if let failure { throw failure }
        } catch {
            throw stop(
                "\(path): the trace cannot be written: \(error)", Status.monitorFailed,
                .file("the trace", error))
        }
        guard chart == nil else { return }
        let trace = kept.recorder.recorded()
        try Picture.write(picture) {
            SVGPicture(trace, Timeline(trace), title: ByteText.visible(title)).write(to: &$0)
        }
    }
}

/// Keeps the events of a run for a trace file. Any thread may call it: a lock guards the events.
private final class EventLog: TraceSink {
    private struct Entries {
        var begin: (backend: BackendIdentity, time: UInt64)?
        var events: [(event: TraceEvent, actor: Actor, time: UInt64)] = []
    }
    private let entries = Mutex(Entries())

    func begin(backend: BackendIdentity, time: UInt64) { entries.withLock { $0.begin = (backend, time) } }

    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        entries.withLock { $0.events.append((event, actor, time)) }
    }

    func flush() {}

    /// - Returns: the first error.
    func write(to file: FileDescriptor) -> Errno? {
        let entries = entries.withLock { $0 }
        let trace = JSONLinesTrace(file)
        if let begin = entries.begin { trace.begin(backend: begin.backend, time: begin.time) }
        for entry in entries.events { trace.write(entry.event, by: entry.actor, time: entry.time) }
        trace.flush()
        return trace.failure
    }
}
