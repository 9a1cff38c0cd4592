// SPDX-License-Identifier: MIT
import CBaseline
import CKVMShim
import Glibc
import GuestPayloads
import MiniVMM

// Compares `run hello` as a process with a monitor in plain C as a process.
extension Bench {
    func processRows() -> [Row] {
        var rows: [Row] = []
        // Most of the difference is the argument parser. SoftKVM's CPU, in a process of its own, adds one start.
        for (name, bound) in [(BackendChoice.soft, 2.4), (.memslotTrap, 2.0)] {
            var times = Pairs()
            var memory = 0
            for round in 0..<roundsOfTimes * 2 {
                let hello = ["run", "hello", "--quiet", "--backend", name.rawValue]
                do {
                    try times.add(per: 1, round % 2 == 0) {
                        let usage = try spawn(hello)
                        memory = max(memory, usage.kibibytes)
                        return usage.nanoseconds
                    } c: {
                        Int64(clamping: try spawn([CMonitor.word, name.rawValue]).nanoseconds)
                    }
                } catch {
                    break
                }
            }
            guard memory > 0, !times.isEmpty else { continue }
            rows.append(
                times.row("run hello --backend \(name.rawValue), the process", "ms", 1e6, bound: bound))
            rows.append(
                Row(
                    name: "run hello --backend \(name.rawValue), peak memory", value: Double(memory) / 1024,
                    unit: "MiB", bound: 20))
        }
        return rows
    }

    /// A process could not be started, or failed.
    private struct NoProcess: Error {}

    /// Runs this program with other arguments and waits for it.
    private func spawn(_ words: [String]) throws(NoProcess) -> (nanoseconds: UInt64, kibibytes: Int) {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        for descriptor: Int32 in [1, 2] {
            unsafe posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null", O_WRONLY, 0)
        }
        let arguments = unsafe (["minivmm"] + words).map { unsafe strdup($0) } + [nil]
        defer { for index in unsafe arguments.indices { unsafe free(arguments[index]) } }
        var child = pid_t()
        let start = monotonicNanoseconds()
        guard unsafe posix_spawn(&child, "/proc/self/exe", &actions, nil, arguments, environ) == 0 else {
            throw NoProcess()
        }
        var status: Int32 = 0
        var usage = rusage()
        guard unsafe wait4(child, &status, 0, &usage) == child, status == 0 else { throw NoProcess() }
        return (monotonicNanoseconds() - start, usage.ru_maxrss)
    }
}

/// The C monitor of ``Bench``. It is part of this program, so that both processes start alike, and runs before any other
/// code of the command.
enum CMonitor {
    /// The first argument that selects it; the second is a backend.
    static let word = "c-monitor-of-bench"

    /// Runs the C monitor and ends the process if the arguments select it.
    static func runIfAsked() {
        guard CommandLine.argc == 3, CommandLine.arguments[1] == word else { return }
        exit(run(CommandLine.arguments[2]) ? 0 : 1)
    }

    private static func run(_ backend: String) -> Bool {
        // Like minivmm, it first drops the privileges that a monitor does not need.
        guard ckvm_confine() == 0, let payload = Catalogue.named("hello") else { return false }
        return unsafe payload.image.withUnsafeBufferPointer { image in
            guard let base = image.baseAddress else { return false }
            var guest = unsafe cbaseline_guest(
                image: base, image_size: UInt64(image.count), ram_size: payload.ramSize, shared_bit: -1)
            guard backend == BackendChoice.soft.rawValue else {
                return unsafe cbaseline_hello_kvm(&guest) > 0
            }
            for library in ["libunicorn.so.2", "libunicorn.so"] {
                if unsafe cbaseline_hello_unicorn(&guest, library) > 0 { return true }
            }
            return false
        }
    }
}
