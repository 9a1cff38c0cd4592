// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import SystemPackage
import Testing

@testable import MiniVMM

/// The guest_memfd and its mappings: errnos, host access, holds. Needs no vCPU.
@Suite("MemslotTrapKVM: file", .enabled(if: TrapHost.canTrap, TrapHost.reason), .timeLimit(.minutes(120)))
struct TrapFileTests {
    static let private1 = CKVM_MEMORY_ATTRIBUTE_PRIVATE

    static func vm(sharedBit: Int? = TrapHost.sharedBit, backing: TrapBacking? = nil) throws
        -> any KVMVirtualMachine
    {
        let base = try LinuxKVM()
        let kvm = MemslotTrapKVM(
            over: base, backing: backing ?? TrapBacking.best(on: base).0)
        return try kvm.createVM(.softwareProtected, sharedBit: sharedBit)
    }

    static func region(
        _ file: any KVMGuestMemfd, slot: UInt32 = 0, gpa: UInt64 = 0, size: UInt64? = nil, offset: UInt64 = 0
    ) -> ckvm_userspace_memory_region2 {
        var region = ckvm_userspace_memory_region2()
        region.slot = slot
        region.flags = CKVM_MEM_GUEST_MEMFD
        region.guest_phys_addr = gpa
        region.memory_size = size ?? file.size
        region.guest_memfd = UInt32(bitPattern: file.descriptor)
        region.guest_memfd_offset = offset
        return region
    }

