// SPDX-License-Identifier: MIT
import Debugger
import Testing

@testable import MiniVMM

/// The debugger's server with a guest: the same test body on every available backend.
@Suite("Debugger", .serialized)
struct DebuggerTests {
    static let code = DebuggedGuest.code

    /// The RIPs of the countdown, from the second instruction on, until the one that ends the guest.
    private static let path: [UInt64] =
        [7] + (0..<5).flatMap { _ in [8, 0xb] as [UInt64] } + [0xd, 0xe]

    @Test(arguments: BackendUnderTest.asked()) func everyInstructionIsAStep(on backend: BackendUnderTest)
        throws
    {
        let guest = try DebuggedGuest(on: backend)
        #expect(try guest.ask("?") == "T05thread:1;")
        #expect(try guest.rip() == Self.code)
        for offset in Self.path {
            #expect(try guest.ask("vCont;s:1") == "T05thread:1;")
            #expect(try guest.rip() == Self.code + offset)
        }
        #expect(try guest.ask("vCont;s:1") == "W05")
        #expect(guest.end()?.exitStatus == 5)
    }

    @Test(arguments: BackendUnderTest.asked()) func breakpointsStopBeforeTheirInstruction(
        on backend: BackendUnderTest
    ) throws {
        for kind in ["0", "1"] {
            let guest = try DebuggedGuest(on: backend)
            _ = try guest.ask("qSupported:swbreak+;hwbreak+")
            let breakpoint = "\(kind),10000b,1"
            for count in (0..<5).reversed() {
                #expect(try guest.ask("Z" + breakpoint) == "OK")
                #expect(
                    try guest.ask("vCont;c")
                        == "T05thread:1;\(kind == "0" ? "sw" : "hw")break:;")
                #expect(try guest.rip() == Self.code + 0xb && guest.client.register(0) == UInt64(count))
                // As debuggers do: one step without the breakpoint.
                #expect(try guest.ask("z" + breakpoint) == "OK" && guest.ask("vCont;s:1") == "T05thread:1;")
            }
            #expect(try guest.ask("c") == "W05")
        }
    }

    /// With more than four, some are INT3 in the code, if the monitor can write it. Otherwise MiniVMM steps.
    @Test(arguments: BackendUnderTest.asked()) func moreBreakpointsThanRegisters(on backend: BackendUnderTest)
        throws
    {
        let guest = try DebuggedGuest(on: backend)
        // Four that are never reached take the registers. A CPU on which they stop nothing has no limit.
        for address in 0..<4 { #expect(try guest.ask("Z1,20000\(address),1") == "OK") }
        let fifth = try guest.ask("Z1,200004,1")
        #expect(fifth == "E1c" || fifth == "OK" && [.inPlace, .perVM].contains(backend))
        let addresses = [0xd, 0xe].map { Self.code + $0 }
        for address in addresses { #expect(try guest.ask("Z0,\(String(address, radix: 16)),1") == "OK") }
        if guest.readsPrivate || guest.machine.memory.state(at: Self.code) == .shared {
            // The debugger does not see them, and may write over them.
            #expect(try guest.ask("m10000c,4") == "fb58e6f4" && guest.ask("M10000c,2:fb90") == "OK")
            #expect(try guest.ask("m10000d,3") == "90e6f4" && guest.ask("M10000d,1:58") == "OK")
        }
        _ = try guest.ask("qSupported:swbreak+")
        for address in addresses {
            #expect(try guest.ask("vCont;c") == "T05thread:1;swbreak:;" && guest.rip() == address)
            #expect(try guest.ask("z0,\(String(address, radix: 16)),1") == "OK")
        }
        #expect(try guest.ask("vCont;c") == "W05")
    }

    /// A conversion moves the INT3 to the other alias, where it is found and removed.
    @Test(arguments: BackendUnderTest.asked(of: [.trap, .software, .trapOverSoftware]))
    func aConvertedBreakpointIsRemoved(on backend: BackendUnderTest) throws {
        let guest = try DebuggedGuest(on: backend) { $0.aliases = .two }
        let page = guest.machine.layout.free.lowerBound
        let bit = try #require(guest.machine.layout.sharedBit)
        for address in 0..<4 { #expect(try guest.ask("Z1,10010\(address),1") == "OK") }
        #expect(try guest.ask("M\(String(page, radix: 16)),1:11") == "OK")
        #expect(try guest.ask("Z0,\(String(page, radix: 16)),1") == "OK")
        #expect(try guest.monitor("convert \(page) shared").contains("is shared"))
        #expect(try guest.ask("z0,\(String(page, radix: 16)),1") == "OK")
        #expect(try guest.ask("m\(String(page | 1 << UInt64(bit), radix: 16)),1") == "11")
        #expect(try guest.machine.memory.read(gpa: page, count: 1) == [0x11])
    }

    /// mov %rsp, %rax; push %rax; push %rax; mov (%rsp), %rbx; xor %eax, %eax; out %al, $0xf4
    private static let pushes: [UInt8] = [
        0x48, 0x89, 0xe0, 0x50, 0x50, 0x48, 0x8b, 0x1c, 0x24, 0x31, 0xc0, 0xe6, 0xf4,
    ]

    @Test(arguments: BackendUnderTest.asked()) func watchpointsStopAfterTheAccess(
        on backend: BackendUnderTest
    ) throws {
        let guest = try DebuggedGuest(Self.pushes, on: backend)
        let stack = try guest.client.register(7)
        let second = String(stack - 16, radix: 16)
        let watch = try guest.ask("Z2,\(second),8")
        if watch == "E0e", !guest.readsPrivate {
            // Registers watch nothing, and private bytes cannot be compared.
            let why = try guest.monitor("why")
            return #expect(
                why.contains("writes to 0x\(second) cannot be watched")
                    && why.contains("debug registers stop nothing on this kernel and CPU"))
        }
        #expect(watch == "OK")
        #expect(try guest.ask("vCont;c") == "T05thread:1;watch:\(second);" && guest.rip() == Self.code + 5)
        #expect(try guest.ask("z2,\(second),8") == "OK")
        // A KVM that interprets the guest has no data breakpoints; then reads cannot be watched.
        let answer = try guest.ask("Z4,\(second),4")
        if answer == "OK" {
            #expect(
                try guest.ask("vCont;c") == "T05thread:1;awatch:\(second);" && guest.rip() == Self.code + 9)
            #expect(try guest.ask("z4,\(second),4") == "OK")
        } else {
            #expect(answer == "E16" && backend != .software)
        }
        #expect(try guest.ask("Z2,\(String(stack - 15, radix: 16)),8") == "E16")
        #expect(try guest.ask("vCont;c") == "W00")
    }

    @Test(arguments: BackendUnderTest.asked()) func registersAndMemoryCanBeChanged(
        on backend: BackendUnderTest
    ) throws {
        let guest = try DebuggedGuest(on: backend)
        #expect(try guest.ask("Z1,10000e,1") == "OK" && guest.ask("vCont;c") == "T05thread:1;")
        #expect(try guest.ask("P0=0700000000000000") == "OK" && guest.ask("z1,10000e,1") == "OK")
        let all = try guest.ask("g")
        #expect(all.hasPrefix("0700000000000000") && all.contains("x"))
        #expect(try guest.ask("G" + all.replacing("x", with: "0")) == "OK" && guest.ask("g") == all)
        #expect(try guest.ask("vCont;c") == "W07")

        let other = try DebuggedGuest(on: backend)
        guard other.readsPrivate || other.machine.memory.state(at: Self.code) == .shared else {
            return #expect(
                try other.ask("m100000,4") == "E0e"
                    && other.monitor("why").contains("is private, and this kernel"))
        }
        #expect(try other.ask("m100000,10") == "48c7c005000000504" + "8ffc875fb58e6f4")
        #expect(try other.ask("M100003,1:09") == "OK" && other.ask("vCont;c") == "W09")
    }

    /// The end of RAM, addresses that are not mapped, and addresses that are not canonical.
    @Test(arguments: BackendUnderTest.asked()) func memoryThatIsNotThere(on backend: BackendUnderTest) throws
    {
        let guest = try DebuggedGuest(on: backend)
        guard guest.readsPrivate || guest.machine.memory.state(at: 0x3f_f000) == .shared else { return }
        for (range, count) in [
            ("3fffff,1", 1), ("3ffff8,100", 8), ("400000,1", nil), ("7fffffff0000,8", nil),
        ]
            as [(String, Int?)]
        {
            let answer = try guest.ask("m" + range)
            if let count {
                #expect(answer.count == 2 * count, "\(range): \(answer)")
            } else {
                #expect(answer == "E0e")
            }
        }
        for address in [
            "800000000000", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff", "fffffffffffffff8",
        ] {
            #expect(try guest.ask("m\(address),ffffffffffffffff") == "E0e")
            #expect(try guest.ask("M\(address),4:00000000") == "E0e")
        }
        #expect(try guest.ask("M3ffffe,4:11223344") == "E0e" && guest.ask("m3ffffe,2") == "1122")
        #expect(try guest.monitor("why").contains("the debugger's last error: "))
        #expect(try guest.ask("vCont;c") == "W05")
    }

    /// Without paging a linear address is a physical one; a wild CR3 is an error.
    @Test(arguments: BackendUnderTest.asked(of: [.software, .trapOverSoftware])) func wildPageTables(
        on backend: BackendUnderTest
    ) throws {
        let guest = try DebuggedGuest(on: backend)
        for table in ["00f0ffffffff0f00", "0000000000000000", "ffffffffffffffff"] {
            #expect(try guest.ask("P2c=" + table) == "OK" && guest.ask("m100000,1") == "E0e")
        }
    }

    @Test(arguments: BackendUnderTest.asked()) func aCrashIsAStopBeforeTheEnd(on backend: BackendUnderTest)
        throws
    {
        // ud2; a load through an address that is not canonical; int3.
        for (image, signal) in [
            ([0x0f, 0x0b], "04"), ([0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0], "0b"), ([0xcc], "05"),
        ]
            as [([UInt8], String)]
        {
            let guest = try DebuggedGuest(image, on: backend)
            let stop = try guest.ask("vCont;c")
            #expect(stop == "T\(signal)thread:1;")
            #expect(
                try guest.rip() >= Self.code
                    && guest.monitor("why").contains("the guest ends when it goes on: "))
            #expect(try guest.ask("vCont;C\(signal)") == "X\(signal)")
            #expect(guest.end()?.exitStatus == 126)
        }
    }

    @Test(arguments: BackendUnderTest.asked()) func ctrlCStopsAGuestWithoutExits(on backend: BackendUnderTest)
        throws
    {
        // jmp to itself
        let guest = try DebuggedGuest([0xeb, 0xfe], on: backend) { $0.vcpus = 3 }
        for _ in 0..<3 {
            guest.client.send("vCont;c")
            guest.client.send([3])
            #expect(try guest.client.answer().hasPrefix("T02thread:"))
            #expect(try guest.rip() == Self.code)
        }
        #expect(try guest.ask("vKill;1") == "OK")
        #expect(guest.end()?.exitStatus == 137)
    }

    @Test(arguments: BackendUnderTest.asked()) func threadsAreVCPUs(on backend: BackendUnderTest) throws {
        let guest = try DebuggedGuest(on: backend) { $0.vcpus = 3 }
        #expect(try guest.ask("qfThreadInfo") == "m1,2,3")
        // One alone, twice; the others stay at their first instruction.
        for offset in [7, 8] as [UInt64] {
            #expect(try guest.ask("vCont;s:2") == "T05thread:2;" && guest.rip() == Self.code + offset)
        }
        for thread in ["1", "3"] { #expect(try guest.ask("Hg" + thread) == "OK" && guest.rip() == Self.code) }
        let stop = try guest.ask("vCont;s:3;s:1")
        #expect(["T05thread:1;", "T05thread:3;"].contains(stop))
        #expect(try guest.ask("Hg2") == "OK" && guest.rip() == Self.code + 8)
        #expect(try guest.ask("vCont;c") == "W05")
    }

    /// HLT in the only thread that may run is the end of its step, and not of the guest.
    @Test(arguments: BackendUnderTest.asked()) func aHaltedThreadCannotRun(on backend: BackendUnderTest)
        throws
    {
        // test %esi, %esi; jz 1f; hlt; 1: jmp 1b
        let guest = try DebuggedGuest([0x85, 0xf6, 0x74, 0x01, 0xf4, 0xeb, 0xfe], on: backend) {
            $0.vcpus = 2
        }
        #expect(try guest.ask("vCont;c:2") == "T05thread:2;")
        #expect(try guest.ask("qThreadExtraInfo,2").count > 12 && guest.ask("vCont;c:2") == "E03")
        guest.client.send("vCont;c")
        guest.client.send([3])
        #expect(try guest.client.answer().hasPrefix("T02thread:"))
        let all = try DebuggedGuest([0xf4], on: backend) { $0.vcpus = 2 }
        #expect(try all.ask("vCont;c") == "W00" && all.end()?.kind == "halted")
    }

    @Test(arguments: BackendUnderTest.asked()) func aDetachedGuestGoesOn(on backend: BackendUnderTest) throws
    {
        let guest = try DebuggedGuest(on: backend)
        #expect(try guest.ask("Z0,10000b,1") == "OK" && guest.ask("D") == "OK")
        #expect(guest.end()?.exitStatus == 5)
    }

    /// A client that is lost leaves the guest stopped, or running. The next one stops it, and finds no breakpoints.
    @Test(arguments: BackendUnderTest.asked()) func theNextClientTakesOver(on backend: BackendUnderTest)
        throws
    {
        let guest = try DebuggedGuest([0xeb, 0xfe], on: backend)
        #expect(try guest.ask("Z0,100000,1") == "OK")
        try guest.reconnect()
        #expect(try guest.ask("?") == "T05thread:1;")
        guest.client.send("vCont;c")
        let second = try guest.connect()
        #expect(try second.answer() == "E.another debugger is connected")
        #expect(throws: DebugClient.Closed.self) { try second.answer() }
        try guest.reconnect()
        #expect(try guest.ask("?") == "T05thread:1;" && guest.rip() == Self.code)
        #expect(try guest.ask("D") == "OK")
        try guest.reconnect()
        #expect(try guest.ask("vKill") == "OK" && guest.end()?.exitStatus == 137)
    }

    /// Bytes that are no protocol, in the middle of a session.
    @Test(arguments: BackendUnderTest.asked(of: [.software, .trap])) func garbage(
        on backend: BackendUnderTest
    ) throws {
        let guest = try DebuggedGuest(on: backend)
        guest.client.send([UInt8](repeating: 0xff, count: 100_000))
        #expect(try guest.ask("qC") == "QC1")
        guest.client.send(Array("$qC#00".utf8))
        #expect(try guest.client.next() == .rejected)
        guest.client.send([UInt8](repeating: UInt8(ascii: "$"), count: 100))
        guest.client.send(Array("#00".utf8))
        for _ in 0..<99 { #expect(try guest.client.next() == .rejected) }
        // The checksum of the empty packet is right, so the server answers as to any unknown packet.
        #expect(try guest.client.answer() == "")
        guest.client.send("m" + String(repeating: "0", count: 1 << 20))
        #expect(try guest.client.answer() == "E16" && guest.ask("vCont;c") == "W05")
    }

    /// Makes the page tables accessible to ring 3, goes there, and jumps to itself.
    private static let ring3: [UInt8] = [
        0x50, 0x58, 0x0f, 0x20, 0xdf, 0xb9, 0x00, 0x10, 0x00, 0x00, 0x48, 0x83, 0x3f, 0x00, 0x74, 0x04, 0x48,
        0x83,
        0x0f, 0x04, 0x48, 0x83, 0xc7, 0x08, 0xff, 0xc9, 0x75, 0xee, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f,
        0x01,
        0x15, 0x1f, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x84, 0x24, 0x00, 0xf8, 0xff, 0xff, 0x6a, 0x23, 0x50, 0x68,
        0x02,
        0x30, 0x00, 0x00, 0x6a, 0x1b, 0x48, 0x8d, 0x05, 0x03, 0x00, 0x00, 0x00, 0x50, 0x48, 0xcf, 0xeb, 0xfe,
        0x90,
        0x27, 0x00, 0x52, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00,
        0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, 0xff,
        0xff,
        0x00, 0x00, 0x00, 0xfb, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xf3, 0xcf, 0x00,
    ]

    /// Where KVM stops nothing in ring 3, a step there is refused, because it would end the guest.
    @Test(arguments: BackendUnderTest.asked()) func ring3(on backend: BackendUnderTest) throws {
        let guest = try DebuggedGuest(Self.ring3, on: backend)
        let loop = Self.code + 0x45
        repeat {
            guest.client.send("vCont;c")
            guest.client.send([3])
            #expect(try guest.client.answer() == "T02thread:1;")
        } while try guest.rip() != loop
        let step = try guest.ask("vCont;s:1")
        #expect(step == "T05thread:1;" || step == "E5f" && backend != .software, "\(step)")
        #expect(try guest.rip() == loop)
        if step == "E5f" {
            // The facts are known from the trial by now.
            #expect(try guest.monitor("why").contains("this kernel stops nothing in ring 3"))
        } else {
            #expect(
                try guest.ask("Z1,\(String(loop, radix: 16)),1") == "OK"
                    && guest.ask("vCont;c") == "T05thread:1;")
        }
        #expect(try guest.ask("vKill;1") == "OK" && guest.end()?.exitStatus == 137)
    }

    /// A client that sends anything in any order, resumes the guest and interrupts it. The server answers it to the end.
    @Test(arguments: 0..<30 as Range<UInt64>, BackendUnderTest.asked(of: [.software, .trap]))
    func anythingInAnyOrder(seed: UInt64, on backend: BackendUnderTest) throws {
        // jmp to itself: the guest does not end before it is killed, unless the client changes it.
        let guest = try DebuggedGuest([0xeb, 0xfe], on: backend) { $0.vcpus = 2 }
        var random = Generator(seed: seed)
        let packets = [
            "g", "p10", "P10=0000100000000000", "m100000,2", "m3ffff0,40", "M200000,2:ebfe", "Z0,100000,1",
            "Z1,100002,1",
            "Z2,200000,8", "z0,100000,1", "z1,100002,1", "z2,200000,8", "vCont;c", "vCont;s:1;c", "vCont;s:2",
            "c", "s",
            "Hg2", "Hg1", "Hc1", "T2", "?", "qfThreadInfo", "qThreadExtraInfo,1", "qRcmd,7061676573",
            "qRcmd,636f6e76657274203078323030303030207368617265643", "vCont;t", "G00",
            "X100000,2:\u{6b}\u{7f}",
        ]
        for _ in 0..<40 {
            switch random.next() % 8 {
            case 0: guest.client.send([3])
            case 1:
                guest.client.send(
                    (0..<random.next() % 50).map { _ in UInt8(truncatingIfNeeded: random.next()) })
            default: guest.client.send(packets[Int(random.next() % UInt64(packets.count))])
            }
        }
        // Whatever state this was: an open packet is ended, a running guest is stopped, and a stopped one says so.
        guest.client.send(Array("#00".utf8) + [3])
        do {
            while true {
                guest.client.send("?")
                let item = try guest.client.next()
                guard case .packet(let data) = item, data.first == UInt8(ascii: "T") else { continue }
                break
            }
            guest.client.send("vKill;1")
        } catch is DebugClient.Closed {
            // The guest has ended: the client has changed its code.
        }
        guest.client.close()
        #expect(guest.kill() != nil)
    }
}
