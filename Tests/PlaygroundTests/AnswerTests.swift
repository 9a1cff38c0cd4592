// SPDX-License-Identifier: MIT
import Litmus
import SoftKVM
import Testing

@testable import Playground

@Suite struct AnswerTests {
    private static let sequential = """
        test "a private page keeps its byte"
        memory 2 pages shared

        host write 0 0x41
        host convert 0 private
        host read 0 => SIGBUS
        vcpu0 read 0 => 0x41
        """
    private static let race = """
        test "a conversion beside a hold"
        memory 1 pages shared

        parallel
        host  convert 0 private => c
        host1 hold 0 as h => h
        end
        """

    @Test(arguments: [
        "", "\n", "nothing", "run\nabi 9", "run\nfault nobody", "run\npredict x ok", "run\npieces 0",
    ])
    func aRequestThatCannotBeReadIsAnError(request: String) {
        #expect(answer(request).hasPrefix("{\"error\":\""))
    }

    @Test func factsNameEveryFaultAndVersion() {
        let facts = answer("facts\n\n")
        for fault in PlantedFault.allCases { #expect(facts.contains("\"\(fault.name)\"")) }
        for abi in ABIProfile.allCases { #expect(facts.contains("\"\(abi.rawValue)\"")) }
    }

    @Test func aSyntaxErrorHasItsPlace() {
        let seen = answer("check\n\ntest \"x\"\nmemory 1 pages shared\nhost flurb 0\n")
        #expect(seen.hasPrefix("{\"problem\":{\"line\":3,\"column\":6,"))
    }

    @Test func stepsComeWithPages() {
        let seen = answer("run\n\n" + Self.sequential)
        #expect(seen.hasPrefix("{\"verdict\":\"passed\","))
        #expect(seen.contains("\"text\":\"host read 0\",\"outcome\":\"SIGBUS\""))
        #expect(seen.contains("{\"state\":\"private\",\"host\":\"SIGBUS\",\"guest\":\"0x41\""))
    }

    @Test func aPlantedFaultFailsTheTest() {
        let seen = answer("run\nfault contents-lost-to-private\n\n" + Self.sequential)
        #expect(seen.hasPrefix("{\"verdict\":\"failed\",\"failure\":{\"line\":7,"))
    }

    @Test func predictionsAreJudgedAndNothingElseEndsTheRun() {
        let seen = answer("run\npredict 6 0x41\npredict 7 0x41\n\n" + Self.sequential)
        #expect(seen.contains("\"prediction\":{\"text\":\"0x41\",\"right\":false}"))
        #expect(seen.contains("\"prediction\":{\"text\":\"0x41\",\"right\":true}"))
        let nonsense = answer("run\npredict 6 flurb\n\n" + Self.sequential)
        #expect(nonsense.contains("\"right\":false,\"problem\":\"unknown outcome flurb"))
    }

    @Test func aRaceHasAllItsOutcomesWithOrders() {
        let seen = answer("run\n\n" + Self.race)
        #expect(seen.contains("\"verdict\":\"passed\""))
        #expect(seen.contains("\"name\":\"c\",\"outcome\":\"EAGAIN at 0\""))
        #expect(seen.contains("\"complete\":true"))
        #expect(seen.contains("\"piece\":\"begins a page fault\""))
        #expect(!seen.contains("\"order\":[]"))
    }

    @Test func aLimitIsSaidAndNoPass() {
        let seen = answer("run\npieces 3\n\n" + Self.race)
        #expect(!seen.contains("\"verdict\":\"passed\""))
        #expect(seen.contains("3 atomic pieces"))
    }

    @Test func anotherVMIsChosen() {
        #expect(answer("run\nvm default\n\n" + Self.sequential).contains("\"verdict\":\"failed\""))
    }

    @Test func textIsEscaped() {
        var json = JSONText()
        json.object { $0.member("a\"b", "\\\n\u{1}ü😀") }
        #expect(json.text == "{\"a\\\"b\":\"\\\\\\n\\u0001ü😀\"}")
    }
}
