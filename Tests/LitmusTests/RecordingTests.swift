// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import Synchronization
import Testing

@testable import Litmus

@Suite("Recording litmus tests")
struct RecordingTests {
    /// Stores the events of each run.
    private final class Recorder: RunRecorder {
        struct Run {
            var events: [(Actor, TraceEvent)] = []
            var isNotable: Bool?
        }
        private let list = Mutex<[Run]>([])
        var runs: [Run] { list.withLock { $0 } }

        private final class Sink: TraceSink {
            let recorder: Recorder
            init(_ recorder: Recorder) { self.recorder = recorder }
            func begin(backend: BackendIdentity, time: UInt64) {}
            func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
                recorder.list.withLock { $0[$0.count - 1].events.append((actor, event)) }
            }
            func flush() {}
        }

        func begin(backend: any Backend, vm type: VMType) -> Trace {
            list.withLock { $0.append(Run()) }
            return Trace(backend: backend, sinks: [Sink(self)])
        }
        func end(isNotable: Bool) { list.withLock { $0[$0.count - 1].isNotable = isNotable } }
    }

    private func record(
        _ body: String, on backend: any Backend = SoftKVM(), runs: Int = 5
    ) throws -> (Report, [Recorder.Run]) {
        let recorder = Recorder()
        let source = try Source(
            parsing: "test \"x\"\nmemory 4 pages shared\nmemory more 2 pages private\n" + body)
        let report = Runner(backend, .init(runs: runs, recorder: recorder)).report(source)
        return (report, recorder.runs)
    }

    private func steps(_ run: Recorder.Run) -> [String] {
        run.events.compactMap { actor, event in
            guard case .step(let line, let text, let outcome, let ok, _) = event else { return nil }
            return "\(actor.description) \(line) \(text) = \(outcome) \(ok)"
        }
    }

    @Test func everyStepIsRecordedWithItsLine() throws {
        let (report, runs) = try record(
            """
            host write more:1 7 => SIGBUS
            host1 hold 2 as h
            host convert 1..2 private => EAGAIN at 2
            host release h
            host punch 3
            """)
        #expect(report.verdict == .passed)
        let run = try #require(runs.first)
        #expect(runs.count == 1)
        #expect(run.isNotable == false)
        #expect(
            steps(run) == [
                "host 4 host write more:1 0x7 = SIGBUS true", "host1 5 host1 hold 2 as h = ok true",
                "host 6 host convert 1..2 private = EAGAIN at 2 true", "host 7 host release h = ok true",
                "host 8 host punch 3 = ok true",
            ])
        let expected = run.events.compactMap { _, event -> String? in
            if case .step(_, _, _, _, let expected) = event { expected } else { nil }
        }
        #expect(expected == ["SIGBUS", "ok", "EAGAIN at 2", "ok", "ok"])
        // All files are in one address space, one after the other.
        var places: [UInt64] = []
        for (_, event) in run.events {
            switch event {
            case .fileAppeared(_, let range, _), .heldByName(_, let range), .releasedByName(_, let range),
                .punched(let range):
                places.append(range.start / pageSize)
            case .access(let gpa, _, _, _, _): places.append(gpa / pageSize)
            case .attributesCall(_, _, _, _, let offset, let gpa, _):
                places += [(gpa ?? 0) / pageSize, offset / pageSize]
            default: break
            }
        }
        #expect(places == [0, 4, 5, 2, 1, 2, 2, 3])
    }

    /// The conversions by the monitor's converter are recorded for each file, even if it gave up.
    @Test(
        arguments: [
            ("host convert guest:3..4 private preserve", ["3+1 ok", "4+1 ok"]),
            ("host convert guest:4..5 shared unspecified", ["4+2 ok"]),
            (
                "host hold 2 as h\nhost convert 1..3 private preserve bisect => EAGAIN at 2",
                ["1+1 ok", "3+1 ok", "1+3 EAGAIN at 2"]
            ),
            (
                "host hold 2 as h\nhost convert guest:1..5 private preserve chunk 1 => EAGAIN at 2",
                ["1+1 ok", "1+3 EAGAIN at 2"]
            ),
            (
                "host convert more:0..1 shared\nhost hold more:1 as h\nhost convert guest:2..5 private zero => EAGAIN at 5",
                ["4+2 ok", "2+2 ok", "4+2 EAGAIN at 1"]
            ),
            ("host convert guest:4..6 shared preserve => EINVAL", ["4+2 EINVAL"]),
            // A pattern is recorded call by call.
            (
                "host hold 3 as h\nhost convert every 1 of 1..3 private => EAGAIN at 3",
                ["1+1 ok", "2+1 ok", "3+1 EAGAIN at 3"]
            ),
            ("host convert every 3 of guest:1..5 private preserve", ["1+1 ok", "4+1 ok"]),
            ("parallel\nhost convert guest:0..5 private preserve => a\nend", ["0+4 ok", "4+2 ok"]),
        ] as [(String, [String])]) func theMonitorsCallsAreRecorded(_ body: String, _ calls: [String]) throws
    {
        let (report, runs) = try record(body)
        #expect(report.verdict == .passed)
        let seen = try #require(runs.first).events.compactMap { _, event -> String? in
            guard case .attributesCall(_, let size, _, let errno, let place, let gpa, _) = event else {
                return nil
            }
            let answer =
                errno.map {
                    $0 == .resourceTemporarilyUnavailable ? "EAGAIN at \(place / pageSize)" : $0.name
                }
            return "\((gpa ?? 0) / pageSize)+\(size / pageSize) \(answer ?? "ok")"
        }
        #expect(seen == calls)
    }

    @Test func aFailureIsNotable() throws {
        let (_, runs) = try record("host read 0 => 1")
        #expect(runs.map(\.isNotable) == [true])
        #expect(steps(runs[0]).last?.hasSuffix("= 0x0 false") == true)
    }

    @Test func aFailingInterleavingIsRecorded() throws {
        let race = "parallel\nhost convert 0 private => a\nhost1 read 0 => b\n"
        let (_, fine) = try record(race + "end")
        #expect(fine.map(\.isNotable) == [false])
        let (report, bad) = try record(race + "forbidden b = SIGBUS\nend")
        #expect(report.verdict != .passed)
        #expect(bad.map(\.isNotable) == [true])
        #expect(
            steps(bad[0]) == [
                "host 5 host convert 0 private = ok true", "host1 6 host1 read 0 = SIGBUS true",
                "host 5 parallel block = a = ok, b = SIGBUS false",
            ])
        let outcome = bad[0].events.compactMap { _, event -> String? in
            if case .step(_, "parallel block", _, _, let expected) = event { expected } else { nil }
        }
        #expect(outcome == ["any outcome except b = SIGBUS"])
        let (_, late) = try record(
            "parallel\nhost write 0 1\nhost1 write 0 2\nend\nhost read 0 => 1")
        #expect(late.map(\.isNotable) == [true])
        #expect(steps(late[0]).last == "host 8 host read 0 = 0x2 false")
    }

    /// Conversions for memory faults are recorded before the access, also for vCPUs that undo each other's conversions.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func conversionsOnFaultsAreRecorded() throws {
        func calls(_ run: Recorder.Run) -> [String] {
            run.events.compactMap { actor, event in
                switch event {
                case .attributesCall(let offset, _, let target, let errno, _, _, _):
                    "\(actor.description) \(offset / pageSize) \(target.rawValue) \(errno?.name ?? "ok")"
                case .access(let gpa, _, _, let errno, _):
                    "\(actor.description) at \(gpa / pageSize) \(errno?.name ?? "ok")"
                default: nil
                }
            }
        }
        let head = "test \"x\"\naliases two\nmemory 2 pages private\n"
        let recorder = Recorder()
        let body = """
            vcpu0 write shared:1 7 converting preserve
            host hold 1 as h
            vcpu1 read 1 converting preserve => EAGAIN at 1
            host release h
            vcpu1 again => 7
            """
        #expect(
            Runner(SoftKVM(), .init(recorder: recorder)).run(try Source(parsing: head + body)) == .passed)
        #expect(
            calls(try #require(recorder.runs.first)) == [
                "vcpu0 1 shared ok", "vcpu0 at 1 ok", "vcpu1 1 private EAGAIN", "vcpu1 at 1 EAGAIN",
                "vcpu1 1 private ok",
            ])
        for clause in ["", "forbidden c = 0x1, d = 0x1", "forbidden c = 0x2, d = 0x2"] {
            let recorder = Recorder()
            let block = """
                parallel
                vcpu0 write 0 1 converting preserve
                vcpu1 write shared:0 2 converting preserve
                vcpu0 read 0 converting preserve => c
                vcpu1 read shared:0 converting preserve => d
                \(clause)
                end
                """
            let report = Runner(SoftKVM(), .init(recorder: recorder)).report(
                try Source(parsing: head + block))
            #expect((report.verdict == .passed) == clause.isEmpty)
            let run = try #require(recorder.runs.first)
            #expect(run.isNotable == !clause.isEmpty && steps(run).count == 5)
            #expect(calls(run).count { $0.contains("shared ok") } >= 1)
        }
    }

    @Test func everyRunOfThreadsIsRecorded() throws {
        let body = "parallel\nhost write 0 1 => a\nhost1 write 1 1 => b\nforbidden a = ok\nend"
        let (_, runs) = try record(body, on: MemslotTrapKVM(over: SoftKVM()), runs: 3)
        #expect(runs.map(\.isNotable) == [true, true, true])
        #expect(runs.allSatisfy { steps($0).count == 3 })
    }

    /// How far the guest of an SNP or TDX VM has taken its pages, after each step that changes it.
    @Test(
        arguments: [
            (
                "snp", "vcpu0 hypercall 0 private => ok\nvcpu0 read 0 => VC\nvcpu0 pvalidate 0 => ok",
                ["0+1 unassigned", "0+1 unvalidated", "0+1 taken"]
            ),
            (
                "tdx",
                "vcpu0 hypercall 0..1 private => ok\nvcpu0 accept 0 => ok\nhost block 0\nhost track\nhost remove 0",
                ["0+2 unassigned", "0+1 taken", "1+1 unassigned", "0+1 blocked", "0+2 unassigned"]
            ),
            (
                "tdx", "host ve\nvcpu0 hypercall 2 private => ok\nvcpu0 read 2 => VE\nvcpu0 accept 2 => ok",
                ["2+1 unassigned", "2+1 pending", "2+1 taken"]
            ),
            (
                "snp",
                "vcpu0 hypercall 3 private => ok\nparallel\nvcpu0 pvalidate 3 => a\nhost read 0 => b\nend",
                ["3+1 unassigned", "3+1 taken"]
            ),
        ]) func guestPagesAreRecorded(_ vm: String, _ body: String, _ expected: [String]) throws
    {
        let recorder = Recorder()
        let source = try Source(parsing: "test \"x\"\nvm \(vm)\nmemory 4 pages shared\n" + body)
        let report = Runner(SoftKVM(), .init(recorder: recorder)).report(source)
        let isRace = body.contains("parallel")
        #expect(report.verdict == .passed || isRace, "\(report.verdict)")
        let run = try #require(recorder.runs.first)
        let pages = run.events.compactMap { _, event -> String? in
            guard case .guestPages(let range, let state) = event else { return nil }
            return "\(range.start / pageSize)+\(range.size / pageSize) \(state)"
        }
        #expect(pages == expected)
    }
}
