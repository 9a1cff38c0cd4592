// SPDX-License-Identifier: MIT
import GuestPayloads
import SystemPackage
import Testing

@testable import MiniVMM

/// A guest that raises an exception has no handler for it: the report is the same on every available backend.
@Suite("Crashes", .serialized)
struct CrashTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let code: [UInt8]
        /// Offset of the instruction that raises the exception.
        let offset: UInt64
        let exception: CPUException
    }

    static let cases: [Case] = [
        Case(
            testDescription: "xor ecx, ecx; div ecx", code: [0x31, 0xc9, 0xf7, 0xf1], offset: 2,
            exception: CPUException(0)),
        Case(testDescription: "ud2", code: [0x0f, 0x0b], offset: 0, exception: CPUException(6)),
        Case(
            testDescription: "a write to an address that is not mapped",
            // mov rbx, 0xffff800012345678; mov [rbx], rax
            code: [0x48, 0xbb, 0x78, 0x56, 0x34, 0x12, 0x00, 0x80, 0xff, 0xff, 0x48, 0x89, 0x03], offset: 10,
            exception: CPUException(14, errorCode: 2, address: 0xffff_8000_1234_5678)),
        Case(
            testDescription: "a read from an address that is not canonical",
            // mov rbx, 0xff00000012345678; mov rax, [rbx]
            code: [0x48, 0xbb, 0x78, 0x56, 0x34, 0x12, 0x00, 0x00, 0x00, 0xff, 0x48, 0x8b, 0x03], offset: 10,
            exception: CPUException(13)),
        Case(
            testDescription: "ud2 without a stack", code: [0xbc, 0x00, 0x00, 0xad, 0xde, 0x0f, 0x0b],
            offset: 5,
            exception: CPUException(6)),
    ]

    @Test(arguments: cases, BackendUnderTest.asked())
    func `the exception, its instruction and its place are reported`(
        _ crash: Case, on backend: BackendUnderTest
    ) throws {
        let machine = try Machine(
            backend: backend.required(aliases: .one), configuration: MachineConfiguration(),
            image: try .flat(crash.code), console: Console(nil))
        let outcome = machine.run(timeout: .seconds(600))
        guard case .crashed(0, let found) = outcome, case .exception(let unhandled) = found.cause else {
            Issue.record("\(outcome)")
            return
        }
        #expect(unhandled.exception == crash.exception)
        #expect(unhandled.code.prefix(2) == crash.code[Int(crash.offset)...].prefix(2))
        #expect(unhandled.code.count == 15)
        #expect(found.place?.rip == BootImage.flatBase + crash.offset)
        #expect(unhandled.registers[4] == found.place?.rsp)
        #expect(unhandled.pageTables == machine.layout.tables.root)
    }

    @Test(arguments: BackendUnderTest.asked())
    func `without the handlers an exception is a triple fault`(on backend: BackendUnderTest) throws {
        // lidt [rip+2]; ud2; then a descriptor with limit 0: the handlers are gone.
        let code: [UInt8] =
            [0x0f, 0x01, 0x1d, 0x02, 0x00, 0x00, 0x00, 0x0f, 0x0b] + [UInt8](repeating: 0, count: 10)
        let machine = try Machine(
            backend: backend.required(aliases: .one), configuration: MachineConfiguration(),
            image: try .flat(code), console: Console(nil))
        let outcome = machine.run(timeout: .seconds(600))
        guard case .crashed(0, let found) = outcome, case .tripleFault(let known) = found.cause else {
            Issue.record("\(outcome)")
            return
        }
        switch known {
        case .of(let unhandled):
            #expect(unhandled.exception == CPUException(6))
            #expect(found.place?.rip == BootImage.flatBase + 7)
        case .reset: #expect(found.place == nil)
        case .unknown: #expect(found.place != nil)
        }
    }

    @Test(arguments: BackendUnderTest.asked())
    func `a guest may write to the port of the handlers`(on backend: BackendUnderTest) throws {
        // mov al, 5; out 0xea, al; out 0xf4, al
        let machine = try Machine(
            backend: backend.required(aliases: .one), configuration: MachineConfiguration(),
            image: try .flat([0xb0, 5, 0xe6, 0xea, 0xe6, 0xf4]), console: Console(nil))
        #expect(machine.run(timeout: .seconds(600)).exitStatus == 5)
    }

    @Test(arguments: BackendUnderTest.asked())
    func `a guest that jumps into a handler does not confuse the monitor`(on backend: BackendUnderTest) throws
    {
        // mov eax, ADDRESS; jmp rax: an entry, the frame, and the loop over bytes, with RBX at a readable address
        for address in [0x1240, 0x1240 + 14 * 8, 0x1340, 0x134a, 0x134c] as [UInt32] {
            let bytes = (0..<4).map { UInt8(truncatingIfNeeded: address >> ($0 * 8)) }
            let machine = try Machine(
                backend: backend.required(aliases: .one), configuration: MachineConfiguration(),
                image: try .flat([0xbb, 0, 0, 0x10, 0, 0xb8] + bytes + [0xff, 0xe0]), console: Console(nil))
            let outcome = machine.run(timeout: .seconds(5))
            #expect([126, 124].contains(outcome.exitStatus), "\(address): \(outcome)")
        }
    }

    /// On memslots that are carved, the CPU finds no page table there and raises #PF in the guest. The handlers of the monitor
    /// see it, and the access is executed again once the page is private.
    @Test(arguments: BackendUnderTest.asked(of: [.trap, .software, .trapOverSoftware]))
    func `a page table behind the wrong alias is converted, and the access done`(on backend: BackendUnderTest)
        throws
    {
        // Builds tables for linear address 2 << 39 in free RAM, with 42 in the page behind them, converts the last table to
        // shared, and ends with the byte that it reads through the tables.
        let code: [UInt8] = [
            0x48, 0x8b, 0x5f, 0x38, 0x48, 0x8d, 0x83, 0x00, 0x10, 0x00, 0x00, 0x48, 0x83, 0xc8, 0x03, 0x0f,
            0x20, 0xd9, 0x48, 0x89, 0x41, 0x10, 0x48, 0x8d, 0x83, 0x00, 0x20, 0x00, 0x00, 0x48, 0x83, 0xc8,
            0x03, 0x48, 0x89, 0x83, 0x00, 0x10, 0x00, 0x00, 0x48, 0x8d, 0x83, 0x00, 0x30, 0x00, 0x00, 0x48,
            0x83, 0xc8, 0x03, 0x48, 0x89, 0x83, 0x00, 0x20, 0x00, 0x00, 0x48, 0x8d, 0x83, 0x00, 0x40, 0x00,
            0x00, 0x48, 0x83, 0xc8, 0x03, 0x48, 0x89, 0x83, 0x00, 0x30, 0x00, 0x00, 0xc6, 0x83, 0x00, 0x40,
            0x00, 0x00, 0x2a, 0x48, 0x89, 0xdd, 0x48, 0x81, 0xc3, 0x00, 0x30, 0x00, 0x00, 0xb9, 0x01, 0x00,
            0x00, 0x00, 0xba, 0x00, 0x01, 0x00, 0x00, 0xb8, 0x0c, 0x00, 0x00, 0x00, 0xe7, 0xe8, 0x48, 0x85,
            0xc0, 0x75, 0x11, 0xb8, 0x02, 0x00, 0x00, 0x00, 0x48, 0xc1, 0xe0, 0x27, 0x31, 0xd2, 0x8a, 0x10,
            0x89, 0xd0, 0xe6, 0xf4, 0xb0, 0x01, 0xe6, 0xf4,
        ]
        var configuration = MachineConfiguration()
        configuration.aliases = .two
        let machine = try Machine(
            backend: backend.required(aliases: .two), configuration: configuration, image: try .flat(code),
            console: Console(nil))
        #expect(machine.run(timeout: .seconds(600)).exitStatus == 42)
        #expect(machine.statistics.memoryFaults == 1)
    }
}
