// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage
import Testing

@testable import Litmus

@Suite("Parallel blocks", .timeLimit(.minutes(120)))
struct ParallelTests {
    static let hasCPU = RunnerTests.hasCPU
    static let noCPU = RunnerTests.noCPU
    /// The backends of this machine that run parallel tests with threads, besides the model: here the memslot adapter.
    static let real: (any Backend)? = (try? LinuxKVM()).map { MemslotTrapKVM(over: $0) }
    static let noReal: Comment = "needs /dev/kvm"

    private func source(_ body: String, _ head: String = "memory 4 pages shared") throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private func outcomes(_ report: Report) -> [String] { report.blocks.flatMap(\.outcomes).map(\.text) }

    private func failure(_ report: Report) -> Failure? {
        if case .failed(let failure) = report.verdict { failure } else { nil }
    }

    // MARK: interleavings

    @Test(
        .enabled(if: hasCPU, noCPU),
        arguments: [
            // One call each, in either order.
            ("host convert 0 private => a\nhost1 convert 0 shared => b", ["a = ok, b = ok"]),
            // The access holds its reference before the bytes are copied, and no conversion can remove the page in
            // between.
            (
                "host convert 0 private => a\nhost1 read 0 => b",
                ["a = EAGAIN at 0, b = 0x0", "a = ok, b = 0x0", "a = ok, b = SIGBUS"]
            ),
            // A vCPU holds no reference: its page is converted during the access.
            ("host convert 0 private => a\nvcpu0 read 0 => b", ["a = ok, b = 0x0"]),
            // A store and a load each. As system calls on x86 they never both see the old value.
            (
                "host write 0 1\nhost read 1 => a\nhost1 write 1 1\nhost1 read 0 => b",
                ["a = 0x0, b = 0x1", "a = 0x1, b = 0x0", "a = 0x1, b = 0x1"]
            ),
            // A hole removes the page before the write.
            ("host punch 0\nhost1 write 0 7\nhost1 read 0 => a", ["a = 0x0", "a = 0x7"]),
            // A fill stops at the converted page.
            (
                "host convert 1 private => a\nhost1 fill 0..2 7 => b",
                ["a = EAGAIN at 1, b = ok", "a = ok, b = SIGBUS at 1", "a = ok, b = ok"]
            ),
            (
                "host hold 0 as h => a\nhost release h\nhost1 convert 0 private => b",
                ["a = EFAULT, b = ok", "a = ok, b = EAGAIN at 0", "a = ok, b = ok"]
            ),
            ("vcpu0 hypercall 0 private => a\nvcpu1 hypercall 0..1 shared => b", ["a = ok, b = ok"]),
        ])
    func theModelsSetIsExact(_ body: String, _ expected: [String]) throws {
        let report = Runner(SoftKVM()).report(try source("parallel\n\(body)\nend"))
        #expect(outcomes(report) == expected)
        if !body.contains("release") { #expect(report.verdict == .passed, "\(report)") }
    }

    /// Merging equal states neither loses nor adds outcomes.
    @Test func mergingChangesNoSet() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("interleavings, seed \(seed)")
        var generator = Generator(seed: seed)
        let actions = [
            "convert 0 private", "convert 0..1 shared", "convert 1 private", "write 0 7", "read 0", "read 1",
            "fill 0..1 9", "punch 0", "hold 1 as h", "release h", "madvise 0..1 dontneed", "unbind slot 0",
        ]
        var compared = 0
        for number in 0..<40 {
            var lines: [String] = []
            var results = 0
            var holds = 0
            for actor in ["host", "host1", "host2"].prefix(2 + generator.below(2)) {
                for _ in 0...generator.below(2) {
                    var action = actions[generator.below(actions.count)]
                    if action.hasPrefix("release") { action = "read 1" }
                    if action.hasPrefix("hold") {
                        holds += 1
                        action += "\(holds)"
                    }
                    results += 1
                    lines.append("\(actor) \(action) => r\(results)")
                }
            }
            let test = try source(
                "parallel\n" + lines.joined(separator: "\n") + "\nend\nhost read 0 => 0 or 7 or 9 or SIGBUS")
            let model = SoftKVM.Configuration()
            var merged = Interleavings(test, on: model, TestDeadline())
            var every = Interleavings(test, on: model, TestDeadline(), merges: false, mostPieces: 20_000)
            // Some tests have too many interleavings to explore one by one.
            guard let long = try? every.explore().endings else { continue }
            let short = try merged.explore().endings
            #expect(short == long, "seed \(seed), test \(number):\n\(test.test.text)")
            compared += long.count
        }
        #expect(compared > 5)
    }

