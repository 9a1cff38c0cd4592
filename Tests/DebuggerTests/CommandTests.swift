// SPDX-License-Identifier: MIT
import Testing

@testable import Debugger

struct DebugCommandTests {
    private func command(_ text: String) -> DebugCommand { DebugCommand(Array(text.utf8)) }

    static let known: [(String, DebugCommand)] = [
        ("?", .stopReason), ("g", .readRegisters), ("G0102", .writeRegisters([1, 2])),
        ("p1f", .readRegister(31)),
        ("P2=00ff", .writeRegister(2, [0, 0xff])), ("m1000,10", .readMemory(address: 0x1000, count: 16)),
        ("M10,2:abcd", .writeMemory(address: 16, [0xab, 0xcd])),
        ("X10,2:ab", .writeMemory(address: 16, [0x61, 0x62])),
        ("X10,0:", .writeMemory(address: 16, [])),
        ("Z0,1000,1", .insert(Breakpoint(kind: .software, address: 0x1000, size: 1))),
        ("z4,ffffffffffffffff,8", .remove(Breakpoint(kind: .access, address: .max, size: 8))),
        ("Z1,5,1;X3,220027", .insert(Breakpoint(kind: .hardware, address: 5, size: 1))),
        ("c", .resume([(.any, false)], at: nil)), ("s20", .resume([(.any, true)], at: 0x20)),
        ("C05", .resume([(.any, false)], at: nil)), ("S05;20", .resume([(.any, true)], at: 0x20)),
        ("vCont?", .resumeActions), ("vCont;c", .resume([(.all, false)], at: nil)),
        ("vCont;s:2;c", .resume([(.one(2), true), (.all, false)], at: nil)),
        ("vCont;C0b:-1", .resume([(.all, false)], at: nil)),
        ("vCont;S05:0", .resume([(.any, true)], at: nil)),
        ("Hg0", .selectThread(.any)), ("Hc-1", .selectResumed(.all)), ("Hg10", .selectThread(.one(16))),
        ("T2", .isAlive(2)), ("qC", .currentThread), ("qfThreadInfo", .firstThreads),
        ("qsThreadInfo", .moreThreads), ("qThreadExtraInfo,3", .threadInformation(3)),
        ("qAttached", .isAttached),
        ("qAttached:1", .isAttached),
        ("qXfer:features:read:target.xml:0,ffb", .description(offset: 0, count: 0xffb)),
        ("qSupported:swbreak+;hwbreak+", .supported(["swbreak+", "hwbreak+"])),
        ("qSupported", .supported([])),
        ("QStartNoAckMode", .startNoAckMode), ("qSymbol::", .symbols), ("qHostInfo", .hostInformation),
        ("qRcmd,7061676573", .monitor("pages")), ("D", .detach), ("D;1", .detach),
        ("k", .kill(isAnswered: false)),
        ("vKill;1", .kill(isAnswered: true)),
    ]

    @Test(arguments: known.indices) func isDecoded(_ index: Int) {
        let (text, expected) = Self.known[index]
        #expect(command(text) == expected, "\(text)")
    }

