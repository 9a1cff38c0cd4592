// SPDX-License-Identifier: MIT
import CKVMShim
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// Two aliases over a kernel that converts by itself: its answers come through, and memslots follow only what it did.
@Suite("Two aliases by memslots", .timeLimit(.minutes(120)))
struct AliasesTests {
    static let pages: UInt64 = 16

    private struct Fixture {
        let vm: any KVMVirtualMachine
        let file: any KVMGuestMemfd
        let view: any HostMapping

        init(slotLimit: Int? = nil) throws {
            let backend = AliasesKVM(over: SoftKVM(), slotLimit: slotLimit)
            vm = try backend.createVM(.softwareProtected, sharedBit: 39)
            file = try vm.createGuestMemfd(size: pages * pageSize, flags: [.mmap, .initShared])
            view = try file.map(offset: 0, length: pages * pageSize)
            var region = TrapFileTests.region(file, slot: 0, gpa: 0)
            region.userspace_addr = view.address
            try vm.setUserMemoryRegion2(region)
            for page in 0..<pages { try view.putWord(page * pageSize, page) }
        }

        /// Pages that the host can touch, with what it finds there.
        func visible() -> [UInt64: UInt64] {
            (0..<pages).reduce(into: [:]) { words, page in
                words[page] = try? view.word(page * pageSize)
            }
        }
    }

    @Test func `it carries the name of the backend that converts`() {
        let backend = AliasesKVM(over: SoftKVM())
        #expect(backend.identity.name == "SoftKVM")
        #expect(backend.identity.host.hasSuffix("two aliases by memslots"))
    }

    @Test func `with one alias there is nothing to add`() throws {
        let vm = try AliasesKVM(over: SoftKVM()).createVM(.softwareProtected, sharedBit: nil)
        #expect(vm is SoftVM)
    }

    @Test func `a page in use is the backend's to name, and nothing has changed`() throws {
        let fixture = try Fixture()
        let hold = try fixture.view.hold(at: 5 * pageSize, length: pageSize, by: .ioUring)
        let before = fixture.visible()
        let request = ckvm_memory_attributes2.conversion(0, Self.pages * pageSize, .private)
        #expect(fixture.file.refusal(of: request) == (.resourceTemporarilyUnavailable, 5 * pageSize))
        #expect(fixture.visible() == before)
        hold.release()
        #expect(fixture.file.refusal(of: request) == (nil, nil))
        #expect(fixture.visible().isEmpty)
    }

    @Test func `what the backend refuses stays as it was, and is refused in its words`() throws {
        let fixture = try Fixture()
        var request = ckvm_memory_attributes2.conversion(0, pageSize, .private)
        request.flags = 1
        #expect(fixture.file.refusal(of: request) == (.invalidArgument, nil))
        for (offset, size) in [(1, pageSize), (0, 0), (Self.pages * pageSize, pageSize), (.max, pageSize)]
            as [(UInt64, UInt64)]
        {
            #expect(
                fixture.file.refusal(of: .conversion(offset, size, .private)) == (.invalidArgument, nil))
        }
        #expect(fixture.visible().count == Int(Self.pages))
    }

    @Test func `without memslots left it is ENOMEM, and the backend has converted nothing`() throws {
        // Both aliases of a run take a memslot each: three runs take six, and five would take ten.
        let fixture = try Fixture(slotLimit: 8)
        try fixture.file.convert(2 * pageSize, to: .private)
        let before = fixture.visible()
        #expect(before.count == Int(Self.pages) - 1)
        let refusal = fixture.file.refusal(of: .conversion(6 * pageSize, pageSize, .private))
        #expect(refusal == (.noMemory, 6 * pageSize))
        #expect(fixture.visible() == before)
        // What needs no more memslots goes on.
        try fixture.file.convert(3 * pageSize, to: .private)
        try fixture.file.convert(0, 8 * pageSize, to: .shared)
        #expect(fixture.visible() == Dictionary(uniqueKeysWithValues: (0..<Self.pages).map { ($0, $0) }))
    }
}
