// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// Code and page tables behind the wrong alias: the kernel reports no page, so the adapter finds it.
@Suite("MemslotTrapKVM: code", .enabled(if: TrapHost.canTrap, TrapHost.reason), .timeLimit(.minutes(120)))
struct TrapCodeTests {
    static let at = TrapGuest.data

    @Test(arguments: PageState.allCases)
    func `a jump to a page through the wrong alias faults on that page`(wanted: PageState) throws {
        // jmp rsi
        let guest = try TrapGuest([0xff, 0xe6])
        let alias = wanted == .shared ? TrapHost.shared : 0
        // out 0xf4, al
        try guest.view.put(Self.at + 0x123, [0xe6, 0xf4])
        try guest.file.convert(Self.at, to: wanted.other)
        try guest.start(rsi: (Self.at + 0x123) | alias)
        #expect(guest.fault() == .on(Self.at, wanting: wanted))
        #expect(try guest.vcpu.registers().rip == (Self.at + 0x123) | alias)
        #expect(guest.fault() == .on(Self.at, wanting: wanted))
        try guest.file.convert(Self.at, to: wanted)
        #expect(guest.ends())
    }

    @Test func `an instruction that extends into a wrong page faults on that page`() throws {
        let guest = try TrapGuest([0xff, 0xe6])
        // mov rax, 0x0807060504030201; out 0xf4, al
        let code: [UInt8] = [0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xe6, 0xf4]
        try guest.view.put(Self.at + pageSize - 4, code)
        try guest.file.convert(Self.at, to: .private)
        try guest.start(rsi: Self.at + pageSize - 4)
        #expect(try guest.finish() == [.on(Self.at + pageSize, wanting: .private)])
        #expect(try guest.vcpu.registers().rax == 0x0807_0605_0403_0201)
    }

    @Test func `a page table behind the wrong alias faults, and the access is done after the conversion`()
        throws
    {
        // mov rax, [rsi]; out 0xf4, al
        let guest = try TrapGuest([0x48, 0x8b, 0x06, 0xe6, 0xf4])
        // Entry 7 of the low page directory: a page table at `at`, reached through the private alias, which maps the
        // page after it.
        try guest.file.convert(0, 1 << 20, to: .shared)
        try guest.view.putWord(0x3000 + 7 * 8, Self.at | 3)
        try guest.view.putWord(Self.at, (Self.at + pageSize) | TrapHost.shared | 3)
        try guest.view.putWord(Self.at + pageSize, 0x5a)
        try guest.file.convert(0, 1 << 20, to: .private)
        try guest.start(rsi: 7 << 21)
        #expect(try guest.finish() == [.on(Self.at, wanting: .private)])
        #expect(try guest.vcpu.registers().rax == 0x5a)
    }

    @Test func `code behind a page table behind the wrong alias takes two faults`() throws {
        let guest = try TrapGuest([0xff, 0xe6])
        try guest.file.convert(0, 1 << 20, to: .shared)
        try guest.view.putWord(0x3000 + 7 * 8, Self.at | 3)
        try guest.view.putWord(Self.at, (Self.at + pageSize) | 3)
        try guest.view.put(Self.at + pageSize, [0xe6, 0xf4])
        try guest.file.convert(0, 1 << 20, to: .private)
        try guest.start(rsi: 7 << 21)
        #expect(
            try guest.finish() == [
                .on(Self.at, wanting: .private), .on(Self.at + pageSize, wanting: .private),
            ])
    }

    @Test func `a triple fault caused by the guest stays one`() throws {
        // ud2, without an IDT
        let guest = try TrapGuest([0x0f, 0x0b])
        try guest.start()
        guard case .shutdown = guest.vcpu.runToExit() else {
            Issue.record("not SHUTDOWN but \(guest.vcpu.runPage.exitReason)")
            return
        }
    }

    @Test func `a jump outside all regions stays an internal error`() throws {
        let guest = try TrapGuest([0xff, 0xe6])
        try guest.file.convert(0, 1 << 20, to: .shared)
        // A 2 MiB page far above RAM.
        try guest.view.putWord(0x3000 + 9 * 8, 0x4000_0083)
        try guest.file.convert(0, 1 << 20, to: .private)
        try guest.start(rsi: 9 << 21)
        guard case .internalError = guest.vcpu.runToExit() else {
            Issue.record("not INTERNAL_ERROR but \(guest.vcpu.runPage.exitReason)")
            return
        }
    }

    @Test func `an access outside all regions stays MMIO`() throws {
        // mov rax, [rsi]; mov [rsi], rax; out
        let guest = try TrapGuest([0x48, 0x8b, 0x06, 0x48, 0x89, 0x06, 0xe6, 0xf4])
        try guest.file.convert(0, 1 << 20, to: .shared)
        try guest.view.putWord(0x3000 + 9 * 8, 0x4000_0083)
        try guest.file.convert(0, 1 << 20, to: .private)
        try guest.start(rsi: 9 << 21)
        guard case .mmio(var access) = guest.vcpu.runToExit() else {
            Issue.record("not MMIO")
            return
        }
        #expect(access.phys_addr == 0x4000_0000 && access.len == 8 && access.is_write == 0)
        access.data = (1, 2, 3, 4, 5, 6, 7, 8)
        guest.vcpu.runPage.mmio = access
        guard case .mmio(let write) = guest.vcpu.runToExit() else {
            Issue.record("not MMIO")
            return
        }
        #expect(write.is_write == 1 && write.data.0 == 1 && write.data.7 == 8)
        #expect(guest.ends())
    }
}
