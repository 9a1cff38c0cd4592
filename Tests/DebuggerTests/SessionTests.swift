// SPDX-License-Identifier: MIT
import Synchronization
import Testing

@testable import Debugger

/// A target without a guest: memory from 0x1000 to 0x1fff, two threads, and a list of what it was asked for.
final class ScriptedTarget: DebugTarget {
    struct State {
        var calls: [String] = []
        var memory = [UInt8](repeating: 0, count: 0x1000)
        var files = [RegisterFile](repeating: RegisterFile(.init(), .init()), count: 2)
        var stop: StopReason?
        var resumeFails = false
    }
    let state = Mutex(State())
    var calls: [String] { state.withLock { $0.calls } }
    private func note(_ call: String) { state.withLock { $0.calls.append(call) } }

    var threads: ClosedRange<Int> { 1...2 }
    func begin() { note("begin") }
    func information(about thread: Int) -> String { "vCPU \(thread - 1)" }
    func registers(of thread: Int) throws(DebugError) -> RegisterFile {
        state.withLock { $0.files[thread - 1] }
    }
    func setRegisters(of thread: Int, from old: RegisterFile, to new: RegisterFile) throws(DebugError) {
        state.withLock { $0.files[thread - 1] = new }
    }

    private func range(_ address: UInt64, _ count: Int) -> Range<Int>? {
        guard (0x1000..<0x2000).contains(address) else { return nil }
        let start = Int(address - 0x1000)
        return start..<min(0x1000, start + count)
    }

    func read(_ thread: Int, at address: UInt64, count: Int) throws(DebugError) -> [UInt8] {
        guard count > 0 else { return [] }
        guard let range = range(address, count) else { throw .notMapped(address) }
        return state.withLock { Array($0.memory[range]) }
    }
    func write(_ thread: Int, at address: UInt64, _ bytes: [UInt8]) throws(DebugError) {
        guard let range = range(address, bytes.count), range.count == bytes.count else {
            throw .notMapped(address)
        }
        state.withLock { $0.memory.replaceSubrange(range, with: bytes) }
    }
    func insert(_ breakpoint: Breakpoint, by thread: Int) throws(DebugError) {
        note("insert \(breakpoint.kind) \(breakpoint.address) \(breakpoint.size)")
        guard breakpoint.isPossible else { throw .unwatchable(breakpoint.address, size: breakpoint.size) }
    }
    func remove(_ breakpoint: Breakpoint) throws(DebugError) {
        note("remove \(breakpoint.kind) \(breakpoint.address)")
    }
    func resume(_ actions: [Int: ResumeAction]) throws(DebugError) {
        guard !state.withLock({ $0.resumeFails }) else { throw .nothingToRun }
        note(actions.sorted { $0.key < $1.key }.map { "\($0.key):\($0.value)" }.joined(separator: " "))
    }
    func interrupt() { note("interrupt") }
    func takeStop() -> StopReason? { state.withLock { $0.stop } }
    func monitor(_ words: [String], by thread: Int) -> String { words.joined(separator: "|") + "\n" }
    func detach() { note("detach") }
    func kill() { note("kill") }
}

/// A client on the other side of a session.
private struct Conversation {
    let target = ScriptedTarget()
    var session: DebugSession
    private(set) var end: DebugSession.Answer?

    init() {
        session = DebugSession(target)
        _ = session.take(Packet.encoded(Array("QStartNoAckMode".utf8))) { _ in }
    }

    /// Sends bytes and returns those that come back.
    mutating func raw(_ bytes: [UInt8]) -> [UInt8] {
        var back: [UInt8] = []
        end = session.take(bytes) { back += $0 }
        return back
    }

    /// Sends a packet and returns the data of the answer; nil if there is none.
    mutating func ask(_ text: String) -> String? {
        var reader = PacketReader()
        for case .packet(let data) in reader.take(raw(Packet.encoded(Array(text.utf8)))) {
            return String(decoding: data, as: UTF8.self)
        }
        return nil
    }

    mutating func stop(_ reason: StopReason) -> String {
        var back: [UInt8] = []
        session.stopped(reason) { back += $0 }
        return String(decoding: back, as: UTF8.self)
    }
}

struct SessionTests {
    @Test func packetsAreConfirmedUntilTheClientWantsNoMore() {
        let target = ScriptedTarget()
        var session = DebugSession(target)
        var back: [UInt8] = []
        func send(_ text: String) -> String {
            back = []
            _ = session.take(Array(text.utf8)) { back += $0 }
            return String(decoding: back, as: UTF8.self)
        }
        #expect(send("$qC#b4") == "+$QC1#c5")
        #expect(send("-") == "$QC1#c5")
        #expect(send("$qC#00") == "-")
        #expect(send("$QStartNoAckMode#b0") == "+$OK#9a")
        #expect(send("$qC#b4") == "$QC1#c5" && send("$qC#00") == "" && send("-") == "")
    }

