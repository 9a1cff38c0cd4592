// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// Guests of every format and every mode, from their file to their exit status, on each backend of this machine.
@Suite("Guests that people bring", .serialized)
struct ForeignGuestTests {
    /// The backends that start these guests with memory that the kernel can read: all, because none of them needs KVM's
    /// emulator on private memory.
    static let backends = BackendUnderTest.asked()

    private func run(
        _ bytes: [UInt8], _ options: ImageOptions = ImageOptions(), on backend: BackendUnderTest,
        ram: UInt64 = 4 << 20
    ) throws -> (outcome: Outcome, text: String) {
        var configuration = MachineConfiguration()
        configuration.ramSize = ram
        let image = try BootImage.parse(bytes, options).prepared(options, ramSize: ram)
        let console = Console(nil, keeps: true)
        let machine = try Machine(
            backend: try backend.required(), configuration: configuration, image: image, console: console)
        return (machine.run(timeout: .seconds(600)), console.text)
    }

    /// Whether the guest ended because of a limit of the kernel: KVM steps over a write to CR0 by reading the instruction, which is
    /// private here, unless the CPU saves the next RIP (docs/guests.md).
    private static func cannotWriteControlRegisters(_ backend: BackendUnderTest, _ outcome: Outcome) -> Bool {
        guard backend == .inPlace, case .crashed(_, let crash) = outcome else { return false }
        return crash.cause == .emulation
    }

    private static var handedOver: ImageOptions {
        var options = ImageOptions()
        options.commandLine = "root=none verbose"
        options.modules = [
            .init(name: "one", bytes: Array("first\n".utf8), text: "one"),
            .init(name: "empty", bytes: [], text: "nothing inside"),
            .init(name: "large", bytes: Array("second\n".utf8), text: "two two"),
        ]
        return options
    }
    private static let modulesText = "one\nfirst\nnothing inside\ntwo two\nsecond\n"

    @Test(arguments: backends, [true, false])
    func multibootKernelGetsCommandLineAndModules(_ backend: BackendUnderTest, wide: Bool) throws {
        let file = ForeignGuest.elf(
            ForeignGuest.multibootCode(), entry: UInt64(ForeignGuest.base) + 12, wide: wide)
        let (outcome, text) = try run(file, Self.handedOver, on: backend)
        #expect(outcome.exitStatus == 0, "\(outcome)")
        #expect(text == "root=none verbose\n" + Self.modulesText + "minivmm\n")
        #expect(try run(file, on: backend).text == "minivmm\n")
    }

    @Test(arguments: backends) func kernelInTheMannerOfKVMUnitTestsPasses(_ backend: BackendUnderTest) throws
    {
        let file = ForeignGuest.elf(
            ForeignGuest.multibootCode(ForeignGuest.testKernel), entry: UInt64(ForeignGuest.base) + 12)
        let (outcome, text) = try run(file, on: backend)
        if Self.cannotWriteControlRegisters(backend, outcome) { return }
        #expect(outcome.exitStatus == 0, "\(outcome)")
        #expect(text == ForeignGuest.testKernelText)
    }

    @Test(arguments: backends) func multibootKernelWithLoadAddresses(_ backend: BackendUnderTest) throws {
        let (outcome, text) = try run(ForeignGuest.multibootFlat(), Self.handedOver, on: backend)
        #expect(outcome.exitStatus == 0, "\(outcome)")
        #expect(text.hasPrefix("root=none verbose\n" + Self.modulesText))
    }

    @Test(arguments: backends) func multiboot2KernelGetsCommandLineAndModules(_ backend: BackendUnderTest)
        throws
    {
        let header = ForeignGuest.multiboot2Header()
        let entry = UInt64(ForeignGuest.base) + UInt64(header.count)
        let file = ForeignGuest.elf(header + ForeignGuest.multiboot2, entry: entry)
        let (outcome, text) = try run(file, Self.handedOver, on: backend)
        #expect(outcome.exitStatus == 0, "\(outcome)")
        #expect(text == "root=none verbose\nminivmm\n" + Self.modulesText)
        // With load addresses, in a file that is not ELF.
        let base = ForeignGuest.base
        let tags: [(UInt16, UInt16, [UInt32])] = [(2, 0, [base, base, 0, 0]), (3, 0, [base + 64])]
        let flat = ForeignGuest.multiboot2Header(tags)
        #expect(flat.count == 64)
        #expect(try run(flat + ForeignGuest.multiboot2, on: backend).text == "minivmm\n")
    }

    @Test(arguments: backends, [true, false])
    func pvhKernelGetsCommandLineAndModules(_ backend: BackendUnderTest, wide: Bool) throws {
        // The ELF header has another entry, which is not used.
        let code: [UInt8] = [0xb0, 99, 0xe6, 0xf4] + ForeignGuest.pvh
        let note = ForeignGuest.note(entry: UInt64(ForeignGuest.base) + 4, size: wide ? 8 : 4)
        let file = ForeignGuest.elf(code, wide: wide, note: note)
        let (outcome, text) = try run(file, Self.handedOver, on: backend)
        #expect(outcome.exitStatus == 0, "\(outcome)")
        #expect(text == "root=none verbose\n" + Self.modulesText + "3\n")
        // With 1 MiB of RAM nothing is above 1 MiB.
        #expect(throws: MachineError.self) { try run(file, on: backend, ram: 1 << 20) }
    }

