// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct MemoryFaultTests {
    /// Writes through one alias, reads through the other.
    private static let writeThenRead: [UInt8] = [
        0x48, 0x89, 0x07,  // mov [rdi], rax
        0x48, 0x8b, 0x1e,  // mov rbx, [rsi]
        0xf4,  // hlt
    ]

    private func page(_ gpa: UInt64) -> UInt64 { gpa / pageSize }

    @Test func accessThroughTheWrongAliasCompletesAfterTheConversion() throws {
        let guest = try Guest(Self.writeThenRead, sharedBit: 39, isPrivate: true)
        try guest.change {
            $0.rax = 0x1122_3344_5566_7788
            $0.rdi = Guest.sharedBit | 0x20010
            $0.rsi = 0x20010
        }
        // A shared access to a private page needs a conversion to shared.
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 0 errno 14")
        #expect(try guest.vcpu.registers().rip == Guest.code)
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 0 errno 14")
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        // The second instruction needs a conversion to private.
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 8 errno 14")
        #expect(try guest.vcpu.registers().rip == Guest.code + 3)
        #expect(try guest.ram.word(at: 0x20010) == 0x1122_3344_5566_7788)
        #expect(guest.model.file.convert(page(0x20000), 1, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 0x1122_3344_5566_7788)
    }

    @Test func conversionZapsAMappedPage() throws {
        let guest = try Guest(
            [
                0x48, 0xff, 0x07,  // inc qword [rdi]
                0xe6, 0x10,  // out 0x10, al
                0xeb, 0xf9,  // jmp back to the first
            ], sharedBit: 39, isPrivate: true)
        try guest.change { $0.rdi = 0x30000 }
        #expect(guest.vcpu.exit() == "io out 16 1")
        #expect(guest.model.file.convert(page(0x30000), 1, to: .shared).errno == nil)
        #expect(guest.vcpu.exit() == "fault 0x30000 4096 8 errno 14")
        #expect(try guest.ram.word(at: 0x30000) == 1)
        // The conversion of the next page does not affect this page.
        #expect(guest.model.file.convert(page(0x30000), 2, to: .private).errno == nil)
        #expect(guest.model.file.convert(page(0x31000), 1, to: .shared).errno == nil)
        #expect(guest.vcpu.exit() == "io out 16 1")
    }

    @Test func codeAndPageTablesFault() throws {
        let code = try Guest([0xf4], sharedBit: 39, isPrivate: true)
        #expect(code.model.file.convert(page(Guest.code), 1, to: .shared).errno == nil)
        #expect(code.vcpu.exit() == "fault 0x10000 4096 8 errno 14")
        #expect(code.model.file.convert(page(Guest.code), 1, to: .private).errno == nil)
        #expect(code.vcpu.exit() == "halt")

        let tables = try Guest([0xf4], sharedBit: 39, isPrivate: true)
        #expect(tables.model.file.convert(page(Guest.tables) + 1, 1, to: .shared).errno == nil)
        #expect(tables.vcpu.exit() == "fault 0x2000 4096 8 errno 14")
    }

    @Test func memslotOfAClosedFileOnlyFaults() throws {
        let guest = try Guest(Self.writeThenRead)
        let other: UInt64 = 1 << 30
        var file: (any KVMGuestMemfd)?
        file = try guest.model.vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(try #require(file), id: 1, gpa: other))
        try guest.change {
            $0.rdi = other + 0x10
            $0.rsi = other + pageSize
        }
        file = nil
        for _ in 0..<2 { #expect(guest.vcpu.exit() == "fault 0x40000000 4096 0 errno 14") }
        // The memslot can be deleted and replaced.
        var deletion = slot(guest.model.file, id: 1)
        deletion.memory_size = 0
        try guest.model.vm.setUserMemoryRegion2(deletion)
        let fresh = try guest.model.vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(fresh, id: 1, gpa: other))
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func closingAFileZapsItsPages() throws {
        let guest = try Guest([0x48, 0xff, 0x07, 0xe6, 0x10, 0xeb, 0xf9])
        var file: (any KVMGuestMemfd)? = try guest.model.vm.createGuestMemfd(size: pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(try #require(file), id: 1, gpa: 1 << 30))
        var mapping = try file?.map(offset: 0, length: pageSize)
        try guest.change { $0.rdi = 1 << 30 }
        #expect(guest.vcpu.exit() == "io out 16 1")
        file = nil
        // The mapping keeps the file open.
        #expect(guest.vcpu.exit() == "io out 16 1")
        #expect(mapping != nil)
        mapping = nil
        #expect(guest.vcpu.exit() == "fault 0x40000000 4096 0 errno 14")
    }

    @Test func pageCrossingAccessReportsTheMismatchingPage() throws {
        let guest = try Guest(
            [
                0x48, 0x83, 0x07, 0x05,  // add qword [rdi], 5
                0xf4,  // hlt
            ], sharedBit: 39, isPrivate: true)
        #expect(guest.model.file.convert(page(0x21000), 1, to: .shared).errno == nil)
        try guest.ram.put(word: 0, at: 0x21000)
        try guest.change { $0.rdi = 0x20ffc }
        #expect(guest.vcpu.exit() == "fault 0x21000 4096 8 errno 14")
        #expect(guest.model.file.convert(page(0x21000), 1, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(guest.model.file.convert(page(0x20000), 2, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: 0x20ffc) == 5)
    }

    @Test func storeThatFaultsOnItsSecondPageWritesNothing() throws {
        // mov [rdi], rax; hlt
        let guest = try Guest([0x48, 0x89, 0x07, 0xf4], sharedBit: 39, isPrivate: true)
        #expect(guest.model.file.convert(page(0x21000), 1, to: .shared).errno == nil)
        try guest.change { ($0.rax, $0.rdi) = (.max, 0x20ffc) }
        // The second time, the first page is in the TLB.
        for _ in 0..<2 { #expect(guest.vcpu.exit() == "fault 0x21000 4096 8 errno 14") }
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: 0x20ffc) == 0)
    }

    @Test func accessesFollowTheAttributeWithoutASharedBit() throws {
        let guest = try Guest(Self.writeThenRead)
        try guest.change { ($0.rax, $0.rdi, $0.rsi) = (5, 0x20000, 0x20000) }
        #expect(guest.model.file.convert(0, Guest.ram / pageSize, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 5)
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: 0x20000) == 5)
    }

    /// On a default VM of Linux 7.3 and earlier, states of pages only restrict the host: the guest reads the file
    /// that starts private, whose page tables are empty. Since 7.4 the guest cannot access it.
    @Test(arguments: [ABIProfile.rfcV5, .linux74]) func privateFileOnADefaultVM(_ abi: ABIProfile) throws {
        let model = try ModelVM(pages: 32, flags: .mmap, type: .default, .init(abi: abi))
        try model.vm.setUserMemoryRegion2(slot(model.file))
        let vcpu = try #require(model.vm.createVCPU(id: 0) as? SoftVCPU)
        try vcpu.setSpecialRegisters(Guest.longMode)
        #expect(vcpu.exit() == (abi == .linux74 ? "fault 0x1000 4096 0 errno 14" : "shutdown"))
        let shared = try Guest([0xf4], type: .default)
        #expect(shared.vcpu.exit() == "halt")
    }

    @Test func pages4KCountsAccessedPages() throws {
        let guest = try Guest(
            [
                0x88, 0x07,  // mov [rdi], al
                0x8a, 0x06,  // mov al, [rsi]
                0xf4,  // hlt
            ], hasUserspaceAddress: false)
        try guest.change { ($0.rdi, $0.rsi) = (0x30000, 0x41fff) }
        #expect(guest.model.vm.pages4K == 0)
        #expect(guest.vcpu.exit() == "halt")
        // PML4, PDPT, code and two data pages.
        #expect(guest.model.vm.pages4K == 5)
        #expect(guest.model.file.convert(page(0x30000), 1, to: .shared).errno == nil)  // changes nothing
        #expect(guest.model.vm.pages4K == 5)
        #expect(guest.model.file.convert(page(0x30000), 16, to: .private).errno == nil)
        #expect(guest.model.vm.pages4K == 4)
        #expect(guest.model.file.convert(page(0x30000), 32, to: .shared).errno == nil)
        #expect(guest.model.vm.pages4K == 3)
        // A failed call changes nothing for the guest.
        let hold = try guest.ram.hold(at: Guest.code, length: 1)
        #expect(guest.model.file.convert(0, 64, to: .private).errno == .resourceTemporarilyUnavailable)
        #expect(guest.model.vm.pages4K == 3)
        hold.release()
        try guest.model.file.allocate(punchHole: true, offset: Guest.code, length: pageSize)
        #expect(guest.model.vm.pages4K == 2)
        var gone = slot(guest.model.file)
        gone.memory_size = 0
        try guest.model.vm.setUserMemoryRegion2(gone)
        #expect(guest.model.vm.pages4K == 0)
    }

    @Test func accessAfterAZapCountsAgain() throws {
        let guest = try Guest([
            0x88, 0x07,  // mov [rdi], al
            0xe6, 0x10,  // out 0x10, al
            0xeb, 0xfa,  // jmp back to the first
        ])
        try guest.change { $0.rdi = 0x30000 }
        for _ in 0..<3 {
            #expect(guest.vcpu.exit() == "io out 16 1")
            #expect(guest.model.vm.pages4K == 4)
            #expect(guest.model.file.convert(page(0x30000), 1, to: .private).errno == nil)
            #expect(guest.model.vm.pages4K == 3)
            #expect(guest.model.file.convert(page(0x30000), 1, to: .shared).errno == nil)
        }
    }

    @Test func deletedMemslotIsMMIOAndANewOneHasTheAttributes() throws {
        let guest = try Guest(
            [
                0x8a, 0x06,  // mov al, [rsi]
                0xeb, 0xfc,  // jmp back to it
            ], sharedBit: 39, isPrivate: true, .init(timeSlice: 50))
        let extra = try guest.model.vm.createGuestMemfd(size: pageSize, flags: .mmap)
        try guest.model.vm.setUserMemoryRegion2(slot(extra, id: 1, gpa: 1 << 30))
        try guest.change { $0.rsi = 1 << 30 }
        #expect(guest.vcpu.exit() == "interrupted")
        var gone = slot(extra, id: 1)
        gone.memory_size = 0
        try guest.model.vm.setUserMemoryRegion2(gone)
        #expect(guest.vcpu.exit() == "mmio read 0x40000000 1")
        #expect(extra.convert(0, 1, to: .shared).errno == nil)
        try guest.model.vm.setUserMemoryRegion2(slot(extra, id: 1, gpa: 1 << 30))
        try guest.change { $0.rip = Guest.code }
        #expect(guest.vcpu.exit() == "fault 0x40000000 4096 8 errno 14")
    }

    @Test func memslotWithoutAFileContainsTheHostMapping() throws {
        let guest = try Guest([
            0x8a, 0x06,  // mov al, [rsi]
            0x88, 0x46, 0x01,  // mov [rsi + 1], al
            0xf4,  // hlt
        ])
        let memory = try guest.model.vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap, .initShared])
        let mapping = try memory.map(offset: 0, length: 2 * pageSize)
        try mapping.put([0x5a], at: pageSize)
        var plain = slot(memory, id: 1, gpa: 1 << 30, flags: 0)
        plain.userspace_addr = mapping.address
        try guest.model.vm.setUserMemoryRegion2(plain)
        try guest.change { $0.rsi = 1 << 30 + 0x1000 }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try mapping.bytes(at: pageSize, 2) == [0x5a, 0x5a])
        // A call to private unmaps the page from the host and so from the memslot; after a failed call the next
        // access maps it again.
        let before = guest.model.vm.pages4K
        let hold = try mapping.hold(at: 0, length: 1)
        #expect(memory.convert(0, 2, to: .private).errno == .resourceTemporarilyUnavailable)
        #expect(guest.model.vm.pages4K == before - 1)
        hold.release()
        try guest.change { $0.rip = Guest.code }
        #expect(guest.vcpu.exit() == "halt")
        #expect(memory.convert(1, 1, to: .private).errno == nil)
        try guest.change { $0.rip = Guest.code }
        #expect(guest.vcpu.exit() == "failed 14")
    }

    /// Linux 7.4 checks the state of a page in the file for VMs of every type; earlier versions do not.
    @Test(arguments: ABIProfile.allCases) func privateFileInASecondMemslotOfADefaultVM(_ abi: ABIProfile)
        throws
    {
        let guest = try Guest([0x8a, 0x06, 0xf4], type: .default, .init(abi: abi))  // mov al, [rsi]; hlt
        let other = try guest.model.vm.createGuestMemfd(size: pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(other, id: 1, gpa: 1 << 30))
        try guest.change { $0.rsi = 1 << 30 }
        var request = ckvm_pre_fault_memory()
        (request.gpa, request.size) = (1 << 30, pageSize)
        let failure = errno { () throws(Errno) in try guest.vcpu.preFault(&request) }
        #expect(failure == (abi == .linux74 ? .badAddress : nil))
        #expect(guest.vcpu.exit() == (abi == .linux74 ? "fault 0x40000000 4096 0 errno 14" : "halt"))
    }
}
