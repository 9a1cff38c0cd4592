// SPDX-License-Identifier: MIT
import CKVMShim
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// Two aliases over a backend that converts: its answers are passed on, and memslots change only after it has
/// converted.
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

        /// Pages that the host can access, and their contents.
        func visible() -> [UInt64: UInt64] {
            (0..<pages).reduce(into: [:]) { words, page in
                words[page] = try? view.word(page * pageSize)
            }
        }
    }

    @Test func `its name is that of the backend that converts`() {
        let backend = AliasesKVM(over: SoftKVM())
        #expect(backend.identity.name == "SoftKVM")
        #expect(backend.identity.host.hasSuffix("two aliases by memslots"))
    }

    @Test func `with one alias it adds nothing`() throws {
        let vm = try AliasesKVM(over: SoftKVM()).createVM(.softwareProtected, sharedBit: nil)
        #expect(vm is SoftVM)
    }

    @Test func `the backend reports the page in use, and nothing has changed`() throws {
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

    @Test func `a refusal by the backend changes nothing and keeps its errno`() throws {
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

    @Test func `without free memslots it is ENOMEM, and the backend has converted nothing`() throws {
        // Both aliases of a run need a memslot each: three runs need six, and five would need ten.
        let fixture = try Fixture(slotLimit: 8)
        try fixture.file.convert(2 * pageSize, to: .private)
        let before = fixture.visible()
        #expect(before.count == Int(Self.pages) - 1)
        let refusal = fixture.file.refusal(of: .conversion(6 * pageSize, pageSize, .private))
        #expect(refusal == (.noMemory, 6 * pageSize))
        #expect(fixture.visible() == before)
        // Conversions that need no more memslots still work.
        try fixture.file.convert(3 * pageSize, to: .private)
        try fixture.file.convert(0, 8 * pageSize, to: .shared)
        #expect(fixture.visible() == Dictionary(uniqueKeysWithValues: (0..<Self.pages).map { ($0, $0) }))
    }
}
