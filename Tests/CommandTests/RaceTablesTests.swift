// SPDX-License-Identifier: MIT
import Testing

/// The tables of `minivmm litmus --races`.
@Suite(
    "minivmm litmus --races", .enabled(if: Command.isBuilt, Command.missing), .timeLimit(.minutes(120)))
struct RaceTablesTests {
    /// Results of a sweep, of aimed schedules and of random starting times on one backend.
    @Test func tablesOfRaces() throws {
        let scratch = try Scratch()
        func results(_ sweep: String, _ blocks: String, of test: String = "race-x") -> [UInt8] {
            let test =
                #"{"file":"litmus/\#(test).litmus","name":"x","hazards":[],"verdict":"passed",\#(sweep)"blocks":[\#(blocks)]}"#
            return Array(
                #"{"schema":"minivmm.litmus/1","backend":"LinuxKVM","host":"Linux 7.3","tests":[\#(test)]}"#
                    .utf8)
        }
        func map(_ exact: Bool, _ intervals: String, second: String = "null") -> String {
            #""sweep":[{"block":1,"line":4,"victim":"host1","intruder":"host","second":\#(second),"schedules":300,"#
                + #""duration_ns":900,"exact":\#(exact),"intervals":[\#(intervals)]}],"#
        }
        func interval(_ from: Int, _ to: Int, _ outcomes: [String], _ functions: String) -> String {
            let shares = outcomes.map { #"{"outcome":"\#($0)","schedules":10,"allowed":true}"# }
            return #"{"from_ns":\#(from),"to_ns":\#(to),"schedule":"host1@\#((from + to) / 2)/host","#
                + #""outcomes":[\#(shares.joined(separator: ","))],"functions":[\#(functions)],"#
                + #""intruder_waits":true}"#
        }
        func block(_ runs: Int, _ counts: [(String, Int)]) -> String {
            let outcomes = counts.map { #"{"results":"\#($0)","count":\#($1),"allowed":true}"# }
            return #"{"line":4,"runs":\#(runs),"outcomes":[\#(outcomes.joined(separator: ","))]}"#
        }
        let exact = try scratch.file(
            "exact.json",
            results(
                map(
                    true,
                    [
                        interval(0, 99, ["c = ok", "c = EAGAIN"], ""),
                        interval(100, 199, ["c = EAGAIN"], #""gup","vm""#),
                    ].joined(separator: ",")), block(300, [("c = EAGAIN", 100), ("c = EBUSY", 0)])))
        let aimed = try scratch.file(
            "aimed.json", results(map(false, ""), block(1000, [("c = EAGAIN", 30), ("c = ok", 970)])))
        let random = try scratch.file(
            "random.json", results("", block(2000, [("c = EAGAIN", 2), ("c = ok", 1998)])))
        let result = try Command.run(["litmus", "--races", exact, aimed, random])
        #expect(result.status == 0, "\(result.diagnostics)")
        for line in [
            "| race-x | c = EAGAIN | `host1@149/host` | 100 to 199 | `gup` < `vm`; host waits |",
            "| race-x | c = EBUSY | not reached with one preemption |  |  |",
            "1 of 2 outcomes are reached, in 300 schedules",
            "| race-x | c = EAGAIN | 2 of 2000 | 30 of 1000 | 30.0 |",
        ] {
            #expect(result.output.contains(line), "\(line)\n\(result.output)")
        }
        // Parts of a sweep in any order: another test, and a second preemption for the outcome that one does not reach.
        let other = try scratch.file(
            "other-part.json",
            results(map(true, interval(0, 9, ["c = ok"], "")), block(9, [("c = ok", 9)]), of: "race-w"))
        let second = try scratch.file(
            "second.json",
            results(
                map(true, interval(20, 29, ["c = EBUSY"], ""), second: #"{"first_delay_ns":7}"#),
                block(9, [("c = EAGAIN", 5), ("c = EBUSY", 4)])))
        for paths in [[exact, other, second], [second, other, exact]] {
            let parts = try Command.run(["litmus", "--races"] + paths)
            #expect(parts.status == 0, "\(parts.diagnostics)")
            let rows = parts.output.split(separator: "\n").filter { $0.hasPrefix("| race-") }
            #expect(
                rows == [
                    "| race-w | c = ok | `host1@4/host` | 0 to 9 | user space; host waits |",
                    "| race-x | c = EAGAIN | `host1@149/host` | 100 to 199 | `gup` < `vm`; host waits |",
                    "| race-x | c = EBUSY | `host1@24/host` | 20 to 29 | user space; host waits |",
                ], "\(parts.output)")
            #expect(parts.output.contains("3 of 3 outcomes are reached, in 900 schedules"))
        }
        let huge = try scratch.file(
            "huge.json", results("", block(.max, [("c = ok", .max), ("c = EAGAIN", .max)])))
        #expect(try Command.run(["litmus", "--races", huge, aimed]).status == 0)
        for (name, bytes) in [("no.json", Array("[".utf8)), ("other.json", Array(#"{"schema":"x"}"#.utf8))] {
            let wrong = try Command.run(["litmus", "--races", try scratch.file(name, bytes)])
            #expect(wrong.status == 64 && wrong.diagnostics.contains(name), "\(wrong.diagnostics)")
        }
    }
}
