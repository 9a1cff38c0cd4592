// SPDX-License-Identifier: MIT
import Backends
import ConversionModel
import Litmus
import MiniVMM
import SoftKVM

// The speed of the model and of exploration, on one thread.
extension Bench {
    /// The cost of tests on a real kernel, with its parts.
    func realRows(_ backend: any Backend, _ kind: BackendKind) -> [Row] {
        let scope = Exploration.Options(
            depth: 2, tests: 0, parallelTests: 0, timeLimit: Self.realLimit)
        let random = Exploration.Options(
            depth: 0, tests: 20_000, parallelTests: 0, timeLimit: Self.realLimit)
        return realRows(backend, scope, "explore --backend \(kind.rawValue), small scope")
            + realRows(backend, random, "explore --backend \(kind.rawValue), random tests")
    }

    /// The time for the tests of a row, in nanoseconds.
    private static let realLimit = Duration.seconds(20)

    private func realRows(
        _ backend: any Backend, _ options: Exploration.Options, _ name: String
    ) -> [Row] {
        let stopwatch = Stopwatch()
        var options = options
        options.stopwatch = stopwatch
        // Probing the backend before the first test does not count.
        var first: (time: UInt64, parts: [Stopwatch.Part: UInt64], made: Int, usedAgain: Int)?
        func parts() -> [Stopwatch.Part: UInt64] {
            Stopwatch.Part.allCases.reduce(into: [:]) { $0[$1] = stopwatch.time($1).wholeNanoseconds }
        }
        let exploration = Exploration(
            backend, options,
            progress: { _, _ in
                guard first == nil else { return }
                let machines = stopwatch.machines
                first = (monotonicNanoseconds(), parts(), machines.made, machines.usedAgain)
            })
        let summary = exploration.run()
        guard let first, summary.tests > 1 else {
            return [Row(name: "\(name): no test could run", value: 0, unit: "tests/s", bound: -200)]
        }
        let end = parts()
        let tests = Double(summary.tests - 1)
        let elapsed = Double(max(1, monotonicNanoseconds() - first.time))
        var rows = [Row(name: name, value: tests * 1e9 / elapsed, unit: "tests/s", bound: -200)]
        var rest = elapsed
        for part in Stopwatch.Part.allCases {
            let time = Double((end[part] ?? 0) - (first.parts[part] ?? 0))
            rest -= time
            rows.append(part.row(time, tests, elapsed))
        }
        rows.append(
            Row(
                name: "  the model's answers, text, hand-over", value: rest / tests / 1e3,
                unit: "µs a test", share: rest / elapsed))
        let made = Double(stopwatch.machines.made - first.made)
        let used = Double(stopwatch.machines.usedAgain - first.usedAgain)
        rows.append(Row(name: "  machines created", value: made / tests, unit: "per test"))
        rows.append(Row(name: "  machines reused", value: used / tests, unit: "per test"))
        if summary.contradicted > 0 || !summary.findings.isEmpty {
            rows.append(
                Row(
                    name: "  findings, and failures not seen again",
                    value: Double(summary.findings.count + summary.contradicted), unit: "", bound: 0))
        }
        return rows
    }

    func exploreRows() -> [Row] {
        modelRows() + [randomRow(), scopeRow(), interleavingsRow()].compactMap { $0 }
    }

    /// The model's steps, and those of SNP and TDX compared with them. The three take turns, so that a load on the machine
    /// affects all of them.
    private func modelRows() -> [Row] {
        do throws(ErrorNumber) {
            var speeds: [VMType: [Double]] = [:]
            for _ in 0..<Self.modelTurns {
                for type in [VMType.softwareProtected, .snp, .tdx] {
                    speeds[type, default: []].append(try modelSpeed(type))
                }
            }
            let medians = speeds.mapValues(median)
            let own = medians[.softwareProtected] ?? 0
            var rows = [
                Row(
                    name: "model: write, hold, release, convert, access, read, punch, unbind, bind",
                    value: own,
                    unit: "steps/s", bound: -1e6)
            ]
            for (type, name) in [(VMType.snp, "SNP, with PVALIDATE"), (.tdx, "TDX, with ACCEPT")] {
                rows.append(
                    Row(
                        name: "model of \(name): time of a step, as a multiple",
                        value: own / max(1, medians[type] ?? 0), unit: "", bound: 2))
            }
            return rows
        } catch {
            return [
                Row(name: "model failed: errno \(error.rawValue)", value: 0, unit: "steps/s", bound: -1e6)
            ]
        }
    }