    @Test(arguments: backends) func bootSectorIsInRealModeWithoutABIOS(_ backend: BackendUnderTest) throws {
        let (outcome, text) = try run(ForeignGuest.bootSector, on: backend)
        #expect(Array(text.unicodeScalars.map(\.value)).last == 0x41)
        #expect(outcome.exitStatus == 126)
        #expect("\(outcome)".contains("called interrupt 0x13 with AX 0x201, but the machine has no BIOS"))
    }

    @Test(arguments: backends) func exceptionInRealModeIsNamed(_ backend: BackendUnderTest) throws {
        // xor cx, cx; div cx
        let (outcome, _) = try run([0x31, 0xc9, 0xf7, 0xf1], ImageOptions(mode: .real), on: backend)
        #expect(outcome.exitStatus == 126 && "\(outcome)".contains("raised exception 0 (#DE) in real mode"))
    }

    @Test(arguments: backends) func theGuestOfTheArticleRuns(_ backend: BackendUnderTest) throws {
        var options = ImageOptions(mode: .real)
        options.loadAddress = 0x1000
        options.registers = [.rax: 2, .rbx: 2]
        let (outcome, text) = try run(ForeignGuest.article, options, on: backend)
        #expect(text == "4\n" && outcome.kind == "halted", "\(outcome)")
    }

    @Test(arguments: backends) func everyModeRuns(_ backend: BackendUnderTest) throws {
        let cases: [(CPUMode, [UInt8], [UInt64])] = [
            (.real, ForeignGuest.real, [0x7c00, 0x1000, 0x0, 0x2_0000]),
            (.protected, ForeignGuest.protected, [0x10_0000, 0x1000, 0x0, 0x4_0000]),
            (.protected, ForeignGuest.paged, [0x10_0000, 0x3000]),
            (.long, ForeignGuest.long, [0x10_0000, 0x1000, 0x0, 0x4_0000]),
        ]
        for (mode, code, places) in cases where code != ForeignGuest.paged || backend.canTurnPagingOn {
            for place in places {
                var options = ImageOptions(mode: mode)
                options.loadAddress = place
                let (outcome, _) = try run(code, options, on: backend)
                if Self.cannotWriteControlRegisters(backend, outcome) { continue }
                #expect(outcome.exitStatus == 42, "\(mode) at \(place): \(outcome)")
            }
        }
    }

    /// Calls by port take and return registers of 32 bits.
    @Test(arguments: backends) func callsByPortWorkInEveryMode(_ backend: BackendUnderTest) throws {
        for (mode, code) in [
            (.protected, ForeignGuest.callInProtectedMode), (.real, ForeignGuest.callInRealMode),
        ] as [(CPUMode, [UInt8])] {
            let (outcome, _) = try run(code, ImageOptions(mode: mode), on: backend)
            #expect(outcome.exitStatus == 42, "\(mode): \(outcome)")
        }
    }

    /// An ELF file says its mode by its class, unless the option says another.
    @Test(arguments: backends) func executablesWithoutAProtocolRun(_ backend: BackendUnderTest) throws {
        #expect(try run(ForeignGuest.elf(ForeignGuest.protected), on: backend).outcome.exitStatus == 42)
        #expect(
            try run(ForeignGuest.elf(ForeignGuest.long, wide: true), on: backend).outcome.exitStatus == 42)
        var elf = ELFBuilder()
        elf.segments = [.init(virtual: 0x8000, content: ForeignGuest.real)]
        elf.entry = 0x8000
        #expect(try run(elf.bytes, ImageOptions(mode: .real), on: backend).outcome.exitStatus == 42)
    }
}

extension BackendUnderTest {
    /// Whether a guest can turn paging on by itself. The KVM of some kernels (PVM) raises an exception at the write to CR0, with
    /// any memory.
    fileprivate var canTurnPagingOn: Bool {
        switch self {
        case .software, .trapOverSoftware, .aliasesOverSoftware: true
        case .inPlace, .perVM, .trap: Self.kernelTurnsPagingOn
        }
    }

    /// The guest with paging on a plain memslot, without anything of this package but the calls.
    private static let kernelTurnsPagingOn: Bool = {
        guard let kvm = TrapHost.kvm,
            let exit = try? PagingTrial.exit(of: ForeignGuest.paged, on: kvm), case .io = exit
        else { return false }
        return true
    }()
}

private enum PagingTrial {
    static func exit(of code: [UInt8], on kvm: any Backend) throws -> Exit {
        let size: UInt64 = 4 << 20
        let vm = try kvm.createVM(.default, sharedBit: nil)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: Int(size), alignment: Int(pageSize))
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: Int(size))
        for (index, byte) in code.enumerated() {
            memory.storeBytes(of: byte, toByteOffset: Int(BootImage.flatBase) + index, as: UInt8.self)
        }
        var slot = ckvm_userspace_memory_region2()
        slot.memory_size = size
        slot.userspace_addr = UInt64(UInt(bitPattern: memory))
        try vm.setUserMemoryRegion2(slot)
        let vcpu = try vm.createVCPU(id: 0)
        try vcpu.setCPUID(kvm.supportedCPUID())
        try vcpu.setSpecialRegisters(vcpu.specialRegisters().inProtectedMode())
        var registers = ckvm_regs()
        registers.rip = BootImage.flatBase
        registers.rflags = 2
        try vcpu.setRegisters(registers)
        return vcpu.runToExit()
    }
}
