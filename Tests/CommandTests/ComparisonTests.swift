// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// `comparison` compares the results of two kernels for lab/compare.
@Suite(
    .enabled(
        if: Command.built("comparison") != nil, "needs the comparison executable next to the test bundle"))
struct ComparisonTests {
    /// The results of one kernel, as minivmm prints them.
    private struct Results {
        var costs: [(key: String, least: Int, median: Int, most: Int)]? = [
            ("unchanged/shared/1", 638, 638, 638)
        ]
        var tests: [String]? = [Self.passed("order")]
        var explore: String? = Self.explored()

        static func passed(_ name: String, _ outcomes: [(String, Int)] = []) -> String {
            let list = outcomes.map { #"{"results":"\#($0)","count":\#($1)}"# }.joined(separator: ",")
            let blocks = outcomes.isEmpty ? "" : #","blocks":[{"line":4,"outcomes":[\#(list)]}]"#
            return #"{"file":"litmus/\#(name).litmus","name":"\#(name)","verdict":"passed"\#(blocks)}"#
        }

        static func failed(_ name: String, seen: String) -> String {
            #"{"file":"\#(name).litmus","name":"","verdict":"failed","step":"host read 0","expected":"0x41","seen":"\#(seen)"}"#
        }

        static func skipped(_ name: String, _ reason: String) -> String {
            #"{"file":"\#(name).litmus","name":"","verdict":"skipped","reason":"\#(reason)"}"#
        }

        static func explored(_ answers: String = #""ok":7"#, findings: String = "") -> String {
            #"{"schema":"minivmm.explore/1","backend":"LinuxKVM","host":"Linux 7.3.4-lab","seed":1,"coverage":{"convert":{\#(answers)}},"end":"complete","findings":[\#(findings)]}"#
        }

        func write(to directory: URL) throws {
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            func file(_ name: String, _ text: String?) throws {
                try text.map { try Data($0.utf8).write(to: directory.appendingPathComponent(name)) }
            }
            try file(
                "costs.json",
                costs.map { costs in
                    let list = costs.map {
                        #"{"key":"\#($0.key)","median":\#($0.median),"least":\#($0.least),"most":\#($0.most)}"#
                    }
                    return
                        #"{"schema":"minivmm.costs/1","backend":"LinuxKVM (Linux 7.3.4-lab)","interface":"in-place","costs":[\#(list.joined(separator: ","))]}"#
                })
            try file(
                "litmus.json",
                tests.map {
                    #"{"schema":"minivmm.litmus/1","backend":"LinuxKVM","host":"Linux 7.3.4-lab","tests":[\#($0.joined(separator: ","))]}"#
                })
            try file("explore.json", explore)
        }
    }

    private func compare(_ a: Results, _ b: Results, _ options: String...) throws -> Command.Result {
        let scratch = try Scratch()
        try a.write(to: scratch.url.appendingPathComponent("a"))
        try b.write(to: scratch.url.appendingPathComponent("b"))
        return try Command.run(
            options + ["old.bzImage", scratch.path("a"), "new.bzImage@quiet", scratch.path("b")],
            tool: Command.built("comparison"))
    }

    @Test func theSameResultsAreTheSame() throws {
        let result = try compare(Results(), Results())
        #expect(result.status == 0 && result.diagnostics == "", "\(result)")
        #expect(result.output.contains("A  old.bzImage\n   LinuxKVM (Linux 7.3.4-lab), in-place\n"))
        #expect(result.output.contains("B  new.bzImage@quiet\n"))
        #expect(result.output.hasSuffix("No difference.\n"))
        let json = try #require(compare(Results(), Results(), "--json").json)
        #expect(json["schema"] as? String == "minivmm.comparison/1" && json["same"] as? Bool == true)
    }

