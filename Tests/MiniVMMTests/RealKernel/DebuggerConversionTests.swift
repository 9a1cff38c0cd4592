// SPDX-License-Identifier: MIT
import Debugger
import GuestPayloads
import Testing

@testable import MiniVMM

// A debugger and a guest whose pages are converted.
extension DebuggerTests {
    /// Both guests convert, by hypercall and by access; a debugger that steps does not change what they do.
    @Test(arguments: ["implicit", "explicit"], BackendUnderTest.asked()) func steppingChangesNothing(
        _ name: String, on backend: BackendUnderTest
    ) throws {
        let payload = try #require(Catalogue.named(name))
        guard backend != .perVM || !payload.needsPreservation else { return }
        func run(steps: Int) throws -> String {
            let guest = try DebuggedGuest(payload.image, on: backend) {
                let hasInstruction = $0.hypercallInstruction
                $0 = payload.machineConfiguration
                $0.hypercallInstruction = hasInstruction
            }
            for _ in 0..<steps { #expect(try guest.ask("vCont;s:1") == "T05thread:1;") }
            #expect(try guest.ask("vCont;c") == "W00", "\(guest.console.text)")
            return guest.console.text
        }
        let text = try run(steps: 0)
        #expect(!text.isEmpty)
        #expect(try run(steps: 3000) == text)
    }

    @Test(arguments: BackendUnderTest.asked()) func memoryIsSeenThroughItsAlias(on backend: BackendUnderTest)
        throws
    {
        let guest = try DebuggedGuest(on: backend) {
            $0.aliases = .two
            $0.contents = backend == .perVM ? .unspecified : .preserve
        }
        let bit = try #require(guest.machine.layout.sharedBit)
        let page = guest.machine.layout.free.lowerBound
        let aliases = [page, page | 1 << UInt64(bit)].map { String($0, radix: 16) }
        #expect(try guest.ask("qSupported:error-message+").isEmpty == false)
        #expect(guest.machine.memory.state(at: page) == .private)
        if backend == .inPlace, !guest.readsPrivate {
            // The page tables are private, too, so that no address can be translated.
            for alias in aliases {
                let answer = try guest.ask("m\(alias),4")
                #expect(answer.hasPrefix("E.the page at") && answer.contains("no access to private memory"))
            }
            return
        }
        if guest.readsPrivate {
            #expect(
                try guest.ask("M\(aliases[0]),4:01020304") == "OK"
                    && guest.ask("m\(aliases[0]),4") == "01020304")
        } else {
            #expect(try guest.ask("m\(aliases[0]),4").hasPrefix("E.the page at"))
        }
        #expect(try guest.ask("m\(aliases[1]),4").contains("the guest's access would be a memory fault"))
        let policy = backend == .perVM ? " unspecified" : ""
        #expect(try guest.monitor("convert 0x\(aliases[0]) shared\(policy)").contains("is shared"))
        #expect(try guest.ask("m\(aliases[0]),4").contains("the guest's access would be a memory fault"))
        let expected = guest.readsPrivate && backend != .perVM ? "01020304" : "00000000"
        #expect(try guest.ask("m\(aliases[1]),4") == expected)
        let pages = try guest.monitor("pages")
        #expect(
            pages.contains("-0x\(String(page + pageSize, radix: 16))  shared  "), "\(pages)")
        #expect(pages.contains("with bit \(bit) "))
    }

    @Test(arguments: BackendUnderTest.asked()) func whyExplainsTheLastFault(on backend: BackendUnderTest)
        throws
    {
        // mov %ebx, (%rdi), with RDI in the shared alias of a private page; xor %eax, %eax; out %al, $0xf4
        let guest = try DebuggedGuest([0x89, 0x1f, 0x31, 0xc0, 0xe6, 0xf4], on: backend) {
            $0.aliases = .two
            $0.faultPolicy = .refuse
        }
        #expect(try guest.monitor("why").contains("there was no memory fault"))
        let bit = try #require(guest.machine.layout.sharedBit)
        let address = guest.machine.layout.free.lowerBound | 1 << UInt64(bit)
        let digits = (0..<8).map { String(UInt8(truncatingIfNeeded: address >> ($0 * 8)) | 0, radix: 16) }
            .map { $0.count < 2 ? "0" + $0 : $0 }.joined()
        #expect(try guest.ask("P5=" + digits) == "OK")
        #expect(try guest.ask("vCont;c") == "T0bthread:1;")
        let why = try guest.monitor("why")
        #expect(
            why.contains("as shared memory") && why.contains("the page was private")
                && why.contains("--on-fault refuse"))
        #expect(try guest.ask("vCont;c") == "X0b" && guest.end()?.exitStatus == 126)
    }

    @Test(arguments: BackendUnderTest.asked(of: [.software])) func monitorCommands(
        on backend: BackendUnderTest
    ) throws {
        let guest = try DebuggedGuest(on: backend)
        #expect(try guest.monitor("help") == guest.monitor(""))
        #expect(try guest.monitor("pages") == "0x0-0x400000  private  1024 pages\n")
        for (words, says) in [
            ("convert", "no such command"), ("convert 0x200000 both", "both: not a state"),
            ("convert x shared", "x: not a range"), ("convert 2-1 shared", "2-1: not a range"),
            ("convert 0x1+0 shared", "not a range"), ("convert 0xffffffffffffffff+1 shared", "not a range"),
            ("convert 0-0xfffffffffffff000 shared", "extends past the end of RAM"),
            ("convert 0x200000 shared never", "never: not a policy"),
            ("convert 0x200fff+2 shared zero", "0x200000-0x202000 is shared"),
            ("nonsense", "monitor nonsense: no such"),
        ] {
            let lines = try guest.monitor(words)
            #expect(lines.contains(says), "\(words): \(lines)")
        }
        #expect(
            try guest.monitor("pages")
                == "0x0-0x200000  private  512 pages\n0x200000-0x202000  shared  2 pages\n0x202000-0x400000  private  510 pages\n"
        )
    }
}