    @Test func memoryIsReadUpToItsEnd() {
        var client = Conversation()
        #expect(client.ask("M1ffe,2:abcd") == "OK")
        #expect(client.ask("m1ffe,2") == "abcd" && client.ask("m1ffe,100") == "abcd")
        #expect(client.ask("m2000,1") == "E0e" && client.ask("m1000,0") == "")
        #expect(client.ask("X1000,2:}a") == "OK" && client.ask("m1000,2") == "7d61")
        #expect(client.ask("M1fff,2:0000") == "E0e" && client.ask("m0,ffffffffffffffff") == "E0e")
        #expect(client.ask("mffffffffffffffff,ffffffffffffffff") == "E0e")
    }

    @Test func registersOfTheSelectedThread() {
        var client = Conversation()
        #expect(client.ask("Hg2") == "OK" && client.ask("P0=0100000000000080") == "OK")
        #expect(
            client.ask("p0") == "0100000000000080"
                && client.ask("g")?.hasPrefix("01000000000000800000") == true)
        #expect(client.ask("Hg1") == "OK" && client.ask("p0") == "0000000000000000")
        // Not known, not there, of the wrong length, not to be changed.
        #expect(client.ask("p18") == "xxxxxxxxxxxxxxxxxxxx" && client.ask("p99") == "E16")
        #expect(client.ask("P18=00000000000000000000") == "E16" && client.ask("P0=00") == "E16")
        #expect(client.ask("P12=08000000") == "E16" && client.ask("P12=00000000") == "OK")
        #expect(client.ask("Hg3") == "E03" && client.ask("T2") == "OK" && client.ask("T3") == "E03")
    }

    @Test func threadsAreListed() {
        var client = Conversation()
        #expect(client.ask("qfThreadInfo") == "m1,2" && client.ask("qsThreadInfo") == "l")
        #expect(
            client.ask("qThreadExtraInfo,2") == "764350552031" && client.ask("qThreadExtraInfo,9") == "E03")
    }

    @Test func descriptionComesInPieces() {
        var client = Conversation()
        let whole = String(decoding: TargetDescription.xml, as: UTF8.self)
        var got = ""
        while let part = client.ask("qXfer:features:read:target.xml:\(String(got.utf8.count, radix: 16)),100")
        {
            got += part.dropFirst()
            if part.hasPrefix("l") { break }
        }
        #expect(got == whole)
        #expect(client.ask("qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff") == "l")
    }

    @Test(arguments: [
        ("vCont;c", "1:run 2:run"), ("vCont;s:2", "2:step"), ("vCont;s:1;c", "1:step 2:run"),
        ("c", "1:run 2:run"),
        ("s", "1:step 2:run"), ("vCont;c:2;s:2;s:1", "1:step 2:run"), ("C0b", "1:run 2:run"),
    ])
    func actionsOfThreads(_ packet: String, _ expected: String) {
        var client = Conversation()
        #expect(client.ask(packet) == nil && client.target.calls == [expected])
        #expect(client.session.isRunning)
    }

    @Test func stepOfTheThreadOfHc() {
        var client = Conversation()
        #expect(
            client.ask("Hc2") == "OK" && client.ask("s") == nil && client.target.calls == ["1:run 2:step"])
    }

    @Test func anAddressToContinueAtIsSet() throws {
        var client = Conversation()
        #expect(client.ask("c1234") == nil)
        #expect(try client.target.registers(of: 1).general.rip == 0x1234)
    }

    @Test func aRunningGuestAnswersOnlyAnInterruption() {
        var client = Conversation()
        #expect(client.raw([3]) == [] && client.target.calls == [])
        #expect(client.ask("vCont;c") == nil && client.ask("g") == nil && client.raw([3]) == [])
        #expect(client.target.calls == ["1:run 2:run", "interrupt"])
        #expect(client.stop(StopReason(thread: 2, signal: .interrupt)) == "$T02thread:2;#d5")
        #expect(client.ask("?") == "T02thread:2;" && client.ask("qC") == "QC2")
    }

    @Test func reasonsOfStops() {
        var client = Conversation()
        func reason(_ kind: StopReason.Kind) -> String {
            _ = client.stop(StopReason(thread: 1, signal: .trap, kind: kind))
            return client.ask("?") ?? ""
        }
        #expect(reason(.watchpoint(.write, 0xab)) == "T05thread:1;watch:ab;")
        #expect(reason(.watchpoint(.read, 1)) == "T05thread:1;rwatch:1;")
        #expect(reason(.watchpoint(.access, .max)) == "T05thread:1;awatch:ffffffffffffffff;")
        // Only for a client that knows them.
        #expect(reason(.softwareBreakpoint) == "T05thread:1;")
        #expect(client.ask("qSupported:swbreak+;hwbreak+")?.contains("swbreak+;hwbreak+") == true)
        #expect(reason(.softwareBreakpoint) == "T05thread:1;swbreak:;")
        #expect(reason(.hardwareBreakpoint) == "T05thread:1;hwbreak:;")
    }

    @Test func textOfErrorsForAClientThatReadsThem() {
        var client = Conversation()
        #expect(client.ask("m0,1") == "E0e")
        #expect(client.ask("qSupported:error-message+")?.hasSuffix(";error-message+") == true)
        #expect(client.ask("m0,1") == "E.the guest's page tables do not map 0x0")
        #expect(client.ask("Z2,1,8")?.hasPrefix("E.8 bytes at 0x1 cannot be watched") == true)
    }

    @Test func endings() {
        for (ending, packet) in [
            (DebugEnding.exited(0x7b), "$W7b#f0"), (.signalled(.segmentationFault), "$X0b#ea"),
        ] {
            var client = Conversation()
            var back: [UInt8] = []
            // A client that does not wait gets nothing.
            client.session.ended(ending) { back += $0 }
            #expect(back == [])
            _ = client.ask("c")
            client.session.ended(ending) { back += $0 }
            #expect(String(decoding: back, as: UTF8.self) == packet)
        }
    }

    @Test func detachAndKillEndTheSession() {
        var client = Conversation()
        #expect(
            client.ask("D") == "OK" && client.end == .detach(Array("OK".utf8))
                && client.target.calls == ["detach"])
        #expect(client.ask("k") == nil && client.end == .kill(nil))
        #expect(client.ask("vKill;1") == "OK" && client.end == .kill(Array("OK".utf8)))
    }

    @Test func aResumeThatFailsLeavesTheGuestStopped() {
        var client = Conversation()
        client.target.state.withLock { $0.resumeFails = true }
        #expect(
            client.ask("vCont;c") == "E03" && !client.session.isRunning && client.ask("vCont;c:9") == "E03")
    }

    @Test func monitorGetsItsWords() {
        var client = Conversation()
        #expect(client.ask("qRcmd,612062") == "617c620a" && client.ask("qRcmd,zz") == "E16")
    }
}

