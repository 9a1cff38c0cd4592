// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Calls that the litmus tests cover, one by one, and details that they cannot express.
struct RareCallTests {
    @Test func closedDescriptorCannotBeBound() throws {
        let model = try ModelVM(pages: 2)
        let copy = try model.file.duplicate()
        var region = slot(model.file)
        try model.file.closeDescriptor()
        #expect(errno { () throws(Errno) in try model.vm.setUserMemoryRegion2(region) } == .badFileDescriptor)
        region.guest_memfd = UInt32(bitPattern: copy.descriptor)
        #expect(errno { () throws(Errno) in try model.vm.setUserMemoryRegion2(region) } == nil)
        #expect(model.file.convert(0, 1, to: .private).errno == .badFileDescriptor)
        #expect(copy.convert(0, 1, to: .private).errno == nil)
        // Both descriptors refer to the same file.
        #expect(model.states() == "Ps")
    }

    @Test func unmappedMappingDoesNotKeepTheFileOpen() throws {
        let model = try ModelVM(pages: 2)
        try model.vm.setUserMemoryRegion2(slot(model.file))
        let mapping = try #require(model.mapping as? SoftHostMapping)
        try model.file.closeDescriptor()
        #expect(model.vm.visibleToGuest(at: 0) == .byte(.known(0)))
        try mapping.unmap()
        #expect(model.vm.visibleToGuest(at: 0) == .fault)
        #expect(mapping.visible(at: 0) == .noPage)
    }

    @Test func memoryFailureLastsUntilThePageIsPunched() throws {
        let model = try ModelVM(pages: 3)
        try model.vm.setUserMemoryRegion2(slot(model.file))
        let mapping = try #require(model.mapping as? SoftHostMapping)
        try mapping.put([UInt8](repeating: 7, count: Int(3 * pageSize)), at: 0)
        let got = errno { () throws(Errno) in try mapping.advise(at: pageSize, length: pageSize, .hwPoison) }
        #expect(got == .resourceBusy)
        #expect(mapping.visible(at: pageSize) == .noPage && model.vm.visibleToGuest(at: pageSize) == .fault)
        #expect(mapping.visible(at: 0) == .byte(.known(7)))
        #expect(model.vm.visibleToGuest(at: 2 * pageSize) == .byte(.known(7)))
        // A read stops before the failed page.
        #expect(try mapping.bytes(at: 0, Int(3 * pageSize)).count == Int(pageSize))
        #expect(model.file.convert(0, 3, to: .private) == (.resourceTemporarilyUnavailable, pageSize))
        try model.file.allocate(punchHole: true, offset: pageSize, length: pageSize)
        #expect(model.vm.visibleToGuest(at: pageSize) == .byte(.known(0)))
        #expect(model.file.convert(0, 3, to: .private).errno == nil)
    }

    @Test func pagesAreAllocatedOnTheNodeOfTheirPolicy() throws {
        let model = try ModelVM(pages: 4)
        let mapping = try #require(model.mapping as? SoftHostMapping)
        try mapping.bind(at: pageSize, length: 2 * pageSize, .bind(1), [])
        try mapping.put([UInt8](repeating: 7, count: Int(4 * pageSize)), at: 0)
        #expect(try (0..<4).map { try mapping.node(at: $0 * pageSize) } == [0, 1, 1, 0])
        #expect(
            errno { () throws(Errno) in try mapping.bind(at: 0, length: pageSize, .bind(2), []) }
                == .invalidArgument)
        #expect(errno { () throws(Errno) in try mapping.migrate(at: 0, to: 1) } == .resourceBusy)
        try model.file.allocate(punchHole: true, offset: pageSize, length: pageSize)
        #expect(errno { () throws(Errno) in _ = try mapping.node(at: pageSize) } == .noSuchFileOrDirectory)
    }

    @Test func perVMAttributesNeedABackendWithoutInPlaceConversion() throws {
        func call(_ vm: SoftVM, _ attributes: UInt64) -> Errno? {
            errno { () throws(Errno) in
                try vm.setMemoryAttributes(
                    ckvm_memory_attributes(address: 0, size: pageSize, attributes: attributes, flags: 0))
            }
        }
        let old = SoftKVM.Configuration(inPlaceConversion: false)
        #expect(call(try ModelVM().vm, 0) == .inappropriateIOCTLForDevice)
        #expect(call(try ModelVM(flags: .mmap, old).vm, privateAttribute) == nil)
        #expect(call(try ModelVM(type: .default, old).vm, privateAttribute) == .invalidArgument)
        #expect(call(try ModelVM(type: .default, old).vm, 0) == nil)
        #expect(try ModelVM(flags: .mmap, old).vm.checkExtension(.memoryAttributes) == 8)
        #expect(try ModelVM().vm.checkExtension(.memoryAttributes) == 0)
    }
}