    @Test(.enabled(if: hasCPU, noCPU)) func threeActorsOfFourStepsAreExplored() throws {
        let actors = ["host", "host1", "vcpu0"]
        let steps = ["convert 0..1 private", "write 0 7", "convert 0..3 shared", "read 2"]
        let lines = actors.enumerated().flatMap { number, actor in
            steps.enumerated().map { index, step in
                let step = actor == "vcpu0" && step.hasPrefix("convert") ? "write \(index) 9" : step
                return "\(actor) \(step) => r\(number)_\(index)"
            }
        }
        let runner = Runner(SoftKVM(), .init(timeLimit: .seconds(800)))
        let report = runner.report(try source("parallel\n" + lines.joined(separator: "\n") + "\nend"))
        #expect(report.verdict == .passed && report.cut == nil)
        #expect(report.blocks.first?.states ?? 0 > 100)
    }

    @Test func clausesAreJudged() throws {
        let race = "parallel\nhost convert 0 private => a\nhost1 read 0 => b\n"
        func verdict(_ clauses: String) throws -> Failure? {
            failure(Runner(SoftKVM()).report(try source(race + clauses + "\nend")))
        }
        #expect(try verdict("forbidden a = ok, b = 0x7") == nil)
        #expect(try verdict("forbidden a = ok, b = SIGBUS")?.seen == "a = ok, b = SIGBUS")
        #expect(try verdict("allowed a = ok\nallowed a = EAGAIN at 0, b = 0") == nil)
        #expect(try verdict("allowed a = ok")?.seen == "a = EAGAIN at 0, b = 0x0")
        #expect(try verdict("required b = SIGBUS\nrequired a = EAGAIN at 0") == nil)
        let missing = try verdict("required b = 0x7")
        #expect(missing?.expected == "an interleaving with b = 0x7")
        #expect(missing?.line == 4)
    }

    @Test func whatFollowsABlockIsPartOfEachInterleaving() throws {
        let both = "parallel\nhost write 0 1\nhost1 write 0 2\nend\n"
        #expect(Runner(SoftKVM()).report(try source(both + "host read 0 => 1 or 2")).verdict == .passed)
        let wrong = failure(Runner(SoftKVM()).report(try source(both + "host read 0 => 1")))
        #expect(wrong?.seen == "0x2")
        #expect(wrong?.line == 7)
    }

    /// References of vCPUs between finding a page and mapping it (hazard H2).
    @Test(.enabled(if: hasCPU, noCPU), arguments: ABIProfile.allCases)
    func vCPUFaultsBlockConversionsInPostedVersionsOnly(_ abi: ABIProfile) throws {
        let body = "parallel\nvcpu0 read 0\nhost convert 0 private => a\nend"
        let report = Runner(SoftKVM(.init(abi: abi))).report(try source(body))
        #expect(outcomes(report) == (abi == .linux74 ? ["a = ok"] : ["a = EAGAIN at 0", "a = ok"]))
    }

    // MARK: threads on a real kernel

    @Test(.enabled(if: real != nil && hasCPU, noReal), arguments: [1, 200])
    func aRealKernelStaysInTheModelsSet(_ runs: Int) throws {
        let backend = try #require(Self.real)
        let body = """
            host write 0 0x41
            parallel
            host  convert 0 private => a
            host1 read 0            => b
            vcpu0 write 0 0x42      => c
            allowed a = ok, c = ok
            end
            vcpu0 read 0 => 0x42
            """
        let report = Runner(backend, .init(runs: runs, seed: 7)).report(try source(body))
        #expect(report.verdict == .passed, "\(report)")
        let block = try #require(report.blocks.first)
        #expect(block.runs == runs)
        #expect(block.outcomes.compactMap(\.count).reduce(0, +) == runs)
        #expect(block.outcomes.allSatisfy { $0.isInModel == true })
    }

