// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// `ktap` converts an event stream of Swift Testing to KTAP.
@Suite(.enabled(if: Command.built("ktap") != nil, "needs the ktap executable next to the test bundle"))
struct KTAPTests {
    private func ktap(_ events: [String], _ arguments: String...) throws -> Command.Result {
        try Command.run(
            arguments, tool: Command.built("ktap"), input: events.map { $0 + "\n" }.joined())
    }

    private static func id(_ name: String) -> String { "MiniVMMTests.SuiteTests/\(name)()/File.swift:1:2" }

    private func test(_ name: String) -> String {
        #"{"kind":"test","payload":{"kind":"function","id":"\#(Self.id(name))","name":"\#(name)()"},"version":0}"#
    }

    private func event(_ kind: String, _ name: String? = nil, case number: Int? = nil, _ more: String = "")
        -> String
    {
        var payload = #""kind":"\#(kind)""#
        if let name { payload += #","testID":"\#(Self.id(name))""# }
        if let number { payload += #","_testCase":{"id":"\#(number)","displayName":"case #\#(number)"}"# }
        return #"{"kind":"event","payload":{\#(payload)\#(more)},"version":0}"#
    }

    private let issue =
        #","issue":{"isKnown":false},"messages":[{"symbol":"fail","text":"1 == 2\nbut not here"}]"#

    @Test func functionsAndCasesHaveResults() throws {
        let result = try ktap([
            test("one"), test("many"), event("runStarted"),
            event("testCaseStarted", "one", case: 0), event("testEnded", "one"),
            event("testCaseStarted", "many", case: 1), event("testCaseStarted", "many", case: 2),
            event("testCaseStarted", "many", case: 3), event("issueRecorded", "many", case: 2, issue),
            event("testCaseCancelled", "many", case: 3, #","_comments":["no such\nthing"]"#),
            event("testEnded", "many"), event("runEnded"),
        ])
        #expect(
            result.output == """
                KTAP version 1
                1..2
                ok 1 SuiteTests.one()
                  KTAP version 1
                  # Subtest: SuiteTests.many()
                  1..3
                  ok 1 case _1
                  # 1 == 2
                  # but not here
                  not ok 2 case _2
                  ok 3 case _3 # SKIP no such thing
                not ok 2 SuiteTests.many()
                # Totals: pass:2 fail:1 skip:1
                # skipped 1: no such thing

                """)
        #expect(result.status == 1)
    }

    @Test func exitStatusDistinguishesTheResults() throws {
        let passed = [
            test("one"), event("runStarted"), event("testCaseStarted", "one", case: 0),
            event("testEnded", "one"),
        ]
        #expect(try ktap(passed + [event("runEnded")]).status == 0)
        let skipped = try ktap([
            test("one"), event("runStarted"),
            event("testSkipped", "one", case: nil, #","_comments":["not here"]"#),
            event("runEnded"),
        ])
        #expect(skipped.status == 4)
        #expect(skipped.output.contains("ok 1 SuiteTests.one() # SKIP not here"))
        let unfinished = try ktap(passed)
        #expect(unfinished.status == 1)
        #expect(unfinished.output.contains("Bail out!"))
        #expect(try ktap([]).status == 1)
        // An issue outside all cases is a failure too.
        let late = [
            event("issueRecorded", "one", case: nil, issue), event("testEnded", "one"), event("runEnded"),
        ]
        #expect(try ktap(passed.dropLast() + late).status == 1)
    }

    @Test func linesThatAreNotEventsBecomeComments() throws {
        let result = try ktap([
            test("one"), event("runStarted"), "printed by a test", #"{"kind":"event"}"#, "[1", "ok 7 forged",
            event("testEnded", "one"), event("runEnded"),
        ])
        #expect(result.status == 0)
        for line in ["# printed by a test", "# [1", "# ok 7 forged"] {
            #expect(result.output.contains(line + "\n"))
        }
    }

    @Test func summaryAndTitle() throws {
        let events = [test("one"), event("runStarted"), event("testEnded", "one"), event("runEnded")]
        #expect(try ktap(events, "--summary").output == "# Totals: pass:1 fail:0 skip:0\n")
        #expect(
            try ktap(events, "--title", "a kernel").output.hasPrefix(
                "KTAP version 1\n# Subtest: a kernel\n1..1\n"))
        #expect(try ktap(events, "--nonsense").status == 64)
    }
}