    /// Bad arguments of the conversion table, each combined with the one of the next row, so that the order is tested
    /// too.
    struct BadArgument: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let make: @Sendable (inout ckvm_memory_attributes2) -> Void
        init(_ name: String, _ make: @escaping @Sendable (inout ckvm_memory_attributes2) -> Void) {
            testDescription = name
            self.make = make
        }
    }
    static let size = 16 * pageSize
    static let badArguments = [
        BadArgument("flags") { $0.flags = 1 },
        BadArgument("flags, last bit") { $0.flags = 1 << 63 },
        BadArgument("first reserved word") { $0.reserved.0 = 1 },
        BadArgument("last reserved word") { $0.reserved.10 = 1 << 63 },
        BadArgument("attributes: READ") { $0.attributes = 1 },
        BadArgument("attributes: PRIVATE and more") { $0.attributes |= 1 << 4 },
        BadArgument("size 0") { $0.size = 0 },
        BadArgument("offset + size wraps") {
            $0.offset = .max - pageSize + 1
            $0.size = pageSize
        },
        BadArgument("offset not aligned") { $0.offset = 1 },
        BadArgument("size not aligned") { $0.size = pageSize + 1 },
        BadArgument("starts at the end") { $0.offset = size },
        BadArgument("starts past the end") { $0.offset = size + pageSize },
        BadArgument("ends past the end") { $0.size = size + pageSize },
        BadArgument("the size of the whole address space") { $0.size = 0 &- pageSize },
    ]

    @Test(arguments: badArguments)
    func `a bad argument is EINVAL, writes no error_offset and changes nothing`(bad: BadArgument) throws {
        let file = try Self.vm().createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        // One page is held: EAGAIN comes after all of these.
        let hold = try view.hold(at: 0, length: pageSize)
        for state in PageState.allCases {
            var request = ckvm_memory_attributes2.conversion(0, pageSize, state)
            bad.make(&request)
            let refusal = file.refusal(of: request)
            #expect(refusal.errno == .invalidArgument)
            #expect(refusal.errorOffset == nil)
        }
        hold.release()
        #expect(try view.bytes(0, Int(Self.size)).count == Int(Self.size))
    }

    @Test func `a call that changes nothing returns 0 without checking for holds`() throws {
        let file = try Self.vm().createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        let hold = try view.hold(at: 0, length: pageSize)
        let refusal = file.refusal(of: .conversion(0, Self.size, .shared))
        #expect(refusal == (nil, nil))
        hold.release()
        try file.convert(0, Self.size, to: .private)
        #expect(file.refusal(of: .conversion(pageSize, pageSize, .private)) == (nil, nil))
    }

    @Test(arguments: TrapHost.backings)
    func `the host cannot access a private page through any mapping`(backing: TrapBacking) throws {
        let file = try Self.vm(backing: backing).createGuestMemfd(
            size: Self.size, flags: [.mmap, .initShared])
        let before = try file.map(offset: 0, length: Self.size)
        try before.put(0, [UInt8](repeating: 7, count: Int(Self.size)))
        try file.convert(4 * pageSize, 2 * pageSize, to: .private)
        let after = try file.map(offset: 2 * pageSize, length: 6 * pageSize)
        for (view, start) in [(before, 4 * pageSize), (after, 2 * pageSize)] {
            #expect(throws: Errno.badAddress) { try view.bytes(start, 1) }
            #expect(throws: Errno.badAddress) { try view.put(start + 2 * pageSize - 1, [1]) }
            #expect(throws: Errno.badAddress) { _ = try view.hold(at: start, length: pageSize) }
            // The bytes before the first private page are read.
            #expect(try view.bytes(start - 100, 200).count == 100)
            #expect(try view.bytes(start + 2 * pageSize, 3) == [7, 7, 7])
        }
        #expect(throws: Errno.badAddress) { try after.bytes(6 * pageSize - 1, 2) }
        try file.convert(0, Self.size, to: .shared)
        #expect(try before.bytes(0, Int(Self.size)) == [UInt8](repeating: 7, count: Int(Self.size)))
        #expect(try after.bytes(0, 1) == [7])
    }

    @Test func `converting held pages to private reports the lowest one and changes nothing`() throws {
        let file = try Self.vm().createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        let high = try view.hold(at: 9 * pageSize, length: pageSize)
        // Across page boundaries: both pages are in use.
        let low = try view.hold(at: 6 * pageSize - 1, length: 2)
        let all = ckvm_memory_attributes2.conversion(0, Self.size, .private)
        #expect(file.refusal(of: all) == (.resourceTemporarilyUnavailable, 5 * pageSize))
        #expect(try view.bytes(0, Int(Self.size)).count == Int(Self.size))
        let single = ckvm_memory_attributes2.conversion(6 * pageSize, pageSize, .private)
        #expect(file.refusal(of: single) == (.resourceTemporarilyUnavailable, 6 * pageSize))
        try file.convert(0, 5 * pageSize, to: .private)
        low.release()
        low.release()
        // The range is mixed now.
        #expect(file.refusal(of: all) == (.resourceTemporarilyUnavailable, 9 * pageSize))
        high.release()
        #expect(file.refusal(of: all) == (nil, nil))
        #expect(throws: Errno.badAddress) { try view.bytes(9 * pageSize, 1) }
    }

    @Test func `a hold is released on deinit`() throws {
        let file = try Self.vm().createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        do {
            let hold = try view.hold(at: 0, length: pageSize)
            #expect(
                file.refusal(of: .conversion(0, pageSize, .private)).errno == .resourceTemporarilyUnavailable)
            withExtendedLifetime(hold) {}
        }
        try file.convert(0, to: .private)
    }

    @Test(arguments: TrapHost.backings)
    func `punching a hole zeroes, keeps the state, and detaches the page from its holders`(
        backing: TrapBacking
    ) throws {
        let file = try Self.vm(backing: backing).createGuestMemfd(
            size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        try view.putWord(0, 1)
        try view.putWord(pageSize, 2)
        let hold = try view.hold(at: 0, length: pageSize)
        try file.convert(pageSize, to: .private)
        try file.allocate(punchHole: true, offset: 0, length: 2 * pageSize)
        #expect(try view.word(0) == 0)
        #expect(throws: Errno.badAddress) { try view.word(pageSize) }
        try file.convert(0, to: .private)
        try file.convert(0, 2 * pageSize, to: .shared)
        #expect(try view.word(pageSize) == 0)
        hold.release()
        try file.allocate(punchHole: false, offset: 0, length: Self.size)
        for (offset, length) in [(1, pageSize), (0, 1), (0, 0), (0, Self.size + pageSize)]
            as [(UInt64, UInt64)]
        {
            #expect(throws: Errno.invalidArgument) {
                try file.allocate(punchHole: false, offset: offset, length: length)
            }
        }
    }

    @Test(arguments: TrapHost.backings)
    func `flags and sizes of a guest_memfd are checked`(backing: TrapBacking) throws {
        let vm = try Self.vm(backing: backing)
        for size in [0, 1, pageSize + 1, UInt64.max, 1 << 63] as [UInt64] {
            #expect(throws: Errno.invalidArgument) { try vm.createGuestMemfd(size: size, flags: .mmap) }
        }
        #expect(throws: Errno.invalidArgument) {
            try vm.createGuestMemfd(size: pageSize, flags: GuestMemfdFlags(rawValue: 4))
        }
        for flags in [[], .initShared] as [GuestMemfdFlags] {
            let file = try vm.createGuestMemfd(size: pageSize, flags: flags)
            #expect(throws: Errno.operationNotSupportedByDevice) { try file.map(offset: 0, length: pageSize) }
        }
        let file = try vm.createGuestMemfd(size: pageSize, flags: .mmap)
        #expect(throws: Errno.badAddress) { try file.map(offset: 0, length: pageSize).bytes(0, 1) }
        #expect(throws: Errno.invalidArgument) { try file.map(offset: 0, length: 0) }
        #expect(throws: Errno.invalidArgument) { try file.map(offset: 1, length: pageSize) }
    }

    @Test(arguments: TrapHost.backings)
    func `a terabyte costs nothing until it is accessed`(backing: TrapBacking) throws {
        let vm = try Self.vm(backing: backing)
        let file = try vm.createGuestMemfd(size: 1 << 40, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: 1 << 40)
        try file.convert(1 << 39, 1 << 30, to: .private)
        #expect(throws: Errno.badAddress) { try view.bytes(1 << 39, 1) }
        #expect(try view.bytes((1 << 40) - 1, 1) == [0])
    }

    @Test func `impossible shared bits and regions are refused`() throws {
        let kvm = MemslotTrapKVM(over: try LinuxKVM())
        let bits = try kvm.supportedCPUID().physicalAddressBits
        for bit in [-1, 0, 11, bits, 63, 64, Int.max] {
            #expect(throws: Errno.invalidArgument) { try kvm.createVM(.softwareProtected, sharedBit: bit) }
        }
        #expect(throws: Errno.invalidArgument) { try kvm.createVM(.default, sharedBit: 46) }

        let vm = try kvm.createVM(.softwareProtected, sharedBit: 30)
        let file = try vm.createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let other = try kvm.createVM(.softwareProtected, sharedBit: 30)
            .createGuestMemfd(size: Self.size, flags: [])
        func refused(_ errno: Errno, _ change: (inout ckvm_userspace_memory_region2) -> Void) {
            var region = Self.region(file, slot: 1, gpa: 1 << 20)
            change(&region)
            #expect(throws: errno) { try vm.setUserMemoryRegion2(region) }
        }
        refused(.invalidArgument) { $0.guest_phys_addr = (1 << 30) - pageSize }  // through the shared bit
        refused(.invalidArgument) { $0.guest_phys_addr = 1 << 30 }
        refused(.invalidArgument) { $0.guest_phys_addr = 0 &- pageSize }
        refused(.invalidArgument) { $0.guest_phys_addr += 1 }
        refused(.invalidArgument) { $0.memory_size += 1 }
        refused(.invalidArgument) { $0.userspace_addr = 1 }
        refused(.invalidArgument) { $0.guest_memfd_offset = 1 }
        refused(.invalidArgument) { $0.guest_memfd_offset = pageSize }  // past the end
        refused(.invalidArgument) { $0.flags |= CKVM_MEM_READONLY }
        refused(.invalidArgument) { $0.flags |= CKVM_MEM_LOG_DIRTY_PAGES }
        refused(.invalidArgument) { $0.slot = .max }
        refused(.invalidArgument) { $0.memory_size = 0 }  // no such slot
        refused(.badFileDescriptor) { $0.guest_memfd = UInt32(bitPattern: -1) }
        refused(.invalidArgument) { $0.guest_memfd = UInt32(bitPattern: other.descriptor) }
        try vm.setUserMemoryRegion2(Self.region(file, slot: 1, gpa: 1 << 20))
        refused(.invalidArgument) { _ in }  // immutable
        refused(.fileExists) {
            $0.slot = 2
            $0.guest_phys_addr = 2 << 20
        }  // the same bytes twice
        let more = try vm.createGuestMemfd(size: Self.size, flags: [])
        #expect(throws: Errno.fileExists) {
            try vm.setUserMemoryRegion2(Self.region(more, slot: 2, gpa: (1 << 20) + Self.size - pageSize))
        }
        refused(.invalidArgument) {
            $0.slot = 2
            $0.memory_size = 0
        }
        var deleted = ckvm_userspace_memory_region2()
        deleted.slot = 1
        try vm.setUserMemoryRegion2(deleted)
        // The attributes belong to the file, so they remain.
        try file.convert(0, to: .private)
        try vm.setUserMemoryRegion2(Self.region(file, slot: 1, gpa: 1 << 20))
        #expect(file.refusal(of: .conversion(0, pageSize, .private)) == (nil, nil))
    }

    @Test func `without a shared bit only host accesses are restricted`() throws {
        let vm = try Self.vm(sharedBit: nil)
        let file = try vm.createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
        let view = try file.map(offset: 0, length: Self.size)
        try vm.setUserMemoryRegion2(Self.region(file))
        try file.convert(pageSize, 3 * pageSize, to: .private)
        #expect(throws: Errno.badAddress) { try view.bytes(pageSize, 1) }
        #expect(try view.bytes(0, 1) == [0])
    }

    @Test func `identity and capabilities`() throws {
        let base = try LinuxKVM()
        let kvm = MemslotTrapKVM(over: base)
        #expect(kvm.identity.name == "MemslotTrapKVM")
        #expect(kvm.identity.host.hasPrefix(base.identity.host + ", "))
        let vm = try kvm.createVM(.softwareProtected, sharedBit: nil)
        #expect(vm.contentPromise == .preserved)
        #expect(try kvm.checkExtension(.vmTypes) & 2 != 0)
        for check in [kvm.checkExtension, vm.checkExtension] {
            #expect(try check(.guestMemfdMemoryAttributes) == 8)
            #expect(try check(.guestMemfdFlags) == 3)
            #expect(try check(.memoryAttributes) == 0)
            #expect(try check(.maxVCPUs) >= 1)
        }
        // A default VM is the base backend's own, which does not convert.
        let file = try kvm.createVM(.default, sharedBit: nil)
            .createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        #expect(throws: Errno.self) { try file.convert(0, to: .private) }
    }

    @Test(arguments: TrapHost.backings)
    func `everything is released with its owners`(backing: TrapBacking) throws {
        weak var vm: AnyObject?
        weak var view: AnyObject?
        weak var vcpu: AnyObject?
        var descriptor: Int32 = -1
        var before = stat()
        do {
            let guest = try TrapGuest([0x48, 0x89, 0x07, 0xe6, 0xf4], backing: backing)
            try guest.start(rdi: TrapGuest.data)
            #expect(try guest.finish()?.count == 1)
            vm = guest.vm
            view = guest.view
            vcpu = guest.vcpu
            descriptor = guest.file.descriptor
            unsafe #expect(fstat(descriptor, &before) == 0)
        }
        #expect(vm == nil && view == nil && vcpu == nil)
        // The number may belong to another file by now.
        var after = stat()
        let isClosed = unsafe fstat(descriptor, &after) != 0
        #expect(isClosed || before.st_ino != after.st_ino || before.st_dev != after.st_dev)
    }
}
