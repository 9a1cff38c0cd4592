// SPDX-License-Identifier: MIT
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
    }
    private let runs = Mutex(Runs())

    func begin(backend: any Backend) -> Trace {
        let recorder = TraceRecorder()
        runs.withLock { $0.current = recorder }
        return Trace(backend: backend, sinks: [recorder])
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
        guard let kept = runs.withLock({ $0.kept }) else { return [] }
        try pictures.draw(kept.recorded(), title: title)
        return pictures.files
    }
}
