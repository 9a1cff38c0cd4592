// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

struct GuestMemfdTests {
    @Test(arguments: [VMType.default, .softwareProtected])
    func creation(type: VMType) throws {
        let vm = try SoftKVM().createVM(type, sharedBit: nil)
        for flags: GuestMemfdFlags in [[], .mmap, .initShared, [.mmap, .initShared]] {
            #expect(
                errno { () throws(Errno) in _ = try vm.createGuestMemfd(size: pageSize, flags: flags) } == nil
            )
        }
        for size in [0, 1, 4095, 4097, 1 << 63, UInt64.max] {
            let got = errno { () throws(Errno) in _ = try vm.createGuestMemfd(size: size, flags: []) }
            #expect(got == .invalidArgument)
        }
        let unknown = GuestMemfdFlags(rawValue: 4)
        let got = errno { () throws(Errno) in _ = try vm.createGuestMemfd(size: pageSize, flags: unknown) }
        #expect(got == .invalidArgument)
        #expect(try vm.checkExtension(.guestMemfdFlags) == 3)
    }

    @Test func initSharedNeedsInPlaceConversionOnAProtectedVM() throws {
        let kvm = SoftKVM(.init(inPlaceConversion: false))
        let protected = try kvm.createVM(.softwareProtected, sharedBit: nil)
        let plain = try kvm.createVM(.default, sharedBit: nil)
        let make = { (vm: any KVMVirtualMachine) in
            errno { () throws(Errno) in _ = try vm.createGuestMemfd(size: pageSize, flags: .initShared) }
        }
        #expect(make(protected) == .invalidArgument)
        #expect(make(plain) == nil)
        #expect(try protected.checkExtension(.guestMemfdFlags) == 1)
        #expect(try plain.checkExtension(.guestMemfdFlags) == 3)
    }

    @Test func initSharedFlagSelectsTheInitialState() throws {
        #expect(try ModelVM(pages: 2, flags: .mmap).states() == "PP")
        #expect(try ModelVM(pages: 2, flags: [.mmap, .initShared]).states() == "ss")
    }

    @Test func mmapNeedsItsFlagAndValidArguments() throws {
        let vm = try SoftKVM().createVM(.softwareProtected, sharedBit: nil)
        let closed = try vm.createGuestMemfd(size: pageSize, flags: .initShared)
        #expect(
            errno { () throws(Errno) in _ = try closed.map(offset: 0, length: pageSize) }
                == .operationNotSupportedByDevice)
        // mmap checks its arguments first.
        for (offset, length) in [(1, pageSize), (0, 0)] as [(UInt64, UInt64)] {
            #expect(
                errno { () throws(Errno) in _ = try closed.map(offset: offset, length: length) }
                    == .invalidArgument)
        }
        let open = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        #expect(
            errno { () throws(Errno) in _ = try open.map(offset: 1, length: pageSize) } == .invalidArgument)
        #expect(errno { () throws(Errno) in _ = try open.map(offset: 0, length: 0) } == .invalidArgument)
    }

    @Test func hostAccessStopsBeforeTheFirstPrivatePage() throws {
        let model = try ModelVM(pages: 4)
        try model.mapping.put([UInt8](repeating: 7, count: Int(4 * pageSize)), at: 0)
        #expect(model.file.convert(2, 1, to: .private).errno == nil)
        #expect(try model.mapping.bytes(at: 10, Int(4 * pageSize) - 10).count == Int(2 * pageSize) - 10)
        #expect(try model.mapping.put([9, 9], at: 2 * pageSize - 1) == 1)
        #expect(
            errno { () throws(Errno) in _ = try model.mapping.hold(at: 2 * pageSize, length: 1) }
                == .badAddress)
        var byte: UInt8 = 1
        let touch = errno { () throws(Errno) in
            _ = try withUnsafeMutableBytes(of: &byte) { (bytes) throws(Errno) in
                try model.mapping.read(at: 2 * pageSize, into: bytes)
            }
        }
        #expect(touch == .badAddress)
        #expect(try model.mapping.bytes(at: 3 * pageSize, 1) == [7])
    }

    @Test func accessesPastTheEndFail() throws {
        let model = try ModelVM(pages: 2)
        let long = try model.file.map(offset: 0, length: 4 * pageSize)
        #expect(try long.bytes(at: pageSize, Int(3 * pageSize)).count == Int(pageSize))
        #expect(throws: Errno.badAddress) { try long.bytes(at: 2 * pageSize, 1) }
        #expect(throws: Errno.badAddress) { try model.mapping.bytes(at: 2 * pageSize, 1) }
    }

    @Test func contentsArePreservedInBothDirections() throws {
        let model = try ModelVM()
        try model.mapping.put([1, 2, 3, 4], at: pageSize)
        #expect(model.file.convert(0, 16, to: .private).errno == nil)
        #expect(model.file.convert(0, 16, to: .shared).errno == nil)
        #expect(try model.mapping.bytes(at: pageSize, 4) == [1, 2, 3, 4])
        #expect(model.vm.contentPromise == .preserved)
    }

    @Test func undefinedContentsDependOnlyOnTheSeed() throws {
        func after(seed: UInt64) throws -> [UInt8] {
            let model = try ModelVM(.init(seed: seed, contentPromise: .undefined))
            try model.mapping.put([1, 2, 3, 4], at: pageSize)
            // A call that changes nothing destroys nothing.
            #expect(model.file.convert(0, 16, to: .shared).errno == nil)
            #expect(try model.mapping.bytes(at: pageSize, 4) == [1, 2, 3, 4])
            #expect(model.file.convert(1, 2, to: .private).errno == nil)
            #expect(model.file.convert(1, 2, to: .shared).errno == nil)
            // This page was never accessed and still reads zeros.
            #expect(try model.mapping.bytes(at: 2 * pageSize, 4) == [0, 0, 0, 0])
            return try model.mapping.bytes(at: pageSize, 64)
        }
        #expect(try after(seed: 1) == after(seed: 1))
        #expect(try after(seed: 1) != after(seed: 2))
        #expect(try after(seed: 1).prefix(4) != [1, 2, 3, 4])
    }

    @Test func punchingZeroesPagesAndKeepsTheirState() throws {
        let model = try ModelVM(pages: 4)
        let all = try #require(PageRange(start: 0, size: 4 * pageSize))
        try model.mapping.put([5], at: pageSize)
        #expect(model.file.convert(1, 1, to: .private).errno == nil)
        #expect(model.file.allocatedPages(in: all) == 1)
        try model.file.allocate(punchHole: true, offset: 0, length: 4 * pageSize)
        #expect(model.file.allocatedPages(in: all) == 0)
        #expect(model.states() == "sPss")
        #expect(model.file.convert(1, 1, to: .shared).errno == nil)
        #expect(try model.mapping.bytes(at: pageSize, 1) == [0])
    }

    @Test func fallocateArguments() throws {
        let file = try ModelVM(pages: 4).file
        func call(_ punch: Bool, _ offset: UInt64, _ length: UInt64) -> Errno? {
            errno { () throws(Errno) in try file.allocate(punchHole: punch, offset: offset, length: length) }
        }
        for punch in [true, false] {
            #expect(call(punch, 0, 0) == .invalidArgument)
            #expect(call(punch, 1, pageSize) == .invalidArgument)
            #expect(call(punch, 0, 1) == .invalidArgument)
            #expect(call(punch, .max - 4095, pageSize) == .invalidArgument)
            #expect(call(punch, 1 << 62, 1 << 62) == .fileTooLarge)
            #expect(call(punch, pageSize, pageSize) == nil)
        }
        #expect(call(false, 3 * pageSize, 2 * pageSize) == .invalidArgument)
        #expect(call(true, 3 * pageSize, 2 * pageSize) == nil)
        #expect(call(true, 8 * pageSize, pageSize) == nil)
    }

    @Test func holderKeepsThePunchedPage() throws {
        let model = try ModelVM(pages: 4)
        try model.mapping.put([0xaa], at: pageSize)
        let hold = try #require(model.mapping.hold(at: pageSize, length: pageSize) as? SoftPageHold)
        #expect(model.file.convert(1, 1, to: .private).errno == .resourceTemporarilyUnavailable)
        try model.mapping.put([0xbb], at: pageSize)
        #expect(hold.contents(ofPage: 0)?.first == 0xbb)
        try model.file.allocate(punchHole: true, offset: pageSize, length: pageSize)
        try model.mapping.put([0xcc], at: pageSize)
        #expect(model.file.convert(1, 1, to: .private).errno == nil)
        #expect(hold.contents(ofPage: 0)?.first == 0xbb)
        hold.release()
        #expect(hold.contents(ofPage: 0) == nil)
    }

    @Test func pipeLimitAndOverlappingHolds() throws {
        let model = try ModelVM(pages: 32)
        #expect(
            errno { () throws(Errno) in _ = try model.mapping.hold(at: 0, length: 17 * pageSize) }
                == .resourceTemporarilyUnavailable)
        let one = try model.mapping.hold(at: 0, length: 16 * pageSize)
        let two = try model.mapping.hold(at: 15 * pageSize + 4095, length: 1)
        one.release()
        one.release()
        #expect(model.file.convert(0, 32, to: .private).errorOffset == 15 * pageSize)
        two.release()
        #expect(model.file.convert(0, 32, to: .private).errno == nil)
    }

    @Test func deinitialisedHoldReleasesItsPages() throws {
        let model = try ModelVM()
        _ = try model.mapping.hold(at: 0, length: pageSize)
        #expect(model.file.convert(0, 1, to: .private).errno == nil)
    }

    @Test func terabyteFileUsesMemoryOnlyForAccessedPages() throws {
        let tebibyte: UInt64 = 1 << 40
        let model = try ModelVM(pages: tebibyte / pageSize)
        #expect(model.file.convert(0, tebibyte / pageSize, to: .private).errno == nil)
        #expect(model.file.convert(tebibyte / pageSize - 1, 1, to: .shared).errno == nil)
        try model.mapping.put([1], at: tebibyte - 1)
        let all = try #require(PageRange(start: 0, size: tebibyte))
        #expect(model.file.allocatedPages(in: all) == 1)
        #expect(model.file.bytes(.shared, in: all) == pageSize)
        var region = slot(model.file)
        region.memory_size = tebibyte
        #expect(errno { () throws(Errno) in try model.vm.setUserMemoryRegion2(region) } == nil)
    }

    /// A file larger than the address space takes no memory, because runs of pages are stored.
    @Test func fileCanBeLargerThanAnAddressSpace() throws {
        let vm = try SoftKVM().createVM(.softwareProtected, sharedBit: nil)
        let largest = UInt64(Int64.max) & ~(pageSize - 1)
        for size in [1 << 48, 1 << 56, largest] as [UInt64] {
            let file = try #require(
                vm.createGuestMemfd(size: size, flags: [.mmap, .initShared]) as? SoftGuestMemfd)
            let last = size / pageSize - 1
            #expect(file.convert(last, 1, to: .private).errno == nil && file.state(at: size - 1) == .private)
            #expect(file.convert(0, size / pageSize, to: .private).errno == nil)
            #expect(
                errno { () throws(Errno) in try file.allocate(punchHole: true, offset: 0, length: size) }
                    == nil)
            // Mapping a part without backing memory fails with an errno that Linux never returns for it.
            #expect(
                errno { () throws(Errno) in _ = try file.map(offset: last * pageSize, length: pageSize) }
                    == SoftKVM.noBackingMemory)
            _ = try file.map(offset: 0, length: pageSize)
        }
        #expect(
            errno { () throws(Errno) in _ = try vm.createGuestMemfd(size: 1 << 63, flags: []) }
                == .invalidArgument)
    }
}