    @Test(.enabled(if: real != nil, noReal)) func outcomesOfThreadsAreJudged() throws {
        let backend = try #require(Self.real)
        let report = Runner(backend, .init(runs: 50)).report(
            try source("parallel\nhost write 0 1 => a\nhost1 write 1 2 => b\nforbidden a = ok, b = ok\nend"))
        #expect(failure(report)?.seen == "a = ok, b = ok, in 50 of 50 runs")
        // A step without a name must end as expected in every run.
        let late = Runner(backend, .init(runs: 50)).report(
            try source("parallel\nhost write 0 1\nhost1 convert 1 private flags 1\nend"))
        #expect(failure(late)?.seen == "EINVAL")
    }

    /// A run may use the machine of the previous run, which must be in its initial state.
    @Test(.enabled(if: real != nil && hasCPU, noReal)) func runsAreIndependent() throws {
        let backend = try #require(Self.real)
        let body = """
            host check 0..3 0
            host convert 3 private
            vcpu0 read 3 => 0
            vcpu0 write 3 9
            parallel
            host fill 0..2 7
            vcpu1 write 1 8
            host1 hold 2 as h
            end
            """
        let report = Runner(backend, .init(runs: 30)).report(try source(body))
        #expect(report.verdict == .passed, "\(report)")
    }

    // MARK: other steps

    @Test func aChildInheritsViews() throws {
        let body = """
            host write 1 0x41
            host fork child
            child read 1 => 0x41
            child write 1 0x42
            host read 1 => 0x42
            host convert 1 private => ok
            child read 1 => SIGBUS
            child fill 0..2 7 => SIGBUS at 1
            child check 0 7
            """
        #expect(Runner(SoftKVM()).run(try source(body)) == .passed)
    }

    @Test(.enabled(if: real != nil, noReal)) func aRealChildIsAnotherProcess() throws {
        let body = """
            host write 1 0x41
            host fork child
            child read 1 => 0x41
            child write 1 0x42
            host read 1 => 0x42
            child fill 0..3 7
            host check 0..3 7
            host map 0..3 as late
            host unmap late
            child check 0..3 7
            """
        let test = try source(body, "vm default\nmemory 4 pages shared unbound")
        #expect(Runner(try LinuxKVM()).run(test) == .passed)
        // The child has no view that was created later.
        let later = try source(
            "host fork child\nhost map 0 as v\nchild read v:0", "vm default\nmemory 1 pages shared unbound")
        let failure = failure(Runner(try LinuxKVM()).report(later))
        #expect(failure?.seen.contains("there was none when it was forked") == true)
        // An adapter guards the mappings of one process only.
        let backend = try #require(Self.real)
        guard case .skipped(let reason) = Runner(backend).run(try source("host fork child\nchild read 0"))
        else {
            Issue.record("not skipped")
            return
        }
        #expect(reason.contains("MemslotTrapKVM"))
    }

