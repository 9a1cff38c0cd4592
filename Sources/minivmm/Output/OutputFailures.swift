// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization
import SystemPackage

/// The first output error. The command then ends with status 125 and reports it.
enum OutputFailures {
    private static let first = Mutex<(what: String, errno: Errno)?>(nil)

    /// - Parameter what: the output, such as `standard output`.
    static func note(_ what: String, _ errno: Errno) {
        // A closed pipe normally ends the command by SIGPIPE. If that signal is ignored, the error is not reported.
        guard errno != .brokenPipe else { return }
        first.withLock { $0 = $0 ?? (what, errno) }
    }

    /// One sentence; nil if everything was written.
    static var message: String? {
        first.withLock { failure in
            failure.map { "\($0.what) cannot be written: \($0.errno) (\($0.errno.name)); it is incomplete" }
        }
    }
}
