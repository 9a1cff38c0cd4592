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

    @Test func anAccessThroughTheWrongAliasLeavesAndCompletesAfterTheConversion() throws {
        let guest = try Guest(Self.writeThenRead, sharedBit: 39, isPrivate: true)
        try guest.change {
            $0.rax = 0x1122_3344_5566_7788
            $0.rdi = Guest.sharedBit | 0x20010
            $0.rsi = 0x20010
        }
        // To shared: a shared access to a private page.
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 0 errno 14")
        #expect(try guest.vcpu.registers().rip == Guest.code)
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 0 errno 14")
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        // To private: the second instruction.
        #expect(guest.vcpu.exit() == "fault 0x20000 4096 8 errno 14")
        #expect(try guest.vcpu.registers().rip == Guest.code + 3)
        #expect(try guest.ram.word(at: 0x20010) == 0x1122_3344_5566_7788)
        #expect(guest.model.file.convert(page(0x20000), 1, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 0x1122_3344_5566_7788)
    }

    @Test func aMappedPageIsZappedByAConversion() throws {
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
        // A neighbour's conversion changes nothing for this page.
        #expect(guest.model.file.convert(page(0x30000), 2, to: .private).errno == nil)
        #expect(guest.model.file.convert(page(0x31000), 1, to: .shared).errno == nil)
        #expect(guest.vcpu.exit() == "io out 16 1")
    }

    @Test func codeAndTablesFaultToo() throws {
        let code = try Guest([0xf4], sharedBit: 39, isPrivate: true)
        #expect(code.model.file.convert(page(Guest.code), 1, to: .shared).errno == nil)
        #expect(code.vcpu.exit() == "fault 0x10000 4096 8 errno 14")
        #expect(code.model.file.convert(page(Guest.code), 1, to: .private).errno == nil)
        #expect(code.vcpu.exit() == "halt")

        let tables = try Guest([0xf4], sharedBit: 39, isPrivate: true)
        #expect(tables.model.file.convert(page(Guest.tables) + 1, 1, to: .shared).errno == nil)
        #expect(tables.vcpu.exit() == "fault 0x2000 4096 8 errno 14")
    }

    @Test func aSlotWhoseFileIsClosedIsNothingButFaults() throws {
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
        // The slot can go, and another come in its place.
        var deletion = slot(guest.model.file, id: 1)
        deletion.memory_size = 0
        try guest.model.vm.setUserMemoryRegion2(deletion)
        let fresh = try guest.model.vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(fresh, id: 1, gpa: other))
        #expect(guest.vcpu.exit() == "halt")
    }

    @Test func closingAFileTakesItsPagesOutOfTheTables() throws {
        let guest = try Guest([0x48, 0xff, 0x07, 0xe6, 0x10, 0xeb, 0xf9])
        var file: (any KVMGuestMemfd)? = try guest.model.vm.createGuestMemfd(size: pageSize, flags: [.mmap])
        try guest.model.vm.setUserMemoryRegion2(slot(try #require(file), id: 1, gpa: 1 << 30))
        var mapping = try file?.map(offset: 0, length: pageSize)
        try guest.change { $0.rdi = 1 << 30 }
        #expect(guest.vcpu.exit() == "io out 16 1")
        file = nil
        // A mapping keeps it open.
        #expect(guest.vcpu.exit() == "io out 16 1")
        #expect(mapping != nil)
        mapping = nil
        #expect(guest.vcpu.exit() == "fault 0x40000000 4096 0 errno 14")
    }

    @Test func anAccessOverTwoPagesNamesTheOneThatIsWrong() throws {
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

    @Test func aStoreThatFaultsOnItsSecondPageHasWrittenNothing() throws {
        // mov [rdi], rax; hlt
        let guest = try Guest([0x48, 0x89, 0x07, 0xf4], sharedBit: 39, isPrivate: true)
        #expect(guest.model.file.convert(page(0x21000), 1, to: .shared).errno == nil)
        try guest.change { ($0.rax, $0.rdi) = (.max, 0x20ffc) }
        // The second time the first page is in the TLB.
        for _ in 0..<2 { #expect(guest.vcpu.exit() == "fault 0x21000 4096 8 errno 14") }
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: 0x20ffc) == 0)
    }

    @Test func whereTheAttributeDecidesNothingMismatches() throws {
        let guest = try Guest(Self.writeThenRead)
        try guest.change { ($0.rax, $0.rdi, $0.rsi) = (5, 0x20000, 0x20000) }
        #expect(guest.model.file.convert(0, Guest.ram / pageSize, to: .private).errno == nil)
        #expect(guest.vcpu.exit() == "halt")
        #expect(try guest.vcpu.registers().rbx == 5)
        #expect(guest.model.file.convert(page(0x20000), 1, to: .shared).errno == nil)
        #expect(try guest.ram.word(at: 0x20000) == 5)
    }

    /// Its files have attributes for the host alone: up to Linux 7.3 a guest reads what a file that began private holds, here
    /// empty page tables, and from 7.4 on it cannot touch it.
    @Test(arguments: [ABIProfile.rfcV5, .linux74]) func aDefaultVMHasNoPrivateMemory(_ abi: ABIProfile) throws
    {
        let model = try ModelVM(pages: 32, flags: .mmap, type: .default, .init(abi: abi))
        try model.vm.setUserMemoryRegion2(slot(model.file))
        let vcpu = try #require(model.vm.createVCPU(id: 0) as? SoftVCPU)
        try vcpu.setSpecialRegisters(Guest.longMode)
        #expect(vcpu.exit() == (abi == .linux74 ? "fault 0x1000 4096 0 errno 14" : "shutdown"))
        let shared = try Guest([0xf4], type: .default)
        #expect(shared.vcpu.exit() == "halt")
    }

    @Test func theStatisticCountsWhatTheGuestTouched() throws {
        let guest = try Guest(
            [
                0x88, 0x07,  // mov [rdi], al
                0x8a, 0x06,  // mov al, [rsi]
                0xf4,  // hlt
            ], isReadByKVM: false)
        try guest.change { ($0.rdi, $0.rsi) = (0x30000, 0x41fff) }
        #expect(guest.model.vm.pages4K == 0)
        #expect(guest.vcpu.exit() == "halt")
        // PML4, PDPT, code, two of data.
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

    @Test func aTouchAfterAZapCountsAgain() throws {
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

    @Test func aDeletedSlotIsMMIOAndItsSuccessorHasTheAttributes() throws {
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

    @Test func aPlainSlotIsWhatTheHostHasThere() throws {
        let guest = try Guest([
            0x8a, 0x06,  // mov al, [rsi]
            0x88, 0x46, 0x01,  // mov [rsi + 1], al
            0xf4,  // hlt
        ])
        let memory = try guest.model.vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap, .initShared])
        let view = try memory.map(offset: 0, length: 2 * pageSize)
        try view.put([0x5a], at: pageSize)
        var plain = slot(memory, id: 1, gpa: 1 << 30, flags: 0)
        plain.userspace_addr = view.address
        try guest.model.vm.setUserMemoryRegion2(plain)
        try guest.change { $0.rsi = 1 << 30 + 0x1000 }
        #expect(guest.vcpu.exit() == "halt")
        #expect(try view.bytes(at: pageSize, 2) == [0x5a, 0x5a])
        // A call to private takes the page from the host, and so from the slot; a failed one only until it is
        // touched again.
        let before = guest.model.vm.pages4K
        let hold = try view.hold(at: 0, length: 1)
        #expect(memory.convert(0, 2, to: .private).errno == .resourceTemporarilyUnavailable)
        #expect(guest.model.vm.pages4K == before - 1)
        hold.release()
        try guest.change { $0.rip = Guest.code }
        #expect(guest.vcpu.exit() == "halt")
        #expect(memory.convert(1, 1, to: .private).errno == nil)
        try guest.change { $0.rip = Guest.code }
        #expect(guest.vcpu.exit() == "failed 14")
    }

    /// The applied code asks the file what a page is, whatever the type of the VM; earlier versions do not.
    @Test(arguments: ABIProfile.allCases) func aDefaultVMAndAFileThatDoesNotStartShared(_ abi: ABIProfile)
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
