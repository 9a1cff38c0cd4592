// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

/// Tests in which the monitor converts on a memory fault, as `run --on-fault convert` does.
@Suite("Accesses that convert on a memory fault", .timeLimit(.minutes(120)))
struct ConvertingTests {
    private func source(_ body: String, _ head: String = "aliases two\nmemory 4 pages private") throws
        -> Source
    {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private static let backends: [any Backend] = [
        SoftKVM(), MemslotTrapKVM(over: SoftKVM()), ParallelTests.real,
    ].compactMap { $0 }

    static let bodies = [
        // To shared and back, with the byte preserved.
        """
        vcpu0 write 1 0x41
        vcpu0 read shared:1 converting preserve => 0x41
        host read 1 => 0x41
        host read 0 => SIGBUS
        vcpu1 write 1 0x42 converting preserve
        host read 1 => SIGBUS
        vcpu0 read 1 => 0x42
        """,
        // A page in the requested state is not converted.
        """
        vcpu0 write 0 0x41 converting zero
        vcpu0 read 0 converting zero => 0x41
        host read 0 => SIGBUS
        """,
        """
        vcpu0 write 0 0x41
        vcpu0 read shared:0 converting zero => 0
        vcpu0 write shared:0 0x42 converting zero
        vcpu0 read 0 converting zero bisect attempts 2 chunk 1 => 0
        """,
        // The access completes after the page is released, with the same policy.
        """
        host convert 0..1 shared
        host write 0 0x43
        host hold 0 as h
        vcpu0 read 0 converting preserve => EAGAIN at 0
        vcpu0 again => EAGAIN at 0
        host read 0 => 0x43
        host release h
        vcpu0 again => 0x43
        host read 0 => SIGBUS
        vcpu0 read 0 => 0x43
        """,
        """
        host convert 0..1 shared
        host hold 1 as h
        vcpu0 write 1 7 converting unspecified bisect attempts 3 => EAGAIN at 1
        host convert 0 private
        host release h
        host convert 1 private
        vcpu0 again
        vcpu0 read 1 => 7
        """,
        // Each page of an access has its own fault.
        """
        vcpu0 fill 0..3 5
        vcpu1 fill shared:1..2 6 converting preserve
        host read 1 => 6
        host read 3 => SIGBUS
        vcpu0 check 0..3 5 converting preserve => differs at 1
        host read 1 => SIGBUS
        host read 2 => 6
        vcpu1 check shared:1..2 6 converting preserve
        host check 1..2 6
        """,
        """
        host convert 1 shared
        host hold 1 as h
        vcpu0 fill 0..2 5 converting preserve => EAGAIN at 1
        host release h
        host convert 1 private
        vcpu1 check 0 5
        """,
        // With several regions or memslots, the page is converted in its file.
        """
        host create f 2 pages mmap
        host map f:0..1 as f
        host bind slot 5 to f:0..1 at 16
        vcpu0 write shared:17 9 converting preserve
        host read f:1 => 9
        host read f:0 => SIGBUS
        """,
        // An access without a policy exits with the fault.
        """
        vcpu0 read shared:0 => fault shared at 0
        vcpu1 read shared:0 converting preserve => 0
        vcpu0 again => 0
        """,
    ]

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: bodies)
    func backendsAgreeWithTheModel(_ body: String) throws {
        let test = try source(body)
        for backend in Self.backends {
            #expect(Runner(backend).run(test) == .passed, "\(backend.identity)")
        }
        #expect(ModelRunner(configuration: .init()).run(test.test) == .passed)
    }

