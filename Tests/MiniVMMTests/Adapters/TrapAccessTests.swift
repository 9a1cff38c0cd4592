// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// Every kind of data access through the wrong alias, on this machine's kernel.
@Suite("MemslotTrapKVM: accesses", .enabled(if: TrapHost.canTrap, TrapHost.reason), .timeLimit(.minutes(120)))
struct TrapAccessTests {
    /// `mov [rdi], rax` and its narrower forms; `out 0xf4, al`.
    static let stores: [Int: [UInt8]] = [
        1: [0x88, 0x07, 0xe6, 0xf4],  // mov [rdi], al
        2: [0x66, 0x89, 0x07, 0xe6, 0xf4],  // mov [rdi], ax
        4: [0x89, 0x07, 0xe6, 0xf4],  // mov [rdi], eax
        8: [0x48, 0x89, 0x07, 0xe6, 0xf4],  // mov [rdi], rax
    ]
    static let loads: [Int: [UInt8]] = [
        1: [0x8a, 0x06, 0xe6, 0xf4],  // mov al, [rsi]
        2: [0x66, 0x8b, 0x06, 0xe6, 0xf4],  // mov ax, [rsi]
        4: [0x8b, 0x06, 0xe6, 0xf4],  // mov eax, [rsi]
        8: [0x48, 0x8b, 0x06, 0xe6, 0xf4],  // mov rax, [rsi]
    ]
    static let value: UInt64 = 0x8877_6655_4433_2211
    static let at = TrapGuest.data

    @Test(arguments: [1, 2, 4, 8], TrapHost.backings)
    func `a store through the wrong alias faults, and is done after the conversion`(
        size: Int, backing: TrapBacking
    ) throws {
        let code = try #require(Self.stores[size])
        let guest = try TrapGuest(code, backing: backing)
        let kept = (UInt64.max << (UInt64(size) * 8 - 1)) << 1
        for state in [PageState.private, .shared] {
            let alias = state == .shared ? TrapHost.shared : 0
            let address = Self.at + 16
            try guest.file.convert(Self.at, to: .shared)
            try guest.view.putWord(address, .max)
            try guest.file.convert(Self.at, to: state.other)
            try guest.start(rax: Self.value, rdi: address | alias)
            #expect(guest.fault() == .on(Self.at, wanting: state))
            try guest.file.convert(Self.at, to: state)
            #expect(guest.ends())
            try guest.file.convert(Self.at, to: .shared)
            #expect(try guest.view.word(address) == kept | (Self.value & ~kept))
            #expect(try guest.view.word(address - 8) == 0)
            #expect(try guest.view.word(address + 8) == 0)
        }
    }

    @Test(arguments: [1, 2, 4, 8], TrapHost.backings)
    func `a load through the wrong alias faults, and gets the bytes after the conversion`(
        size: Int, backing: TrapBacking
    ) throws {
        let code = try #require(Self.loads[size])
        let guest = try TrapGuest(code, backing: backing)
        // A 4-byte load clears the upper half, as the CPU does.
        let kept = size == 4 ? 0 : (UInt64.max << (UInt64(size) * 8 - 1)) << 1
        let read = size == 4 ? 0xffff_ffff : ~kept
        try guest.view.putWord(Self.at + 8, Self.value)
        for state in [PageState.private, .shared] {
            let alias = state == .shared ? TrapHost.shared : 0
            try guest.file.convert(Self.at, to: state.other)
            try guest.start(rax: .max, rsi: (Self.at + 8) | alias)
            #expect(guest.fault() == .on(Self.at, wanting: state))
            try guest.file.convert(Self.at, to: state)
            #expect(guest.ends())
            #expect(try guest.vcpu.registers().rax == kept | (Self.value & read))
        }
    }

    @Test func `the right alias never faults`() throws {
        // mov [rdi], rax; mov rax, [rsi]; out
        let guest = try TrapGuest([0x48, 0x89, 0x07, 0x48, 0x8b, 0x06, 0xe6, 0xf4])
        try guest.start(rax: Self.value, rsi: Self.at | TrapHost.shared, rdi: Self.at | TrapHost.shared)
        #expect(guest.ends())
        #expect(try guest.view.word(Self.at) == Self.value)
        try guest.file.convert(Self.at, to: .private)
        try guest.start(rax: 5, rsi: Self.at, rdi: Self.at)
        #expect(guest.ends())
        #expect(try guest.vcpu.registers().rax == 5)
    }

    /// Which of the pages below and above the boundary are in the wrong state when the guest accesses them.
    struct Wrong: CustomTestStringConvertible {
        let low: Bool
        let high: Bool
        var testDescription: String { "low \(low), high \(high)" }
        static let all = [
            Wrong(low: true, high: true), Wrong(low: true, high: false), Wrong(low: false, high: true),
        ]
    }

