import Glibc
import Synchronization
// SPDX-License-Identifier: MIT
public import SystemPackage

/// Lines by which an observer outside of a machine that may die knows the running test.
///
/// Each line is one record of the kernel's log. The first is a heading, and the text follows in lines of its own.
public enum Announcement: Sendable, Hashable {
    /// A test is about to run. `number` is its number in the exploration, from 1; nil outside of explorations.
    case test(number: Int?, text: String)
    /// A test is about to run that finds out whether the kernel supports a kind of step or machine.
    case probe(step: String, text: String)
    /// The kernel differs from the model in this test, which is as small as possible.
    case difference(text: String)

    static let prefix = "minivmm: "
    /// The largest number of bytes of a test in one line. The kernel's log takes records of up to 1 KiB.
    static let mostBytes = 800

    /// The lines, without line ends.
    var lines: [String] {
        let heading: String
        let text: String
        switch self {
        case .test(let number, let test): (heading, text) = ("test" + (number.map { " \($0)" } ?? ""), test)
        case .probe(let step, let test): (heading, text) = ("probe \(step)", test)
        case .difference(let test): (heading, text) = ("difference", test)
        }
        var lines = [Self.prefix + heading]
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            var rest = line.utf8[...]
            var mark = "|"
            repeat {
                lines.append("\(Self.prefix)\(mark) \(Substring(rest.prefix(Self.mostBytes)))")
                rest = rest.dropFirst(Self.mostBytes)
                mark = "+"
            } while !rest.isEmpty
        }
        lines.append(Self.prefix + "end")
        return lines
    }
}

/// Reads announcements from the lines of a log, among others.
struct AnnouncementReader: Sendable {
    private var heading: Substring?
    private var lines: [String] = []

    /// Reads one line.
    ///
    /// - Returns: whether the line is part of an announcement, and the announcement that ends with it.
    mutating func add(_ line: Substring) -> (isPart: Bool, announcement: Announcement?) {
        guard line.hasPrefix(Announcement.prefix) else { return (false, nil) }
        let rest = line.dropFirst(Announcement.prefix.count)
        switch rest.prefix(2) {
        case "| ", "|": lines.append(String(rest.dropFirst(2)))
        case "+ ":
            guard let last = lines.popLast() else { break }
            lines.append(last + rest.dropFirst(2))
        default:
            if rest != "end" {
                (heading, lines) = (rest, [])
                break
            }
            defer { (heading, lines) = (nil, []) }
            return (true, heading.flatMap { announcement($0) })
        }
        return (true, nil)
    }

    private func announcement(_ heading: Substring) -> Announcement? {
        let text = lines.joined(separator: "\n")
        let words = heading.split(separator: " ")
        switch words.first {
        case "test": return .test(number: words.dropFirst().first.flatMap { Int($0) }, text: text)
        case "probe": return .probe(step: words.dropFirst().joined(separator: " "), text: text)
        case "difference": return .difference(text: text)
        default: return nil
        }
    }
}

/// Writes announcements to a file, a terminal line or the kernel's log.
public final class Announcer: Sendable {
    /// The purpose of the tests that run next.
    enum Purpose {
        case test(number: Int?)
        case probe(step: String)
    }

    private struct State {
        var purpose = Purpose.test(number: nil)
        var failure: Errno?
    }

    private let file: FileDescriptor
    /// Whether the file is /dev/kmsg, where a line can begin with its level.
    private let isKernelLog: Bool
    private let state = Mutex(State())

    /// Opens a file to append to it, and creates it if needed.
    ///
    /// - Throws: the errno of `open(2)`.
    public init(_ path: FilePath) throws(Errno) {
        do {
            file = try FileDescriptor.open(
                path, .writeOnly, options: [.append, .create, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
        } catch {
            throw (error as? Errno) ?? .ioError
        }
        var status = stat()
        let isDevice = unsafe fstat(file.rawValue, &status) == 0 && status.st_mode & S_IFMT == S_IFCHR
        isKernelLog = isDevice && status.st_rdev == Self.kernelLogDevice
    }

    deinit { try? file.close() }

    /// Character device 1:11.
    private static let kernelLogDevice: dev_t = 1 << 8 | 11

    /// The first error of a write; nil if there was none. Nothing is written after it.
    public var failure: Errno? { state.withLock(\.failure) }

    /// Sets what the following tests are announced as.
    func announces(_ purpose: Purpose) { state.withLock { $0.purpose = purpose } }

    /// Announces a test.
    func begin(_ test: LitmusTest) {
        let announcement: Announcement =
            switch state.withLock(\.purpose) {
            case .test(let number): .test(number: number, text: test.text)
            case .probe(let step): .probe(step: step, text: test.text)
            }
        write(announcement)
    }

    /// Writes all lines of an announcement. Each line is one `write(2)`, so one record of the kernel's log, which is on the
    /// console before the call returns.
    func write(_ announcement: Announcement) {
        guard failure == nil else { return }
        // Level 4, a warning: lab/boot prints those.
        let level = isKernelLog ? "<4>" : ""
        do {
            for line in announcement.lines { _ = try file.writeAll((level + line + "\n").utf8) }
        } catch {
            state.withLock { $0.failure = (error as? Errno) ?? .ioError }
        }
    }
}
