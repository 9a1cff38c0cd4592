// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import Report
import Synchronization

/// Keeps one run of a test: the first notable one, else the last.
final class LitmusRecorder: RunRecorder {
    private struct Runs {
        var current: TraceRecorder?
        var kept: TraceRecorder?
        var isNotable = false
    }
    private let runs = Mutex(Runs())

    func begin(backend: any Backend) -> Trace {
        let recorder = TraceRecorder()
        runs.withLock { $0.current = recorder }
        return Trace(backend: backend, sinks: [recorder])
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
        try pictures.draw(kept.recorded(), title: title)
        return pictures.files
    }
}
