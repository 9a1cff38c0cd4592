// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization
import SystemPackage

/// What could not be written, wherever it was printed. The command ends with status 125 then, and says so.
enum OutputFailures {
    private static let first = Mutex<(what: String, errno: Errno)?>(nil)

    /// - Parameter what: what could not be written: `standard output`.
    static func note(_ what: String, _ errno: Errno) {
        // A reader that went away ends the command by SIGPIPE; where that is ignored, nobody wants to know.
        guard errno != .brokenPipe else { return }
        first.withLock { $0 = $0 ?? (what, errno) }
    }

    /// One sentence, or nil where everything was written.
    static var message: String? {
        first.withLock { failure in
            failure.map { "\($0.what) cannot be written: \($0.errno) (\($0.errno.name)); it is incomplete" }
        }
    }
}
