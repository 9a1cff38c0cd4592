// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// A run of lab/boot as a child process, with both of its outputs as one stream of lines.
///
/// It is used by one thread, which must live longer than the child: the child gets SIGTERM when that thread ends.
final class LabBoot {
    /// The next event of the boot.
    enum Event {
        case line(Substring)
        /// Nothing was written for a second.
        case silence
        /// lab/boot has ended: its exit status, or 128 + the signal.
        case ended(status: Int32)
    }

    private let child: pid_t
    private let output: FileDescriptor
    private var lines: [Substring] = []
    private var rest: [UInt8] = []
    private var status: Int32?

    /// - Parameter words: the path of lab/boot and its arguments.
    /// - Throws: the errno of `pipe(2)` or `posix_spawn(3)`.
    init(_ words: [String]) throws(Errno) {
        let ends: (readEnd: FileDescriptor, writeEnd: FileDescriptor)
        do { ends = try FileDescriptor.pipe() } catch { throw error as? Errno ?? .ioError }
        defer { try? ends.writeEnd.close() }
        output = ends.readEnd
        _ = fcntl(ends.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
        _ = fcntl(ends.writeEnd.rawValue, F_SETFD, FD_CLOEXEC)
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        for descriptor: Int32 in [1, 2] {
            unsafe posix_spawn_file_actions_adddup2(&actions, ends.writeEnd.rawValue, descriptor)
        }
        // This process blocks the signals that end lab/boot, and a child inherits that.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let all = ["setpriv", "--pdeathsig", "TERM"] + words
        let arguments = unsafe all.map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe arguments.indices { unsafe free(arguments[index]) } }
        var child = pid_t()
        let error = unsafe posix_spawnp(&child, "setpriv", &actions, &attributes, arguments, environ)
        guard error == 0 else {
            try? ends.readEnd.close()
            throw Errno(rawValue: error)
        }
        self.child = child
    }

    /// Ends lab/boot, which ends its emulator.
    deinit {
        if status == nil {
            kill(child, SIGTERM)
            _ = wait()
        }
        try? output.close()
    }

    /// The next line, within a second.
    func next() -> Event {
        while true {
            if !lines.isEmpty { return .line(lines.removeFirst()) }
            if let status { return .ended(status: status) }
            guard isReadable(output, within: .seconds(1)) else { return .silence }
            var bytes = [UInt8](repeating: 0, count: 65536)
            let count = (try? unsafe bytes.withUnsafeMutableBytes { try unsafe output.read(into: $0) }) ?? 0
            rest += bytes.prefix(count)
            var parts = rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            let last = parts.removeLast()
            if count == 0 {
                // The outputs are closed.
                if !last.isEmpty { parts.append(last) }
                rest = []
                status = wait()
            } else {
                rest = Array(last)
            }
            lines += parts.map { part in
                let line = part.last == UInt8(ascii: "\r") ? part.dropLast() : part
                return Substring(decoding: line, as: UTF8.self)
            }
        }
    }

    private func wait() -> Int32 {
        var status: Int32 = 0
        while unsafe waitpid(child, &status, 0) < 0 {
            if errno != EINTR { return 255 }
        }
        let signal = status & 0x7f
        return signal == 0 ? status >> 8 & 0xff : 128 + signal
    }
}
