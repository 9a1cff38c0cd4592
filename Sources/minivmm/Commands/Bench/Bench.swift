// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import CBaseline
import Explain
import Glibc
import GuestPayloads
import MiniVMM
import SoftKVM
import SystemPackage

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Compares the monitor with the same loops in plain C.",
        discussion: """
            Swift and C run in turns in this one process, on the same /dev/kvm; each ratio is the median over the \
            rounds of Swift by C. What has no counterpart in C is given by itself. A bound is a promise: with --check \
            a broken one ends with status 1.

            With --instructions, costs of the kernel are counted in instructions: conversions of 1, 8, 512 and 65,536 \
            pages, and a guest's exits. Each figure is one system call from its first instruction to its return, the \
            median of the rounds; if the rounds differ, the smallest and the largest are printed, too. It needs a \
            processor whose clock counts instructions, which is measured first: lab/boot --icount -- minivmm bench \
            --instructions. Any other machine is refused with status 4.
            """)

    @Option(
        help: "Number of rounds, 1 to 1000; results are medians. (default: 15; 3 with --instructions)")
    var rounds: Int?
    @Flag(help: "Exit with status 1 if a bound is exceeded.")
    var check = false
    @Flag(
        help: ArgumentHelp(
            "Measure only the model and the exploration of backends.",
            discussion:
                "With --backend, only that backend is explored; otherwise the model and the backend that auto picks."
        )
    )
    var explore = false
    @Option(help: "The backend that --explore measures. (default: the model, then the one auto picks)")
    var backend: BackendChoice?
    @Flag(
        help:
            "Count the instructions of conversions and exits in the lab. Needs /dev/kvm and lab/boot --icount."
    )
    var instructions = false
    @Flag(help: "Print one JSON object.")
    var json = false

    /// ``rounds``, or its default for a comparison with C.
    var roundsOfTimes: Int { rounds ?? 15 }

    func validate() throws {
        if let rounds, !(1...1000).contains(rounds) {
            throw ValidationError("--rounds \(rounds): must be 1 to 1000.")
        }
        if backend != nil, !explore { throw ValidationError("--backend needs --explore.") }
        if instructions, explore || check {
            throw ValidationError(
                "--instructions has no bounds and measures the kernel only: omit --explore and --check.")
        }
    }

    func run() throws {
        if instructions { return try countInstructions() }
        if explore { return try measureExploration() }
        // First, while this process is small: the peak memory of a child includes its parent's at the fork.
        let processes = processRows()
        // Before this process is bound to one CPU.
        let litmus = litmusRows((try? LinuxKVM()).map { MemslotTrapKVM(over: $0) })
        // A conversion waits for kernel workers. The wait is three times as long if they run on this thread's CPU, so on
        // more than one CPU the scheduler's choice would dominate the comparison.
        _ = cbaseline_stay_on_this_cpu()
        var rows: [Row] = []
        var backend = "none: /dev/kvm cannot be used"
        do {
            let trap = MemslotTrapKVM(over: try LinuxKVM())
            backend = trap.identity.description
            rows += try backendRows(trap)
        } catch let error as KVMUnavailable {
            if !json {
                Terminal.diagnostics.print("minivmm: \(error); measuring only what does not need /dev/kvm")
            }
        }
        rows += mapRows() + modelRows()
        try finish(rows + litmus + processes, on: backend)
    }

    private func measureExploration() throws {
        let name = backend ?? .auto
        let chosen: ChosenBackend
        do throws(BackendError) { chosen = try name.open(BackendNeeds()) } catch {
            throw stop("--backend \(name.rawValue): \(error.text)", Status.monitorFailed, error.diagnosis)
        }
        let identity = chosen.backend.identity.description
        guard chosen.kind != .soft else { return try finish(exploreRows(), on: identity) }
        let rows = backend == nil ? exploreRows() : []
        try finish(rows + realRows(chosen.backend, chosen.kind), on: identity)
    }

    private func finish(_ rows: [Row], on backend: String) throws {
        if json { printJSON(rows, backend) } else { printText(rows, backend) }
        if check, rows.contains(where: { $0.holds == false }) { throw Status.checkFailed }
    }

    // MARK: against C

    /// mov $count, %ecx; 1: out %al, $0x80; dec %ecx; jnz 1b; xor %eax, %eax; out %al, $0xf4
    private static func exits(_ count: UInt32) -> [UInt8] {
        [0xb9] + bytes(count) + [0xe6, 0x80, 0xff, 0xc9, 0x75, 0xfa, 0x31, 0xc0, 0xe6, 0xf4]
    }

    /// mov 0x18(%rdi), %rbx; mov 0x38(%rdi), %rdx; add %rdx, %rbx; mov $count, %ecx;
    /// 1: mov (%rbx), %al; mov (%rdx), %al; dec %ecx; jnz 1b; xor %eax, %eax; out %al, $0xf4
    private static func faults(_ count: UInt32) -> [UInt8] {
        [0x48, 0x8b, 0x5f, 0x18, 0x48, 0x8b, 0x57, 0x38, 0x48, 0x01, 0xd3, 0xb9] + bytes(count) + [
            0x8a, 0x03, 0x8a, 0x02, 0xff, 0xc9, 0x75, 0xf8, 0x31, 0xc0, 0xe6, 0xf4,
        ]
    }

    private static func bytes(_ word: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: word >> (UInt32($0) * 8)) }
    }

    private func backendRows(_ backend: any Backend) throws -> [Row] {
        let ram: UInt64 = 16 << 20
        let exitCount: UInt32 = 10000
        let faultCount: UInt32 = 250
        let bit = try min(46, backend.supportedCPUID().physicalAddressBits - 1)
        let trace = try fileTrace(backend)
        var exits = Pairs()
        var traced = Pairs()
        var faults = Pairs()
        var faultWork = Pairs()
        var creations = Pairs()
        let loop = Self.exits(exitCount)
        let flips = Self.faults(faultCount)
        let end = Self.exits(1)
        for round in 0..<roundsOfTimes {
            // The order alternates between rounds, so that effects of one loop on the next cancel out.
            let swiftFirst = round % 2 == 0
            try exits.add(per: Double(exitCount), swiftFirst) {
                try run(backend, loop, .one, nil).run
            } c: {
                try baseline(loop, ram, -1).time
            }
            try traced.add(per: Double(exitCount), swiftFirst) {
                try run(backend, loop, .one, trace).run
            } c: {
                try baseline(loop, ram, -1).time
            }
            try faults.add(per: Double(faultCount * 2), swiftFirst) {
                try run(backend, flips, .two, nil).run
            } c: {
                try baseline(flips, ram, Int32(bit)).time
            }
            try faultWork.add(per: Double(faultCount * 2), swiftFirst) {
                try run(backend, flips, .two, nil).cpu
            } c: {
                try baseline(flips, ram, Int32(bit)).cpu
            }
            for _ in 0..<5 {
                try creations.add(per: 1, swiftFirst) {
                    try run(backend, end, .one, nil).total
                } c: {
                    try baseline(end, ram, -1, creation: true).time
                }
            }
        }
        return [
            exits.row("exit round trip, trace off", "µs", 1e3, bound: 1.1),
            traced.row("exit round trip, JSON trace to a file", "µs", 1e3, bound: 1.2),
            faults.row("fault, convert, resume", "µs", 1e3, bound: 1.2),
            // Most of the real time is waiting for grace periods in the kernel, which vary. This is the work itself.
            faultWork.row("fault, convert, resume: processor time", "µs", 1e3, bound: 1.2),
            creations.row("creation to first exit", "µs", 1e3, bound: 1.5),
        ]
    }

    /// Pairs of times, Swift and C, measured one after the other.
    struct Pairs {
        private var swift: [Double] = []
        private var c: [Double] = []

        var isEmpty: Bool { c.isEmpty }

        mutating func add(
            per count: Double, _ swiftFirst: Bool, swift: () throws -> UInt64, c: () throws -> Int64
        ) throws {
            let early = swiftFirst ? nil : try c()
            self.swift.append(Double(try swift()) / count)
            self.c.append(Double(try early ?? c()) / count)
        }

        /// The ratio is the median of the ratios of the pairs. C's time is the value divided by that ratio.
        func row(_ name: String, _ unit: String, _ divisor: Double, bound: Double) -> Row {
            let ratio = median(zip(swift, c).map { $0 / $1 })
            let value = median(swift) / divisor
            return Row(name: name, value: value, unit: unit, baseline: value / ratio, bound: bound)
        }
    }

    private func fileTrace(_ backend: any Backend) throws -> Trace {
        // A file, not /dev/null: the bound is for a trace that is stored. The file is unlinked.
        let path = FilePath(argument: environment("TMPDIR") ?? "/tmp").appending(
            "minivmm-bench-\(getpid()).jsonl")
        let file = try FileDescriptor.open(
            path, .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec], permissions: .ownerReadWrite
        )
        _ = unsafe path.withPlatformString { unsafe unlink($0) }
        return Trace(backend: backend, sinks: [JSONLinesTrace(file)])
    }

    private func run(
        _ backend: any Backend, _ code: [UInt8], _ aliases: Aliases, _ trace: Trace?
    ) throws -> (run: UInt64, total: UInt64, cpu: UInt64) {
        var configuration = MachineConfiguration()
        configuration.aliases = aliases
        let start = monotonicNanoseconds()
        let machine = try Machine(
            backend: backend, configuration: configuration, image: .flat(code), console: Console(nil),
            trace: trace)
        let built = monotonicNanoseconds()
        let cpu = processorNanoseconds()
        let outcome = machine.run(timeout: .seconds(60))
        let end = monotonicNanoseconds()
        let cpuEnd = processorNanoseconds()
        guard outcome.exitStatus == 0 else {
            throw stop("the measured guest failed: \(outcome)", Status.monitorFailed, outcome.diagnosis)
        }
        return (end - built, end - start, cpuEnd - cpu)
    }

    private func baseline(_ code: [UInt8], _ ram: UInt64, _ bit: Int32, creation: Bool = false) throws
        -> (time: Int64, cpu: Int64)
    {
        var cpu: Int64 = 0
        let time = unsafe code.withUnsafeBufferPointer { image -> Int64 in
            guard let base = image.baseAddress else { return -Int64(EINVAL) }
            var guest = unsafe cbaseline_guest(
                image: base, image_size: UInt64(image.count), ram_size: ram, shared_bit: bit)
            return creation ? unsafe cbaseline_create_and_run(&guest) : unsafe cbaseline_run(&guest, &cpu)
        }
        guard time > 0 else {
            let errno = Errno(rawValue: CInt(-time))
            throw stop(
                "the C loop failed: \(errno)", Status.monitorFailed,
                .file("a VM of the C loop", errno, call: "ioctl"))
        }
        return (time, cpu)
    }

    // MARK: without a baseline

    private func mapRows() -> [Row] {
        let runs: UInt64 = 1_000_000
        var map = AttributeMap(size: 1 << 40, initial: .private)
        let build = time {
            for page in 0..<runs / 2 {
                if let range = PageRange(start: page * 2 * pageSize, size: pageSize) {
                    map.set(range, to: .shared)
                }
            }
        }
        var position: UInt64 = 1
        let count: UInt64 = 200_000
        let flips = time {
            for index in 0..<count {
                // A random page of the fragmented part, from a full-period generator.
                position = (position &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407)
                let page = (position >> 33) % runs
                if let range = PageRange(start: page * pageSize, size: pageSize) {
                    map.set(range, to: index % 2 == 0 ? .shared : .private)
                }
            }
        }
        var whole = AttributeMap(size: 1 << 40, initial: .private)
        let terabyte = time {
            for index in 0..<count {
                if let all = PageRange(start: 0, size: 1 << 40) {
                    whole.set(all, to: index % 2 == 0 ? .shared : .private)
                }
            }
        }
        return [
            Row(
                name: "attribute map, building 10⁶ alternating runs", value: Double(build) / Double(runs / 2),
                unit: "ns per conversion", bound: 1000),
            Row(
                name: "attribute map of 10⁶ runs, a page anywhere", value: Double(flips) / Double(count),
                unit: "ns per conversion", bound: 1000),
            Row(
                name: "attribute map, 1 TiB of one state", value: Double(terabyte) / Double(count),
                unit: "ns per conversion", bound: 1000),
        ]
    }

    private func modelRows() -> [Row] {
        let count = 300_000
        var operations = 0
        let backend = SoftKVM()
        var elapsed: UInt64 = 1
        do {
            let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            let file = try vm.createGuestMemfd(size: 1 << 20, flags: [.mmap, .initShared])
            let mapping = try file.map(offset: 0, length: 1 << 20)
            guard let whole = PageRange(start: 0, size: 1 << 20) else { return [] }
            let region = MemoryRegion(
                gpa: whole, file: file, mapping: mapping)
            let memory = GuestMemory(regions: [region], initial: .shared)
            let converter = Converter(
                backend: backend, vm: vm, memory: memory, holds: HoldRegistry(), policy: RetryPolicy(),
                trace: nil)
            elapsed = try time {
                var word: UInt64 = 0
                for index in 0..<count {
                    let gpa = UInt64(index % 256) * pageSize
                    guard let page = PageRange(start: gpa, size: pageSize) else { continue }
                    try converter.convert(.init(range: page, to: .private, contents: .preserve), by: .monitor)
                    try converter.convert(.init(range: page, to: .shared, contents: .preserve), by: .monitor)
                    _ = try unsafe withUnsafeMutableBytes(of: &word) { bytes in
                        try unsafe mapping.write(at: gpa, from: UnsafeRawBufferPointer(bytes))
                            + mapping.read(at: gpa, into: bytes)
                    }
                    operations += 4
                }
            }
        } catch {
            return [
                Row(name: "SoftKVM failed: \(error)", value: 0, unit: "operations/s", bound: -1e6)
            ]
        }
        return [
            Row(
                name: "SoftKVM: convert, write, read",
                value: Double(operations) * 1e9 / Double(elapsed),
                unit: "operations/s", bound: -1e6)
        ]
    }
}

/// Processor time of this process in nanoseconds, user and system.
private func processorNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

/// The median; 0 if there are no values.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    guard !sorted.isEmpty else { return 0 }
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}

/// The real time of `body` in nanoseconds.
func time<E>(_ body: () throws(E) -> Void) throws(E) -> UInt64 {
    let start = monotonicNanoseconds()
    try body()
    return max(1, monotonicNanoseconds() - start)
}
