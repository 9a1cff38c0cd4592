// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

struct MemslotTests {
    private let model: ModelVM
    init() throws { model = try ModelVM(pages: 16) }

    private func set(_ region: ckvm_userspace_memory_region2) -> Errno? {
        errno { () throws(Errno) in try model.vm.setUserMemoryRegion2(region) }
    }

    private func delete(_ id: UInt32) -> Errno? {
        var region = ckvm_userspace_memory_region2()
        region.slot = id
        return set(region)
    }

    @Test func filePageIsInOneMemslotAtATime() throws {
        #expect(set(slot(model.file, id: 0, gpa: 0, size: 8 * pageSize)) == nil)
        #expect(
            set(slot(model.file, id: 1, gpa: 1 << 30, size: 8 * pageSize, offset: 7 * pageSize))
                == .fileExists)
        #expect(set(slot(model.file, id: 1, gpa: 1 << 30, size: 8 * pageSize, offset: 8 * pageSize)) == nil)
        #expect(delete(0) == nil)
        #expect(set(slot(model.file, id: 2, gpa: 1 << 31, size: 8 * pageSize)) == nil)
    }

    @Test func overlappingAddressesAreRejected() throws {
        #expect(set(slot(model.file, id: 0, gpa: 4 * pageSize, size: 4 * pageSize)) == nil)
        let other = try model.vm.createGuestMemfd(size: 16 * pageSize, flags: [])
        for (gpa, size) in [(3, 2), (7, 2), (5, 1), (0, 16)] as [(UInt64, UInt64)] {
            #expect(set(slot(other, id: 1, gpa: gpa * pageSize, size: size * pageSize)) == .fileExists)
        }
        #expect(set(slot(other, id: 1, gpa: 8 * pageSize, size: pageSize)) == nil)
        #expect(set(slot(other, id: 2, gpa: 3 * pageSize, size: pageSize, offset: pageSize)) == nil)
    }

    @Test func memslotWithAFileCannotChange() throws {
        #expect(set(slot(model.file)) == nil)
        #expect(set(slot(model.file)) == .invalidArgument)
        #expect(set(slot(model.file, gpa: 1 << 30)) == .invalidArgument)
    }

    @Test func flagsRejectedWithAFile() throws {
        for flag in [CKVM_MEM_READONLY, CKVM_MEM_LOG_DIRTY_PAGES, 8] {
            #expect(set(slot(model.file, flags: CKVM_MEM_GUEST_MEMFD | flag)) == .invalidArgument)
        }
    }

    /// Without a guest_memfd a memslot can be read-only, which cannot be changed, and its dirty log can be switched
    /// on and off.
    @Test func flagsOfAMemslotWithoutAFile() throws {
        func plain(_ flags: UInt32, id: UInt32, gpa: UInt64) -> ckvm_userspace_memory_region2 {
            var region = slot(model.file, id: id, gpa: gpa, size: 4 * pageSize, flags: flags)
            region.userspace_addr = model.mapping.address
            return region
        }
        let (log, readOnly) = (CKVM_MEM_LOG_DIRTY_PAGES, CKVM_MEM_READONLY)
        for (id, flags) in [log, readOnly, log | readOnly].enumerated() {
            #expect(set(plain(flags, id: UInt32(id), gpa: UInt64(id + 1) << 30)) == nil)
        }
        #expect(set(plain(0, id: 0, gpa: 1 << 30)) == nil && set(plain(log, id: 0, gpa: 1 << 30)) == nil)
        #expect(set(plain(readOnly, id: 0, gpa: 1 << 30)) == .invalidArgument)
        #expect(set(plain(0, id: 1, gpa: 2 << 30)) == .invalidArgument)
        #expect(set(plain(8, id: 3, gpa: 4 << 30)) == .invalidArgument)
        // A move may switch the log, too.
        #expect(set(plain(0, id: 0, gpa: 8 << 30)) == nil)
    }

    @Test func badArguments() throws {
        #expect(delete(0) == .invalidArgument)
        #expect(set(slot(model.file, id: 32764)) == .invalidArgument)
        #expect(set(slot(model.file, gpa: 1)) == .invalidArgument)
        #expect(set(slot(model.file, size: 1)) == .invalidArgument)
        #expect(set(slot(model.file, size: pageSize, offset: 1)) == .invalidArgument)
        #expect(set(slot(model.file, size: 17 * pageSize)) == .invalidArgument)
        #expect(set(slot(model.file, size: 16 * pageSize, offset: pageSize)) == .invalidArgument)
        #expect(set(slot(model.file, gpa: 0 &- pageSize, size: pageSize)) == .invalidArgument)
        #expect(set(slot(model.file, gpa: 1 << 40, size: pageSize)) == .invalidArgument)
        var unaligned = slot(model.file)
        unaligned.userspace_addr = 1
        #expect(set(unaligned) == .invalidArgument)
        var closed = slot(model.file)
        closed.guest_memfd = UInt32(bitPattern: -1)
        #expect(set(closed) == .badFileDescriptor)
        #expect(set(slot(model.file)) == nil)
    }

    @Test func fileBelongsToItsVM() throws {
        let stranger = try model.kvm.createVM(.softwareProtected, sharedBit: nil)
        #expect(
            errno { () throws(Errno) in try stranger.setUserMemoryRegion2(slot(model.file)) }
                == .invalidArgument)
    }

    @Test func attributesSurviveDeletingTheMemslot() throws {
        #expect(set(slot(model.file)) == nil)
        #expect(model.file.convert(3, 2, to: .private).errno == nil)
        #expect(delete(0) == nil)
        #expect(set(slot(model.file, id: 5, gpa: 1 << 30)) == nil)
        #expect(model.states() == "sssPPsssssssssss")
    }

    @Test func memslotWithoutAFileNeedsAMappingAndCanMove() throws {
        var plain = slot(model.file, flags: 0)
        plain.userspace_addr = 0x1000
        #expect(set(plain) == .badAddress)
        plain.userspace_addr = model.mapping.address + pageSize
        #expect(set(plain) == .badAddress)
        plain.memory_size = 15 * pageSize
        #expect(set(plain) == nil)
        plain.guest_phys_addr = 1 << 30
        #expect(set(plain) == nil)
        plain.memory_size = 14 * pageSize
        #expect(set(plain) == .invalidArgument)
    }

    @Test func sharedBitLimitsGuestPhysicalAddresses() throws {
        let kvm = SoftKVM()
        for bit in [11, 40, 63, -1] {
            #expect(
                errno { () throws(Errno) in _ = try kvm.createVM(.softwareProtected, sharedBit: bit) }
                    == .invalidArgument)
        }
        #expect(
            errno { () throws(Errno) in _ = try kvm.createVM(.default, sharedBit: 39) } == .invalidArgument)
        let two = try ModelVM(pages: 2, sharedBit: 30)
        #expect(
            errno { () throws(Errno) in try two.vm.setUserMemoryRegion2(slot(two.file, gpa: 1 << 30)) }
                == .invalidArgument)
        #expect(
            errno { () throws(Errno) in try two.vm.setUserMemoryRegion2(slot(two.file, gpa: 1 << 30 - 8192)) }
                == nil)
    }
}