    /// The protocol's answer to these is an empty packet.
    @Test(arguments: [
        "", "qCRC:0,1", "qTStatus", "vMustReplyEmpty", "QNonStop:1", "!", "R00", "Z5,0,0", "Zf,0,0", "#",
    ])
    func unknownPackets(_ text: String) { #expect(command(text) == .unknown) }

    @Test(arguments: [
        "m", "m,", "m1", "m1,", "mx,1", "m11111111111111111,1", "m0,11111111111111111", "M0,1", "M0,1:",
        "M0,1:0",
        "M0,1:zz", "M0,2:00", "X0,2:a", "p", "px", "P", "P0", "P0=0", "G0", "Gzz", "H", "Hg", "Hgx", "T",
        "T0", "T-1",
        "Z", "Z0", "Z0,", "Z0,1", "Z0,1,", "vCont", "vCont;", "vCont;x", "vCont;c:", "vCont;c:x", "vCont;C",
        "vCont;cc",
        "vCont;c:1:2", "cx", "C", "Cx", "C05,5", "qRcmd,0", "qRcmd,zz", "qThreadExtraInfo,",
        "qXfer:features:read:target.xml:0",
        "p10000000000000000",
    ]) func malformedPackets(_ text: String) { #expect(command(text) == .malformed) }

    @Test func aBreakpointHasTheSizeOfOneByte() {
        #expect(Breakpoint(kind: .software, address: 1, size: 99).size == 1)
        #expect(Breakpoint(kind: .write, address: 1, size: 99).size == 99)
    }
}

struct AddressTests {
    @Test func portsAndPaths() {
        #expect(DebugAddress("1234") == .port(1234) && DebugAddress(":65535") == .port(65535))
        #expect(DebugAddress("/tmp/a") == .socket(path: "/tmp/a") && DebugAddress("a") == .socket(path: "a"))
        #expect(DebugAddress("./12:34") == .socket(path: "./12:34"))
    }

    /// Nothing but the loopback interface can be asked for.
    @Test(arguments: [
        "", "0", ":0", "65536", "99999999999999999999", ":", "0.0.0.0:1234", "localhost:1234", "tcp::1234",
        "::1",
    ])
    func othersAreRefused(_ text: String) { #expect(DebugAddress(text) == nil) }
}

struct RegisterTests {
    @Test func descriptionHasEachRegisterInOrder() {
        let xml = String(decoding: TargetDescription.xml, as: UTF8.self)
        let names = xml.matches(of: /<reg name="([a-z0-9_]+)" bitsize="([0-9]+)"/).map {
            (String($0.1), Int($0.2) ?? 0)
        }
        #expect(names.map(\.0) == Register.all.map(\.form.name))
        #expect(names.map(\.1) == Register.all.map { $0.form.size * 8 })
        #expect(Set(names.map(\.0)).count == names.count)
        for feature in ["core", "segments"] { #expect(xml.contains("\"org.gnu.gdb.i386.\(feature)\"")) }
    }

    /// GDB numbers the registers of i386:x86-64 so, whatever the description says.
    @Test func firstRegistersAreGDBs() {
        #expect(
            Register.all.prefix(40).map(\.form.name) == [
                "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12",
                "r13", "r14",
                "r15", "rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "st0", "st1", "st2", "st3", "st4",
                "st5",
                "st6", "st7", "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop",
            ])
    }

    @Test func everyRegisterIsWrittenWhereItIsRead() {
        for (number, register) in Register.all.enumerated() where register.isKnown {
            var file = RegisterFile(.init(), .init())
            let bytes = (0..<register.form.size).map { UInt8(truncatingIfNeeded: number &* 16 &+ $0 &+ 1) }
            guard register.set(bytes, in: &file) else {
                // Selectors: writing what is there is no error.
                #expect(
                    ["cs", "ss", "ds", "es", "fs", "gs"].contains(register.form.name), "\(register.form.name)"
                )
                #expect(register.set([0, 0, 0, 0], in: &file))
                continue
            }
            #expect(register.digits(file) == Hex.digits(bytes), "\(register.form.name)")
            for (other, its) in Register.all.enumerated() where other != number && its.isKnown {
                #expect(its.digits(file) == Register.all[other].digits(RegisterFile(.init(), .init())))
            }
        }
    }

    @Test func allAtOnce() {
        var file = RegisterFile(.init(), .init())
        file.general.rax = 0x0102_0304_0506_0708
        file.special.cr3 = 0x1234_5000
        let size = Register.all.reduce(0) { $0 + $1.form.size }
        #expect(file.digits.count == 2 * size)
        #expect(file.digits.starts(with: "0807060504030201".utf8))
        // An unknown register is x in an answer, and ignored in a request.
        #expect(file.digits.contains(UInt8(ascii: "x")))
        let bytes = file.digits.map { $0 == UInt8(ascii: "x") ? UInt8(ascii: "0") : $0 }
        var other = RegisterFile(.init(), .init())
        let data = Hex.bytes(bytes) ?? []
        #expect(other.setAll(data) && other.digits == file.digits)
        #expect(!other.setAll([]) && !other.setAll(data + [0]))
    }
}