    /// The kernel splits 8 bytes across a page boundary into two pieces of n and 8 - n bytes: sizes 1 to 7.
    @Test(arguments: Wrong.all, PageState.allCases)
    func `an access across a page boundary faults once per wrong page`(wrong: Wrong, wanted: PageState) throws
    {
        let alias = wanted == .shared ? TrapHost.shared : 0
        let low = Self.at
        let high = Self.at + pageSize
        let expected =
            (wrong.low ? [MemoryFault.on(low, wanting: wanted)] : [])
            + (wrong.high ? [.on(high, wanting: wanted)] : [])
        let store = try TrapGuest(try #require(Self.stores[8]))
        let load = try TrapGuest(try #require(Self.loads[8]))
        for below in 1...7 as ClosedRange<UInt64> {
            let address = high - below
            for guest in [store, load] {
                try guest.file.convert(low, 2 * pageSize, to: .shared)
                try guest.view.putWord(address, guest === load ? Self.value : 0)
                try guest.file.convert(low, to: wrong.low ? wanted.other : wanted)
                try guest.file.convert(high, to: wrong.high ? wanted.other : wanted)
                try guest.start(rax: Self.value, rsi: address | alias, rdi: address | alias)
                #expect(try guest.finish() == expected)
                #expect(try guest.vcpu.registers().rax == Self.value)
                #expect(guest.file.refusal(of: .conversion(low, 2 * pageSize, wanted)).errno == nil)
                try guest.file.convert(low, 2 * pageSize, to: .shared)
                #expect(try guest.view.word(address) == Self.value)
            }
        }
    }

    @Test func `rep movsb crosses a state boundary`() throws {
        // rep movsb; out 0xf4, al
        let guest = try TrapGuest([0xf3, 0xa4, 0xe6, 0xf4])
        let text = (0..<64).map { UInt8($0 + 1) }
        // From a private page into a wrong page, and out of wrong pages too.
        let from = Self.at + 8 * pageSize - 20
        let to = Self.at + pageSize - 30
        try guest.view.put(from, text)
        try guest.file.convert(Self.at + pageSize, to: .private)
        try guest.start(rcx: 64, rsi: from, rdi: to | TrapHost.shared)
        #expect(
            try guest.finish() == [
                .on(from, wanting: .private), .on(from + 20, wanting: .private),
                .on(Self.at + pageSize, wanting: .shared),
            ])
        #expect(try guest.view.bytes(to, 64) == text)
        let registers = try guest.vcpu.registers()
        #expect(registers.rcx == 0)
        #expect(registers.rdi == (to + 64) | TrapHost.shared)
    }

    @Test func `rep stosq crosses a state boundary inside an element`() throws {
        // rep stosq; out 0xf4, al
        let guest = try TrapGuest([0xf3, 0x48, 0xab, 0xe6, 0xf4])
        let to = Self.at + pageSize - 19
        try guest.file.convert(Self.at + pageSize, to: .private)
        try guest.start(rax: Self.value, rcx: 5, rdi: to)
        #expect(try guest.finish() == [.on(Self.at, wanting: .private)])
        try guest.file.convert(Self.at, 2 * pageSize, to: .shared)
        for index in 0..<5 as Range<UInt64> {
            #expect(try guest.view.word(to + 8 * index) == Self.value)
        }
        #expect(try guest.view.word(to + 40) == 0)
    }

    @Test(
        arguments: [
            ([0x48, 0x01, 0x07], 0x1000, 0x1005, 5),  // add [rdi], rax
            ([0x48, 0x87, 0x07], 0x1000, 5, 0x1000),  // xchg [rdi], rax
            ([0xf0, 0x48, 0x0f, 0xc1, 0x07], 0x1000, 0x1005, 0x1000),  // lock xadd [rdi], rax
            ([0x48, 0xff, 0x07], 0x1000, 0x1001, 5),  // inc qword [rdi]
        ] as [([UInt8], UInt64, UInt64, UInt64)])
    func `a read-modify-write through the wrong alias`(
        code: [UInt8], before: UInt64, after: UInt64, rax: UInt64
    ) throws {
        let guest = try TrapGuest(code + [0xe6, 0xf4])
        try guest.view.putWord(Self.at, before)
        try guest.start(rax: 5, rdi: Self.at)
        #expect(try guest.finish() == [.on(Self.at, wanting: .private)])
        #expect(try guest.vcpu.registers().rax == rax)
        try guest.file.convert(Self.at, to: .shared)
        #expect(try guest.view.word(Self.at) == after)
    }

    @Test func `a fault without a conversion is presented again`() throws {
        let guest = try TrapGuest(try #require(Self.stores[8]))
        try guest.start(rax: Self.value, rdi: Self.at)
        for _ in 0..<3 {
            #expect(guest.fault() == .on(Self.at, wanting: .private))
            #expect(try guest.view.word(Self.at) == 0)
        }
        try guest.file.convert(Self.at, to: .private)
        #expect(guest.ends())
    }

    @Test func `ring 3 moves 16 bytes from and to wrong pages`() throws {
        // movups xmm0, [rsi]; movups [rdi], xmm0; out 0xf4, al
        let guest = try TrapGuest([0x0f, 0x10, 0x06, 0x0f, 0x11, 0x07, 0xe6, 0xf4], ring: 3)
        let text = (1...16).map { UInt8($0) }
        let from = Self.at + pageSize - 3
        let to = Self.at + 9 * pageSize - 11
        try guest.view.put(from, text)
        try guest.file.convert(Self.at + 9 * pageSize, to: .private)
        try guest.start(rsi: from, rdi: to | TrapHost.shared)
        #expect(
            try guest.finish() == [
                .on(Self.at, wanting: .private), .on(Self.at + pageSize, wanting: .private),
                .on(Self.at + 9 * pageSize, wanting: .shared),
            ])
        #expect(try guest.view.bytes(to, 16) == text)
    }

    @Test func `a backend before 6 8 does it as well`() throws {
        let code = try #require(Self.stores[8])
        let guest = try TrapGuest(code, backing: .memfd, hasRegion2: false)
        try guest.start(rax: Self.value, rdi: Self.at + pageSize - 4)
        #expect(
            try guest.finish() == [
                .on(Self.at, wanting: .private), .on(Self.at + pageSize, wanting: .private),
            ])
        try guest.file.convert(Self.at, 2 * pageSize, to: .shared)
        #expect(try guest.view.word(Self.at + pageSize - 4) == Self.value)
    }
}
