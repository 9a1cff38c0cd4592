// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// Makes allocations of the kernel fail, in the system calls that a thread makes.
protocol AllocationFailing: Sendable {
    /// Called before any allocation is made to fail.
    ///
    /// - Throws: the reason why that is impossible.
    func prepare() throws(FailureAbsence)
    /// Called afterwards.
    func restore()
    /// Calls `body` on this thread, with the `nth` allocation of its system calls failing and no other one.
    func failing<R>(_ nth: Int, _ body: () -> R) -> (R, Injection)
    /// The number that the next descriptor gets: another one means that a descriptor was left open.
    func lowestDescriptor() -> Int32
}

/// Whether an allocation failed as requested.
enum Injection: Sendable, Equatable {
    /// Fewer allocations were made.
    case unused(made: Int)
    /// The allocation has failed in this system call, which returned a value or a negative errno.
    case failed(call: String, result: Int)
}

/// Why allocations cannot be made to fail, as a sentence without its period.
struct FailureAbsence: Error, Equatable, CustomStringConvertible {
    let description: String
}

/// The running kernel's fault injection: `fail-nth` of the thread, and the settings below debugfs that let allocations fail
/// that may sleep, of every size. Needs root and CONFIG_FAILSLAB or CONFIG_FAIL_PAGE_ALLOC.
final class LinuxAllocationFailures: AllocationFailing {
    private let debugfs: FilePath
    private let failNth: FilePath
    /// The settings before ``prepare()``. Used by the thread that runs tests; guarded all the same.
    private let before = Mutex<[(FilePath, String)]>([])

    /// - Parameters:
    ///   - debugfs: where debugfs is mounted.
    ///   - failNth: the file of the calling thread.
    init(debugfs: FilePath = "/sys/kernel/debug", failNth: FilePath = "/proc/thread-self/fail-nth") {
        self.debugfs = debugfs
        self.failNth = failNth
    }

    deinit { restore() }

    /// The settings of both kinds of allocations. The kernel's defaults spare allocations that may sleep, of high memory
    /// and of a single page. `verbose` 0 keeps the kernel's log short. `times` counts failures down; nil keeps it.
    private static let settings: [(directory: String, values: [(name: String, value: String?)])] = [
        ("failslab", [("ignore-gfp-wait", "N"), ("cache-filter", "N"), ("verbose", "0"), ("times", nil)]),
        (
            "fail_page_alloc",
            [
                ("ignore-gfp-wait", "N"), ("ignore-gfp-highmem", "N"), ("min-order", "0"), ("verbose", "0"),
                ("times", nil),
            ]
        ),
    ]
    /// Faults of other kinds, which `fail-nth` would inject, too.
    private static let others = ["fail_usercopy", "fail_futex", "fail_skb_realloc"]

    func prepare() throws(FailureAbsence) {
        do throws(Errno) { _ = try Self.read(failNth) } catch {
            let reason =
                error == .noSuchFileOrDirectory
                ? "this kernel is built without CONFIG_FAULT_INJECTION"
                : "its file cannot be read (\(error.name)); run as root"
            throw FailureAbsence(description: "\(failNth): \(reason)")
        }
        for other in Self.others where (try? Self.read(debugfs.appending(other).appending("verbose"))) != nil
        {
            throw FailureAbsence(
                description: "this kernel has \(other), and fail-nth would not only make allocations fail")
        }
        var isThere = false
        for (directory, values) in Self.settings {
            let path = debugfs.appending(directory)
            do throws(Errno) { _ = try Self.read(path.appending("verbose")) } catch {
                if error == .noSuchFileOrDirectory { continue }
                throw FailureAbsence(description: "\(path): \(error.name); run as root")
            }
            isThere = true
            for (name, value) in values {
                do throws(Errno) { try set(path.appending(name), value) } catch {
                    restore()
                    throw FailureAbsence(
                        description: "\(path.appending(name)) cannot be set (\(error.name)); run as root")
                }
            }
        }
        guard isThere else {
            throw FailureAbsence(
                description:
                    "\(debugfs) has neither failslab nor fail_page_alloc: mount debugfs there, and build "
                    + "the kernel with CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC and CONFIG_FAULT_INJECTION_DEBUG_FS"
            )
        }
    }

    private func set(_ path: FilePath, _ value: String?) throws(Errno) {
        let old = try Self.read(path)
        if let value { try Self.write(value, to: path) }
        before.withLock { $0.append((path, old)) }
    }

    func restore() {
        let settings = before.withLock { settings in
            defer { settings = [] }
            return settings
        }
        for (path, value) in settings.reversed() { try? Self.write(value, to: path) }
    }

    func failing<R>(_ nth: Int, _ body: () -> R) -> (R, Injection) {
        // prepare() has read the file. If it is gone nothing fails, and the run counts as one without the allocation.
        guard ckvm_fail_begin(UInt32(clamping: nth)) == 0 else { return (body(), .unused(made: 0)) }
        let result = body()
        var (left, value): (UInt32, Int) = (0, 0)
        guard let call = unsafe ckvm_fail_end(&left, &value) else {
            return (result, .unused(made: nth - Int(left)))
        }
        return (result, .failed(call: unsafe String(cString: call), result: value))
    }

    func lowestDescriptor() -> Int32 {
        let copy = dup(0)
        if copy >= 0 { close(copy) }
        return copy
    }

    // MARK: small files

    private static func read(_ path: FilePath) throws(Errno) -> String {
        do {
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            defer { try? file.close() }
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = unsafe try bytes.withUnsafeMutableBytes { unsafe try file.read(into: $0) }
            return String(decoding: bytes.prefix(count).filter { $0 > 0x20 }, as: UTF8.self)
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }

    private static func write(_ text: String, to path: FilePath) throws(Errno) {
        do {
            let file = try FileDescriptor.open(path, .writeOnly, options: [.closeOnExec, .truncate])
            defer { try? file.close() }
            _ = try file.writeAll(text.utf8)
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }
}
