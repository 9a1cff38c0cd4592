import Litmus
import MiniVMM
import Report
import Synchronization

/// Keeps one run of a test: the first that tells something, else the last.
final class LitmusRecorder: RunRecorder {
    private struct Runs {
        var current: TraceRecorder?
        var kept: TraceRecorder?
        var isTelling = false
        var failure: (any Error)?
    }
    private let runs = Mutex(Runs())

    func begin(kernel: any KVMInterface) -> Trace {
        let sinks: [any TraceSink] = runs.withLock { runs in
            do {
                let recorder = try TraceRecorder()
                runs.current = recorder
                return [recorder.sink]
            } catch {
                runs.failure = runs.failure ?? error
                return []
            }
        }
        return Trace(kernel: kernel, sinks: sinks)
    }

    func end(isTelling: Bool) {
        runs.withLock { runs in
            if !runs.isTelling {
                runs.kept = runs.current ?? runs.kept
                runs.isTelling = isTelling
            }
            runs.current = nil
        }
    }

    /// Draws the run that was kept; nothing if there was none, as of a test that is skipped.
    ///
    /// - Returns: the files.
    func draw(_ pictures: PictureOptions, title: String) throws -> [String] {
        let (kept, failure) = runs.withLock { ($0.kept, $0.failure) }
        if let failure { throw failure }
        guard let kept else { return [] }
        try pictures.draw(try kept.recorded(), title: title)
        return pictures.files
    }
}