    @Test(
        .enabled(if: hasCPU, noCPU),
        arguments: [
            ("vcpu0 hypercall 0..3 private => ok\nhost read 3 => SIGBUS", nil),
            ("host hold 2 as h\nvcpu0 hypercall 0..3 private => EAGAIN at 2\nhost read 0", nil),
            ("vcpu0 hypercall 3..4 private => EINVAL", nil),
            ("vcpu0 hypercall 0 attributes 0x400 => EINVAL", nil),
            ("vcpu0 hypercall 0 private => EAGAIN at 0", "ok"),
        ] as [(String, String?)]) func aGuestRequestsConversions(_ body: String, _ seen: String?) throws
    {
        for backend in [SoftKVM(), MemslotTrapKVM(over: SoftKVM())] as [any Backend] {
            let verdict = Runner(backend).run(try source(body))
            if let seen {
                guard case .failed(let failure) = verdict else { return #expect(Bool(false), "\(verdict)") }
                #expect(failure.seen == seen)
            } else {
                #expect(verdict == .passed, "\(backend.identity)")
            }
        }
    }

    @Test(
        arguments: [
            ("host convert 0 private struct unmapped => EFAULT\nhost read 0", nil),
            ("host convert 0 private struct cut => EFAULT\nhost read 0", nil),
            ("host convert 0 private struct readonly => ok\nhost read 0 => SIGBUS", nil),
            ("host hold 0 as h\nhost convert 0 private struct readonly => EFAULT\nhost read 0", nil),
            (
                "host write 0 7\nhost convert 0 private zero\nhost convert 0 shared preserve\nhost read 0 => 0",
                nil
            ),
            (
                "host write 0 7\nhost convert 0 private unspecified\nhost convert 0 shared zero\nhost read 0 => 0",
                nil
            ),
            ("host hold 1 as h\nhost convert 0..3 private zero => EAGAIN at 1\nhost write 0 7", nil),
            ("host write 0 7\nhost madvise 0..3 dontneed\nhost read 0 => 7", nil),
            ("host write 0 7\nhost madvise 0 remove\nhost read 0 => 0", nil),
            ("host convert 1 private\nhost madvise 0..1 populate_read => EFAULT", nil),
            ("host madvise 0..1 populate_write\nhost madvise 0 collapse => EINVAL", nil),
            ("host madvise @1+4096 dontneed => EINVAL", nil),
        ] as [(String, Int?)]) func modelAndBackendAgree(_ body: String, _: Int?) throws
    {
        #expect(Runner(SoftKVM()).run(try source(body)) == .passed)
    }

    static let aliases = """
        vcpu0 write 1 0x41
        vcpu0 read shared:1 => fault shared at 1
        host convert 1 shared
        vcpu0 again => 0x41
        host read 1 => 0x41
        vcpu0 write 1 0x42 => fault private at 1
        vcpu0 again => fault private
        host convert 1 private
        vcpu0 again => ok
        vcpu0 read 1 => 0x42
        """

    @Test(.enabled(if: hasCPU, noCPU)) func anAccessThroughTheWrongAliasCanBeRepeated() throws {
        let test = try source(Self.aliases, "aliases two\nmemory 4 pages private")
        let backends = [SoftKVM(), MemslotTrapKVM(over: SoftKVM()), Self.real].compactMap { $0 }
        for backend in backends as [any Backend] {
            #expect(Runner(backend).run(test) == .passed, "\(backend.identity)")
        }
    }

    @Test(.enabled(if: hasCPU, noCPU)) func mappedPagesAreCounted() throws {
        let body = """
            vcpu0 fill 0..2 1
            host convert 1..3 private
            host zapped => 2
            host convert 1..3 private
            host zapped => 2
            host fill 0 1
            host present 0..3 => 1
            host hold 0 as h
            host convert 0..3 private => EAGAIN at 0
            host present 0..3 => 0
            host extension 252 => 8
            host extension 9999 => 0
            """
        #expect(Runner(SoftKVM()).run(try source(body)) == .passed)
    }

    /// A VM that no memory of the test is on is created when the first actor needs it.
    @Test func concurrentActorsShareAVM() throws {
        let test = try source("host read 0").test
        let team = try #require(ThreadTeam(4))
        defer { team.end() }
        for _ in 0..<300 {
            let world = try World(BackendFacts(SoftKVM()), test, TestDeadline())
            defer { world.close() }
            let seen = Mutex<Set<ObjectIdentifier>>([])
            team.run { _ in
                if let vm = try? world.vm(.second) { seen.withLock { _ = $0.insert(ObjectIdentifier(vm)) } }
            }
            #expect(seen.withLock { $0.count } == 1)
        }
    }

    // MARK: limits

    /// A vCPU that never returns, on a kernel that converts.
    @Test(.enabled(if: real != nil, noReal)) func aHangingStepIsNamed() throws {
        let backend = HangingBackend(try LinuxKVM())
        let runner = Runner(backend, .init(timeLimit: .milliseconds(300)))
        let failure = failure(
            runner.report(try source("host write 0 1\nvcpu0 read 0", "vm default\nmemory 1 pages shared")))
        #expect(failure?.lines == ["vcpu0 read 0", "timed out after 0.3 s"])
    }

    @Test(arguments: [
        ("host check 0 1 => a", "use `read`"), ("vcpu0 fill 0 1 => a", "use `write`"),
        ("host fork child", "before the parallel block"), ("host convert 0 private zero", "another step"),
    ]) func aBlockHasOnlyAtomicSteps(_ line: String, _ message: String) throws {
        do {
            _ = try source("parallel\n\(line)\nend")
            Issue.record("accepted")
        } catch let error as SyntaxError {
            #expect(error.line == 4)
            #expect(error.message.contains(message))
        }
    }
}