    /// A machine can be used again after a vCPU was stopped by a failed conversion.
    @Test(.enabled(if: ParallelTests.real != nil && RunnerTests.hasCPU, ParallelTests.noReal))
    func machinesAreUsedAgain() throws {
        let runner = Runner(try #require(ParallelTests.real))
        for body in Self.bodies + Self.bodies { #expect(runner.run(try source(body)) == .passed) }
        #expect(runner.contradicted == 0)
    }

    // MARK: no conversion

    /// With one alias a fault asks for no conversion, and the vCPU enters again until the access is given up.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func oneAliasNeedsNoConversion() throws {
        let test = try source(
            """
            vcpu0 write 0 0x41 converting zero
            host convert 0 shared
            vcpu0 read 0 converting zero => 0x41
            host create f 1 pages mmap init_shared
            host bind slot 1 to f:0 at 16
            host close f
            vcpu0 read 16 converting preserve => fault shared at 16
            """, "memory 1 pages private")
        let backend = SoftKVM()
        #expect(Runner(backend).run(test) == .passed)
        #expect(ModelRunner(configuration: .init()).run(test.test) == .passed)
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aClosedFileCannotBeConverted() throws {
        let test = try source(
            """
            host create f 1 pages mmap
            host bind slot 1 to f:0 at 16
            host close f
            vcpu0 read shared:16 converting preserve => EBADF
            """)
        #expect(Runner(SoftKVM()).run(test) == .passed)
        #expect(ModelRunner(configuration: .init()).run(test.test) == .passed)
    }

    /// Conversions without an effect are not repeated for ever.
    @Test(
        .enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU),
        arguments: [
            (PlantedFault.faultNamesNextPage, "vcpu0 read shared:0 converting preserve", "fault shared at 1"),
            (.faultFlagWrong, "vcpu0 read shared:0 converting preserve", "fault private at 0"),
            (.untouchedPagesForgotten, "vcpu0 read shared:0 converting preserve", "fault shared at 0"),
        ])
    func endlessFaultsAreGivenUp(_ fault: PlantedFault, _ line: String, _ seen: String) throws {
        let configuration = SoftKVM.Configuration(plantedFaults: [fault])
        let test = try source(line)
        for verdict in [
            Runner(SoftKVM(configuration)).run(test),
            ModelRunner(configuration: configuration).run(test.test),
        ] {
            guard case .failed(let failure) = verdict else {
                Issue.record("\(verdict)")
                continue
            }
            #expect(failure.seen == seen)
            #expect(failure.text == line)
        }
        // In a parallel block they end, too.
        let block = try source("parallel\n\(line) => a\nhost1 read 3 => b\nend")
        let report = Runner(SoftKVM(configuration)).report(block)
        #expect(report.blocks.flatMap(\.outcomes).map(\.text) == ["a = \(seen), b = SIGBUS"])
    }

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func unpreservedContentsSkipTheTest() throws {
        var configuration = SoftKVM.Configuration()
        configuration.contentPromise = .lost
        func verdict(_ line: String) throws -> Verdict {
            let test = try source(line)
            let verdict = Runner(SoftKVM(configuration)).run(test)
            #expect(ModelRunner(configuration: configuration).run(test.test) == verdict)
            return verdict
        }
        guard case .skipped = try verdict("vcpu0 read shared:0 converting preserve") else {
            Issue.record("not skipped")
            return
        }
        #expect(try verdict("vcpu0 read shared:0 converting preserve => EOPNOTSUPP") == .passed)
        #expect(
            try verdict("vcpu0 read shared:0 converting preserve => EOPNOTSUPP\nvcpu0 again => EOPNOTSUPP")
                == .passed)
        #expect(try verdict("vcpu0 read shared:0 converting unspecified => 0") == .passed)
    }

    // MARK: parallel blocks

    private func outcomes(_ body: String, _ before: String = "") throws -> [String] {
        let report = Runner(SoftKVM()).report(try source("\(before)\nparallel\n\(body)\nend"))
        return report.blocks.flatMap(\.outcomes).map(\.text)
    }