    private static let modelTurns = 5

    /// Steps per second of mixed calls and accesses on a file of 64 pages.
    private func modelSpeed(_ type: VMType) throws(ErrorNumber) -> Double {
        let size = 64 * pageSize
        let rounds: UInt64 = 20_000
        var model = KernelModel()
        let vm = try model.createVM(type, sharedBit: type.isConfidential ? 38 : nil)
        let file = try model.createGuestMemfd(vm, size: size, flags: [.mmap, .initShared])
        let view = try model.map(file, offset: 0, length: size)
        let slot = UserspaceMemoryRegion(
            slot: 0, flags: UserspaceMemoryRegion.guestMemfd, guestPhysicalAddress: 0, memorySize: size,
            userspaceAddress: model.address(of: view) ?? 0, guestMemfdOffset: 0)
        var unbound = slot
        unbound.memorySize = 0
        try model.setMemoryRegion(vm, slot, guestMemfd: file)
        if type.isConfidential { try model.finalize(vm) }
        let steps: UInt64 = type.isConfidential ? 11 : 10
        let start = monotonicNanoseconds()
        for round in 0..<rounds {
            let page = round % 64 * pageSize
            var call = ConversionCall(
                offset: page, size: pageSize, attributes: MemoryAttributes.private, flags: 0,
                errorOffset: 0, isReservedZero: true)
            _ = try model.fill(view, at: page, count: 1, with: UInt8(truncatingIfNeeded: round))
            model.release(try model.hold(view, at: page, length: pageSize, by: .vmsplice))
            try model.convert(file, &call)
            switch type {
            case .snp: _ = model.validate(vm, page, true)
            case .tdx: _ = model.accept(vm, page)
            case .default, .softwareProtected: break
            }
            _ = model.access(vm, page, writing: 7)
            call.attributes = 0
            try model.convert(file, &call)
            _ = try model.read(view, at: page)
            try model.allocate(file, punchHole: true, offset: page, length: pageSize)
            try model.setMemoryRegion(vm, unbound)
            try model.setMemoryRegion(vm, slot, guestMemfd: file)
        }
        return Double(rounds * steps) * 1e9 / Double(max(1, monotonicNanoseconds() - start))
    }

    private func randomRow() -> Row? {
        let start = monotonicNanoseconds()
        let summary = Exploration(
            SoftKVM(), .init(depth: 0, tests: 20_000, parallelTests: 0, timeLimit: .seconds(1_000_000))
        ).run()
        let elapsed = monotonicNanoseconds() - start
        guard let steps = summary.counts[.random]?.steps, summary.findings.isEmpty else { return nil }
        return Row(
            name: "explore --backend soft, random tests", value: Double(steps) * 1e9 / Double(elapsed),
            unit: "steps/s", bound: -1e5)
    }

    private func scopeRow() -> Row? {
        let start = monotonicNanoseconds()
        let summary = Exploration(
            SoftKVM(), .init(depth: 4, tests: 0, parallelTests: 0, timeLimit: .seconds(1_000_000))
        ).run()
        let elapsed = monotonicNanoseconds() - start
        guard summary.end == .complete else { return nil }
        return Row(
            name:
                "explore --backend soft --depth 4: \(summary.transitions) steps from \(summary.states) states",
            value: Double(elapsed) / 1e9, unit: "s", bound: 60)
    }

    private func interleavingsRow() -> Row? {
        guard let source = try? Source(parsing: Self.three) else { return nil }
        let runner = Runner(SoftKVM(), .init(findsOrders: false))
        var times: [Double] = []
        for _ in 0..<roundsOfTimes {
            var report = Report(verdict: .skipped(""))
            times.append(Double(time { report = runner.report(source) }) / 1e9)
            guard report.verdict == .passed else { return nil }
        }
        return Row(
            name: "litmus: three actors of four steps, every interleaving", value: median(times), unit: "s",
            bound: 0.03)
    }
}

extension Stopwatch.Part {
    fileprivate func row(_ nanoseconds: Double, _ tests: Double, _ elapsed: Double) -> Bench.Row {
        let name =
            switch self {
            case .vm: "creating VMs"
            case .vcpu: "creating vCPUs"
            case .files: "creating files, mappings, memslots"
            case .steps: "steps"
            case .clearing: "clearing for the next test"
            case .closing: "closing"
            }
        return Bench.Row(
            name: "  " + name, value: nanoseconds / tests / 1e3, unit: "µs a test",
            share: nanoseconds / elapsed)
    }
}
