// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

/// Steps that make many calls: `every N of EXTENT`.
@Suite("Patterns", .timeLimit(.minutes(120)))
struct PatternTests {
    private func source(_ body: String, memory: String = "memory 8 pages shared") throws -> Source {
        try Source(parsing: "test \"x\"\n\(memory)\n" + body)
    }

    private func failure(_ body: String, memory: String = "memory 8 pages shared") throws -> Failure? {
        guard case .failed(let failure) = Runner(SoftKVM()).run(try source(body, memory: memory)) else {
            return nil
        }
        return failure
    }

    private func passes(_ body: String, memory: String = "memory 8 pages shared") throws {
        let source = try source(body, memory: memory)
        #expect(Runner(SoftKVM()).run(source) == .passed, "\(body)")
        #expect(ModelRunner(configuration: .init()).run(source.test) == .passed, "\(body)")
        #expect(Runner(MemslotTrapKVM(over: SoftKVM())).run(source) == .passed, "\(body)")
    }

    // MARK: calls and outcomes

    @Test(
        arguments: [
            ("every 2 of 0..7", [0, 2, 4, 6]), ("every 3 of 1..7", [1, 4, 7]), ("every 1 of 5..6", [5, 6]),
            ("every 9 of 2..7", [2]), ("every 18446744073709551615 of 0..7", [0]),
        ] as [(String, [UInt64])])
    func aPatternIsOneCallForEachOfItsPages(_ pattern: String, _ pages: [UInt64]) throws {
        var body = "host convert \(pattern) private\n"
        for page in 0..<8 as Range<UInt64> {
            body += "host read \(page) => \(pages.contains(page) ? "SIGBUS" : "0x0")\n"
        }
        try passes(body)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func theFirstFailureIsNamed() throws {
        try passes(
            """
            host hold 5 as h
            host hold 7 as i
            host convert every 2 of 1..7 private => EAGAIN at 5
            host read every 1 of 0..7 => SIGBUS at 1
            host read every 2 of 0..7 => 0x0
            host read 7 => 0x0
            host write every 2 of 4..7 0x41
            host write every 1 of 2..7 0x42 => SIGBUS at 3
            host read 4 => 0x41
            host read every 2 of 2..4 => differs at 4
            host check every 2 of 0..7 0 => differs at 2
            host fill every 2 of 4..7 0x43
            host check every 2 of 4..7 0x43
            host punch every 2 of 0..7
            host read every 2 of 0..7 => 0x0
            host allocate every 4 of 0..11 => EINVAL at 8
            host convert every 5 of 0..10 shared => EINVAL at 10
            host madvise every 2 of 0..7 dontneed
            vcpu0 write every 3 of 0..7 0x44
            vcpu1 read every 3 of 0..7 => 0x44
            host read every 6 of 0..7 => 0x44
            """)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func otherActorsMakePatterns() throws {
        let others = try source(
            """
            host fork child
            child write every 2 of 0..7 0x41
            vcpu0 hypercall every 4 of 0..7 private
            child read every 4 of 2..7 => 0x41
            child read every 2 of 0..7 => SIGBUS at 0
            host convert every 1 of guest:2..4 private preserve
            host read every 2 of 5..7 => 0x0
            """)
        #expect(Runner(SoftKVM()).run(others) == .passed)
        let faulting = try source(
            """
            vcpu0 read every 2 of 0..3 => fault private at 0
            host convert 0 private
            vcpu0 again => 0x0
            vcpu1 write every 2 of shared:4..7 0x41
            vcpu1 write every 1 of 0..7 0x42 converting preserve
            host read 0 => SIGBUS
            """, memory: "aliases two\nmemory 8 pages shared")
        #expect(Runner(SoftKVM()).run(faulting) == .passed)
    }

    @Test func aFailureShowsThePagesAroundIt() throws {
        let failure = try #require(
            try failure(
                "host convert 600 private\nhost read every 2 of 0..999 => 0x0",
                memory: "memory 1000 pages shared"))
        #expect(failure.seen == "SIGBUS at 600")
        #expect(failure.pages.contains { $0.hasPrefix("page 600 of ram: private") }, "\(failure.pages)")
    }

    // MARK: the text

    @Test func refusedPatterns() throws {
        func message(_ step: String) -> String? {
            do throws(SyntaxError) {
                return try Source(parsing: "test \"x\"\nmemory 65536 pages shared\n" + step).impossibility()?
                    .description
            } catch {
                return error.description
            }
        }
        let actions =
            "`convert`, `read`, `write`, `fill`, `check`, `punch`, `allocate`, `madvise`, `hypercall`, "
            + "`vm_attributes`"
        let cases = [
            ("host convert every 0 of 0..9 private", "3:14: `every` needs a number of pages of at least 1"),
            (
                "host convert evry 2 of 0..9 private",
                "3:14: expected a place, found `evry`; did you mean every?"
            ),
            ("host convert every 2 0..9 private", "3:22: expected `of`, found the number 0"),
            (
                "host hold every 2 of 0..9 as h",
                "3:11: `hold` cannot be repeated with `every`, which is for \(actions)"
            ),
            (
                "host madvise every 2 of 0..9 hwpoison",
                "3:14: `madvise 0 hwpoison` cannot be repeated with `every`"
            ),
            (
                "host convert every 2 of @1+4096 private",
                "3:1: `every` is for whole pages, which @0x1+4096 is not"
            ),
            (
                "host write every 1 of 0..16384 1",
                "3:1: `every 1 of 0..16384` is 16385 calls, and one step accesses at most 16384 pages (64 MiB): "
                    + "use a larger distance, a smaller range, or several steps"
            ),
            (
                "host convert every 1 of 0..1048576 private",
                "3:1: `every 1 of 0..1048576` is 1048577 calls, and one step makes at most 1048576 calls: use a "
                    + "larger distance, a smaller range, or several steps"
            ),
            (
                "vcpu0 hypercall every 1 of 0..65536 private",
                "3:1: `every 1 of 0..65536` is 65537 calls, and one step of a vCPU makes at most 65536 calls: use a "
                    + "larger distance, a smaller range, or several steps"
            ),
            ("host read every 2 of 0..9 => ok", "3:1: `read every 2 of 0..9` cannot end with `ok`"),
            ("host hypercall every 2 of 0..9 private", "3:1: only a vCPU can make a hypercall"),
            ("child read every 2 of 0..9", "3:1: child must be forked first"),
            (
                "parallel\nhost convert every 2 of 0..9 private => a\nhost1 read 0 => b\nend",
                "4:1: `every` is many calls, not one: write it before or after the parallel block"
            ),
        ]
        for (step, expected) in cases { #expect(message(step) == expected, "\(step)") }
    }

    @Test func aWrittenPatternReadsBack() throws {
        let body = """
            host      convert every 2 of 0..65535 private
            host      convert every 3 of 0..7 private preserve bisect => EAGAIN at 3
            host      write every 1 of 0..7 0x41
            child     check every 0x10 of 1 0x0
            """
        let text = "test \"x\"\nmemory 8 pages shared\nhost fork child\n" + body
        let source = try Source(parsing: text)
        #expect(try Source(parsing: source.test.text).test == source.test)
        #expect(source.test.steps[1].action.description == "convert every 2 of 0..65535 private")
        #expect(source.test.steps[4].action.description == "check every 16 of 1 0x0")
        // An action on another page than the first has no written form.
        var test = source.test
        test.body = [
            .step(
                Step(
                    .host(0),
                    .every(Pattern(every: 2, of: Extent(pages: 0...7)), .punch(Extent(pages: 1...1)))))
        ]
        #expect(test.firstProblem()?.message.hasPrefix("`every` is for `convert`") == true)
        #expect(Action.every(2, of: Extent(pages: 0...7), .zapped) == nil)
    }

    // MARK: shrinking

    @Test func aPatternShrinks() throws {
        let large = try source(
            "host convert every 4 of 100..9999 private", memory: "memory 10000 pages shared"
        ).test
        // At least five calls, one of them beyond page 300.
        let small = Shrinker { test in
            test.steps.contains { step in
                guard case .every(let pattern, .convert) = step.action, let count = pattern.count else {
                    return false
                }
                return count >= 5 && pattern.extent.offset + pattern.extent.size > 300 * pageSize
            }
        }.shrink(large)
        guard case .every(let pattern, _) = try #require(small.steps.first).action else {
            Issue.record("\(small.text)")
            return
        }
        #expect(
            small.steps.count == 1 && pattern.count == 5 && pattern.extent.pages?.last == 300, "\(small.text)"
        )
        let none = Shrinker { test in
            test.steps.contains { if case .convert = $0.action.single { true } else { false } }
        }.shrink(large)
        #expect(
            none.steps.first?.action == .convert(Conversion(Extent(pages: 0...0), to: .private)),
            "\(none.text)")
    }
}