/// Whatever a client sends, the session goes on and answers the next request.
struct FuzzTests {
    private static let words = [
        "?", "g", "G", "p", "P", "m", "M", "X", "Z", "z", "c", "s", "C", "S", "H", "Hg", "Hc", "T", "v",
        "vCont", "vCont;",
        "q", "Q", "qSupported:", "qXfer:features:read:target.xml:", "qRcmd,", "qThreadExtraInfo,", "vKill",
        "0", "1", "2",
        "ffffffffffffffff", "8000000000000000", "7fffffffffffffff", "10000000000000000", "1000", "1fff", ",",
        ":", ";",
        "=", "-1", "-", "s", "c", "t", "aa", "}", "}}", "#", "$", "+", "\u{3}", "é", "\0",
    ]

    /// A packet of random parts, with a right checksum most of the time, or random bytes.
    private func input(_ random: inout Random) -> [UInt8] {
        let parts = (0..<random.below(8)).flatMap { _ in Array(random.pick(Self.words).utf8) }
        switch random.below(8) {
        case 0: return random.bytes(Int(random.below(40)))
        case 1: return Array("$".utf8) + parts + Array("#00".utf8)
        case 2: return parts
        case 3: return Packet.encoded(random.bytes(Int(random.below(40))))
        default: return Packet.encoded(parts)
        }
    }

    @Test(arguments: 0..<200 as Range<UInt64>) func sessionSurvives(seed: UInt64) {
        var random = Random(seed)
        let target = ScriptedTarget()
        var session = DebugSession(target)
        var back: [UInt8] = []
        for _ in 0..<200 {
            back = []
            _ = session.take(input(&random)) { back += $0 }
            // Whatever is sent is well formed.
            var reader = PacketReader()
            for item in reader.take(back) {
                switch item {
                case .packet, .acknowledged, .rejected: continue
                default: Issue.record("seed \(seed): \(item) in \(String(decoding: back, as: UTF8.self))")
                }
            }
            if session.isRunning {
                session.stopped(StopReason(thread: 1 + Int(random.below(2)), signal: .trap)) { _ in }
            }
        }
        // The first byte ends a packet that is still open.
        back = []
        _ = session.take(Array("#00$qsThreadInfo#c8".utf8)) { back += $0 }
        #expect(String(decoding: back, as: UTF8.self).hasSuffix("$l#6c"), "seed \(seed)")
    }

    @Test func numbersAtTheEdges() {
        var client = Conversation()
        for address in [
            "0", "1000", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff", "ffffffffffffffffff",
        ] {
            for count in ["0", "1", "1000", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff"] {
                for packet in [
                    "m\(address),\(count)", "Z0,\(address),\(count)", "Z2,\(address),\(count)",
                    "z3,\(address),\(count)",
                ] {
                    #expect(client.ask(packet) != nil, "\(packet)")
                }
                #expect(client.ask("M\(address),\(count):")?.isEmpty == false)
            }
        }
    }
}