    @Test func aCostDiffersIfTheRepetitionsDoNotOverlap() throws {
        var a = Results()
        var b = Results()
        a.costs = [
            ("unchanged/shared/1", 638, 638, 638), ("eagain/first/8", 8118, 8118, 20_901), ("old/1", 1, 1, 1),
            ("to-private/present/65536", 12_486_485, 12_486_945, 12_488_950),
            ("to-shared/never-touched/65536", 2614, 2614, 2614),
        ]
        b.costs = [
            ("unchanged/shared/1", 648, 648, 648), ("eagain/first/8", 8200, 8200, 8200), ("new/1", 2, 2, 2),
            ("to-private/present/65536", 12_486_000, 12_486_000, 12_486_484),
            ("to-shared/never-touched/65536", 29_092_528, 29_092_528, 29_092_528),
        ]
        let result = try compare(a, b)
        #expect(result.status == 1)
        let lines = result.output.split(separator: "\n").map(String.init)
        for line in [
            "costs in instructions                      A          B       B - A          %",
            "  unchanged/shared/1                     638        648         +10      +1.57",
            "  eagain/first/8                       8,118      8,200        same",
            "  to-private/present/65536        12,486,945 12,486,000        -945      -0.01",
            "  to-shared/never-touched/65536        2,614 29,092,528 +29,089,914 +1,112,851",
            "  old/1                                    1          -",
            "  new/1                                    -          2",
        ] { #expect(lines.contains(line), "\(line)\n\(result.output)") }
        #expect(result.output.contains("3 of 4 differ"))
        #expect(lines.allSatisfy { $0.count <= 80 })
        let json = try #require(compare(a, b, "--json").json)
        let costs = try #require(json["costs"] as? [[String: Any]])
        #expect(json["same"] as? Bool == false && costs.count == 6)
        #expect(costs[0]["difference"] as? Int == 10 && costs[0]["differs"] as? Bool == true)
        #expect(costs[1]["differs"] as? Bool == false)
    }

    @Test func litmusTestsDifferByVerdictAndByAnswer() throws {
        var a = Results()
        var b = Results()
        a.tests = [
            Results.passed("order"), Results.failed("bytes", seen: "0x42"),
            Results.skipped("tdx", "no TDX here"),
            Results.passed("gone"),
        ]
        b.tests = [
            Results.failed("order", seen: "EFAULT"), Results.failed("bytes", seen: "0x43"),
            Results.skipped("tdx", "no TDX there"),
        ]
        let result = try compare(a, b)
        #expect(result.status == 1)
        #expect(
            result.output.contains(
                """
                litmus tests: 3 of 4 are answered differently
                  order
                    A  passed
                    B  failed
                       step: host read 0
                       expected: 0x41
                       seen: EFAULT
                  bytes
                    A  failed
                """), "\(result.output)")
        #expect(result.output.contains("  gone\n    A  passed\n    B  not run\n"))
    }

    /// 20 runs against none are a difference, 19 may be luck.
    @Test func anOutcomeThatOnlyOneKernelHas() throws {
        var a = Results()
        var b = Results()
        a.tests = [Results.passed("race", [("c = ok", 180), ("c = EAGAIN at 0", 20)])]
        b.tests = [Results.passed("race", [("c = ok", 181), ("c = ENOMEM", 19)])]
        let result = try compare(a, b)
        #expect(result.status == 1)
        #expect(result.output.contains("line 4: c = EAGAIN at 0: A 20 times, B never"), "\(result.output)")
        #expect(!result.output.contains("ENOMEM"))
        a.tests = [Results.passed("race", [("c = ok", 181), ("c = EAGAIN at 0", 19)])]
        #expect(try compare(a, b).status == 0)
    }

    @Test func exploredStepsDifferByFindingAndByAnswer() throws {
        let finding =
            #"{"step":"host convert 0 private","model":"EAGAIN at 0","seen":"ok","litmus":"test \"x\"\nmemory 1 pages shared\n"}"#
        var a = Results()
        var b = Results()
        a.explore = Results.explored(findings: finding)
        b.explore = Results.explored(#""ok":7,"EINVAL":3,"EIO":1"#, findings: finding)
        let result = try compare(a, b)
        #expect(result.status == 1)
        #expect(result.output.contains("explored steps, seed 1: 2 differences\n"))
        #expect(result.output.contains("  convert => EINVAL: A never, B 3 times\n"), "\(result.output)")
        #expect(result.output.contains("  convert => EIO: A never, B once\n"))
        #expect(!result.output.contains("finding on"))
        b.explore = Results.explored()
        let only = try compare(a, b)
        #expect(
            only.output.contains(
                """
                  finding on A only: host convert 0 private
                    model  EAGAIN at 0
                    seen   ok
                      test "x"
                      memory 1 pages shared
                """), "\(only.output)")
    }

    @Test func partsThatWereNotRunAreLeftOut() throws {
        var a = Results()
        a.tests = nil
        a.explore = nil
        let result = try compare(a, a)
        #expect(
            result.status == 0 && !result.output.contains("litmus") && !result.output.contains("explored"))
    }

    @Test func badResultsAreNamed() throws {
        var half = Results()
        half.tests = nil
        let missing = try compare(Results(), half)
        #expect(missing.status == 65 && missing.output == "")
        #expect(missing.diagnostics.contains("litmus.json exists in one of"), "\(missing.diagnostics)")
        half.explore = "{"
        let broken = try compare(half, half)
        #expect(broken.status == 65 && broken.diagnostics.contains("explore.json is not a result of minivmm"))
        half.explore = Results.explored().replacingOccurrences(of: "explore/1", with: "explore/9")
        let later = try compare(half, half)
        #expect(later.status == 65 && later.diagnostics.contains("minivmm.explore/9, not minivmm.explore/1"))
        #expect(try Command.run(["a"], tool: Command.built("comparison")).status == 64)
    }
}