    @Test(
        .enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU),
        arguments: [
            // Both vCPUs complete their access, though each undoes the other's conversion.
            (
                "vcpu0 write 0 1 converting preserve => a\nvcpu1 write shared:0 2 converting preserve => b",
                "",
                ["a = ok, b = ok"]
            ),
            // A thread that reads holds the page when it is to become private.
            (
                "vcpu0 write 0 1 converting preserve => a\nhost read 0 => r", "host convert 0 shared",
                [
                    "a = EAGAIN at 0, r = 0x0", "a = ok, r = 0x0", "a = ok, r = SIGBUS",
                ]
            ),
            // The host converts before the fault, after it, or after the access.
            (
                "vcpu0 read shared:0 converting preserve => a\nhost convert 0 shared => b", "vcpu0 write 0 7",
                ["a = 0x7, b = ok"]
            ),
            (
                "host release h => x\nvcpu0 again => a",
                """
                host convert 0 shared
                host hold 0 as h
                vcpu0 write 0 0x41 converting preserve => EAGAIN at 0
                """, ["x = ok, a = EAGAIN at 0", "x = ok, a = ok"]
            ),
        ])
    func theModelsSetIsExact(_ body: String, _ before: String, _ expected: [String]) throws {
        #expect(try outcomes(body, before) == expected)
    }

    /// Computes the same set in another way: a breadth-first search over states with the results so far, which cycles
    /// do not affect.
    @Test func cyclesLoseNoEnding() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("cycles, seed \(seed)")
        var generator = Generator(seed: seed)
        let accesses = [
            "read 0", "read shared:0", "write 0 1", "write shared:0 2", "write shared:1 3", "read 1",
        ]
        let others = [
            "convert 0 private", "convert guest:0..1 shared preserve", "read 0", "hold 0 as h", "punch 0",
        ]
        var repeats = 0
        for number in 0..<40 {
            var lines: [String] = []
            // A vCPU whose conversion fails has no next step.
            let actors = ["vcpu0", "vcpu1", "host"].prefix(2 + generator.below(2))
            for actor in actors {
                let isHost = actor == "host"
                for _ in 0...(isHost || actors.count == 2 ? generator.below(3) : 0) {
                    var action = isHost ? others[generator.below(5)] : accesses[generator.below(6)]
                    if action.hasPrefix("hold") { action += "\(lines.count)" }
                    if !isHost {
                        action += generator.below(2) == 0 ? " converting preserve" : " converting unspecified"
                    }
                    lines.append("\(actor) \(action) => r\(lines.count)")
                }
            }
            let test = try source(
                "parallel\n" + lines.joined(separator: "\n") + "\nend\nhost read 1 => 0 or 3 or SIGBUS")
            var interleavings = Interleavings(test, on: .init(), TestDeadline())
            let endings = try interleavings.explore().endings
            var seen: [Interleavings.Key: Set<Ending>] = [:]
            var queue = [(try interleavings.start(), Ending(failure: nil))]
            var found: Set<Ending> = []
            while let (cursor, results) = queue.popLast() {
                guard let block = interleavings.block(at: cursor) else {
                    var ending = results
                    ending.failure = cursor.failure
                    found.insert(ending)
                    continue
                }
                guard seen[interleavings.key(of: cursor), default: []].insert(results).inserted else {
                    repeats += 1
                    continue
                }
                for actor in cursor.actors(of: block) {
                    var there = cursor
                    var results = results
                    if let result = try interleavings.advance(actor, &there) {
                        results[result.place] = result.outcome
                    }
                    queue.append((there, results))
                }
            }
            #expect(found == endings, "seed \(seed), test \(number):\n\(test.test.text)")
        }
        #expect(repeats > 0)
    }

    @Test(.enabled(if: ParallelTests.real != nil && RunnerTests.hasCPU, ParallelTests.noReal))
    func threadsStayInTheModelsSet() throws {
        let backend = try #require(ParallelTests.real)
        for body in [
            """
            vcpu0 write 0 1 converting preserve => a
            vcpu1 write shared:0 2 converting preserve => b
            vcpu0 read 0 converting preserve => c
            vcpu1 read shared:0 converting preserve => d
            """,
            """
            vcpu0 write 0 1 converting unspecified => a
            host convert guest:0..3 shared unspecified => b
            host1 read 0 => c
            """,
        ] {
            let report = Runner(backend, .init(runs: 200, seed: 3)).report(
                try source("parallel\n\(body)\nend"))
            #expect(report.verdict == .passed, "\(report)")
            #expect(report.blocks.first?.outcomes.allSatisfy { $0.isInModel == true } == true)
        }
    }

    // MARK: the oracle

    /// If the conversion runs out of memory, the access is not made.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func aConversionMayRunOutOfMemory() throws {
        let test = try source(
            """
            vcpu0 write shared:1 7 converting preserve
            vcpu0 again
            vcpu0 fill shared:0..2 8 converting preserve
            """
        ).test
        let steps = test.steps
        func noMemory(_ page: UInt64) -> StepOutcome { .errno(12, at: page * 4096) }
        var oracle = try Oracle(test)
        #expect(try oracle.answers(to: steps[0]) == .init(model: .ok, others: [noMemory(1)]))
        #expect(try oracle.follow(steps[0], noMemory(1)))
        #expect(oracle.state(of: Place(page: 1)) == .private)
        #expect(try oracle.answers(to: steps[1]) == .init(model: .ok, others: [noMemory(1)]))
        #expect(try oracle.follow(steps[1], .ok))
        #expect(oracle.visible(of: Place(page: 1), by: .host(0)) == .byte(.known(7)))
        // Pages 0 and 2, and the bytes filled before.
        #expect(try oracle.answers(to: steps[2]) == .init(model: .ok, others: [noMemory(0), noMemory(2)]))
        #expect(try oracle.follow(steps[2], noMemory(2)))
        #expect(oracle.visible(of: Place(page: 1), by: .host(0)) == .byte(.known(8)))
        #expect(oracle.state(of: Place(page: 2)) == .private)
    }

    // MARK: exploration

    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU)) func exploringConvertsOnFaults() throws {
        let summary = Exploration(
            SoftKVM(), .init(depth: 1, tests: 300, parallelTests: 30, seed: 2, timeLimit: .seconds(300))
        ).run()
        #expect(summary.findings.map(\.failure.description) == [])
        #expect(summary.coverage["vcpu read converting"]?.count ?? 0 >= 2)
        #expect(summary.coverage["vcpu write converting"]?["ok"] ?? 0 > 0)
    }

    /// Shrinking keeps the fault policy only where the finding depends on it.
    @Test func thePolicyIsDroppedWhereItIsNotNeeded() throws {
        let large = try source(
            """
            vcpu2 write 3 1 converting zero bisect attempts 5
            vcpu1 read shared:2 converting preserve bisect chunk 2
            """
        ).test
        func shrink(_ shows: @escaping (Step) -> Bool) -> LitmusTest {
            Shrinker { $0.steps.contains(where: shows) }.shrink(large)
        }
        let plain = shrink { if case .read = $0.action { true } else { false } }
        #expect(plain.steps == [Step(.vcpu(0), .read(Place(.shared, page: 0)))])
        let converting = shrink { $0.onFault?.contents == .preserve }
        #expect(
            converting.steps == [
                Step(.vcpu(0), .read(Place(.shared, page: 0)), onFault: FaultConversion(.preserve))
            ])
    }
}
