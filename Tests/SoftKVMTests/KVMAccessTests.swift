// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// KVM emulates an instruction with accesses through the host mapping, which cannot reach private memory.
@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct KVMAccessTests {
    private static let data: UInt64 = 0x200000
    /// mov al, 1; out 0xf4, al; outsb; hlt
    private static let outsb: [UInt8] = [0xb0, 0x01, 0xe6, 0xf4, 0x6e, 0xf4]
    private static let insb: [UInt8] = [0x6c, 0xf4]

    private enum Part: CaseIterable {
        case tables, code, data
        var page: UInt64 {
            switch self {
            case .tables: Guest.tables / pageSize
            case .code: Guest.code / pageSize
            case .data: KVMAccessTests.data / pageSize
            }
        }
    }

    private func guest(
        _ code: [UInt8], private parts: [Part], _ configuration: SoftKVM.Configuration = .init()
    ) throws -> Guest {
        let guest = try Guest(code, configuration)
        try guest.ram.put([0x41], at: Self.data)
        try guest.change { ($0.rsi, $0.rdi, $0.rdx, $0.rcx) = (Self.data, Self.data, 0x3f8, 1) }
        for part in parts { #expect(guest.model.file.convert(part.page, 1, to: .private).errno == nil) }
        return guest
    }

    @Test func outsReadsThroughTheHostMapping() throws {
        let shared = try guest(Self.outsb, private: [])
        #expect(shared.vcpu.exit() == "io out 244 1")
        #expect(shared.vcpu.exit() == "io out 1016 1" && shared.vcpu.exit() == "halt")
        for (part, wanted) in zip(Part.allCases, ["shutdown", "internal error 1", "mmio read 0x200000 1"]) {
            let guest = try guest(Self.outsb, private: [part])
            // A port access that is not a string instruction needs no emulation.
            #expect(guest.vcpu.exit() == "io out 244 1")
            #expect(guest.vcpu.exit() == wanted, "\(part)")
        }
    }

    @Test func insWritesThroughTheHostMapping() throws {
        let guest = try guest(Self.insb, private: [.data])
        #expect(guest.vcpu.exit() == "io in 1016 1")
        #expect(guest.vcpu.exit() == "mmio write 0x200000 1" && guest.vcpu.exit() == "halt")
    }

    @Test func outsWritesAnElementReadByTheMonitor() throws {
        let guest = try guest([0x6e, 0xf4], private: [.data])
        #expect(guest.vcpu.exit() == "mmio read 0x200000 1")
        withUnsafeMutableBytes(of: &guest.vcpu.runPage.mmio.data) { $0[0] = 0x5a }
        #expect(guest.vcpu.exit() == "io out 1016 1")
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rsi == Self.data + 1)
    }

    /// mov al, [rbx] without memory there: KVM fetches the instruction to emulate it.
    @Test func mmioNeedsReadableCodeAndTables() throws {
        for (parts, wanted) in [
            ([], "mmio read 0x40000000 1"), ([.tables], "shutdown"), ([.code], "internal error 1"),
        ] as [([Part], String)] {
            let guest = try guest([0x8a, 0x03, 0xf4], private: parts)
            try guest.change { $0.rbx = 0x4000_0000 }
            #expect(guest.vcpu.exit() == wanted)
        }
    }

    /// cpuid; rdmsr of EFER; hlt: KVM can step over private code only if the CPU reports the next RIP.
    @Test(arguments: [true, false]) func steppingOverDependsOnTheCPU(_ isSaved: Bool) throws {
        let code: [UInt8] = [0x31, 0xc0, 0x0f, 0xa2, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0xf4]
        for parts in [[], [.code], [.tables]] as [[Part]] {
            let guest = try guest(code, private: parts, .init(nextRIPSaved: isSaved))
            #expect(guest.vcpu.exit() == (isSaved || parts.isEmpty ? "halt" : "internal error 1"), "\(parts)")
        }
    }

    /// The monitor's result of a hypercall is stored before KVM looks for the end of the instruction.
    @Test func hypercallReturnsBeforeSteppingOverFails() throws {
        let guest = try guest([0x0f, 0x01, 0xd9, 0xf4], private: [.code], .init(nextRIPSaved: false))
        try guest.model.vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
        try guest.change { ($0.rax, $0.rbx, $0.rcx, $0.rdx) = (CKVM_HC_MAP_GPA_RANGE, Self.data, 1, 0x10) }
        #expect(guest.vcpu.exit().hasPrefix("hypercall"))
        guest.vcpu.runPage.hypercall.ret = 7
        #expect(guest.vcpu.exit() == "internal error 1")
        let registers = try guest.vcpu.registers()
        #expect(registers.rax == 7 && registers.rip == Guest.code)
    }

    /// On a VM with a shared bit KVM's own accesses are not restricted.
    @Test func kvmReadsPrivatePagesWithTwoAliases() throws {
        let aliases = try Guest([0x6e, 0xf4], sharedBit: 39, isPrivate: true)
        try aliases.change { ($0.rsi, $0.rdx) = (Self.data, 0x3f8) }
        #expect(aliases.vcpu.exit() == "io out 1016 1" && aliases.vcpu.exit() == "halt")
    }
}
