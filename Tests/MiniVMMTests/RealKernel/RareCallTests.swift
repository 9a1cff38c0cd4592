// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import SystemPackage
import Testing

@testable import MiniVMM

/// Uses of closed descriptors and unmapped mappings, on a memfd, which every kernel has.
@Suite("Closed descriptors and removed mappings", .timeLimit(.minutes(120)))
struct RareCallTests {
    private static let pages: UInt64 = 4

    private func memfd() throws -> LinuxGuestMemfd {
        let number = Int32(try value(unsafe ckvm_memfd_create("a test")))
        let size = Self.pages * pageSize
        #expect(ftruncate(number, Int(size)) == 0)
        return LinuxGuestMemfd(owning: number, size: size)
    }

    private func failure(_ body: () throws(Errno) -> Void) -> Errno? {
        do throws(Errno) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    private func byte(_ mapping: any HostMapping, at offset: UInt64) throws(Errno) -> UInt8 {
        var byte: UInt8 = 0
        _ = try withUnsafeMutableBytes(of: &byte) { bytes throws(Errno) in
            try mapping.read(at: offset, into: bytes)
        }
        return byte
    }

    private func put(_ byte: UInt8, _ mapping: any HostMapping, at offset: UInt64) throws(Errno) {
        _ = try withUnsafeBytes(of: byte) { bytes throws(Errno) in try mapping.write(at: offset, from: bytes)
        }
    }

    @Test func aClosedDescriptorsNumberIsNotReused() throws {
        let file = try memfd()
        try file.reserveDescriptor()
        let copy = try file.duplicate()
        let numbers = [file.descriptor, copy.descriptor]
        #expect(numbers[0] != numbers[1])
        try file.closeDescriptor()
        let others = try (0..<64).map { _ in try memfd() }
        for other in others.prefix(8) { try other.reserveDescriptor() }
        #expect(!others.contains { numbers.contains($0.descriptor) })
        #expect(failure { () throws(Errno) in try file.closeDescriptor() } == .badFileDescriptor)
        #expect(
            failure { () throws(Errno) in _ = try file.map(offset: 0, length: pageSize) }
                == .badFileDescriptor)
        #expect(
            failure { () throws(Errno) in try file.allocate(punchHole: true, offset: 0, length: pageSize) }
                == .badFileDescriptor)
        #expect(failure { () throws(Errno) in _ = try file.duplicate() } == .badFileDescriptor)
        // The other descriptor still refers to the file.
        #expect(failure { () throws(Errno) in _ = try copy.map(offset: 0, length: pageSize) } == nil)
    }

    @Test func aNumberIsFreedWithItsObject() throws {
        // More than a process may have open at a time, one after the other.
        for _ in 0..<3000 { try memfd().reserveDescriptor() }
    }

    @Test func anUnmappedRangeIsNotReused() throws {
        let file = try memfd()
        let view = try file.mapAlone(offset: 0, length: file.size)
        try put(7, view, at: 0)
        try view.unmap()
        let others = try (0..<200).map { _ in try file.map(offset: 0, length: file.size) }
        let alone = try file.mapAlone(offset: 0, length: file.size)
        for other in others + [alone] {
            #expect(
                other.address + other.length <= view.address || view.address + view.length <= other.address)
        }
        #expect(failure { () throws(Errno) in _ = try byte(view, at: 0) } == .badAddress)
        #expect(
            failure { () throws(Errno) in try view.advise(at: 0, length: pageSize, .dontNeed) } == .noMemory)
        #expect(failure { () throws(Errno) in try view.protect(at: 0, length: pageSize, .none) } == .noMemory)
        #expect(failure { () throws(Errno) in _ = try view.move(toLength: pageSize) } == .badAddress)
        #expect(failure { () throws(Errno) in try view.unmap() } == nil)
        #expect(try byte(alone, at: 0) == 7)
    }

    @Test func aMappingMovesWithItsPages() throws {
        let file = try memfd()
        let view = try file.mapAlone(offset: 0, length: file.size)
        try put(7, view, at: pageSize)
        let moved = try view.move(toLength: 2 * pageSize)
        #expect(moved.length == 2 * pageSize && moved.address != view.address)
        #expect(try byte(moved, at: pageSize) == 7)
        #expect(failure { () throws(Errno) in _ = try byte(view, at: pageSize) } == .badAddress)
        #expect(failure { () throws(Errno) in _ = try moved.move(toLength: 0) } == .invalidArgument)
        #expect(try byte(moved, at: pageSize) == 7)
    }

    @Test func aProtectedPageIsInaccessible() throws {
        let file = try memfd()
        let view = try file.mapAlone(offset: 0, length: file.size)
        try view.protect(at: 0, length: pageSize, .none)
        try view.protect(at: pageSize, length: pageSize, .read)
        #expect(failure { () throws(Errno) in _ = try byte(view, at: 0) } == .badAddress)
        #expect(failure { () throws(Errno) in try put(1, view, at: pageSize) } == .badAddress)
        #expect(try byte(view, at: pageSize) == 0)
        try view.protect(at: 0, length: file.size, .readWrite)
        try put(1, view, at: 0)
        #expect(try byte(view, at: 0) == 1)
    }

    @Test func nothingOfThisProcessIsProtectedOrBound() throws {
        let view = try memfd().mapAlone(offset: 0, length: pageSize)
        #expect(
            failure { () throws(Errno) in try view.protect(at: 0, length: 2 * pageSize, .none) }
                == .badAddress)
        let placing = try #require(view as? any NodePlacing)
        #expect(
            failure { () throws(Errno) in try placing.bind(at: pageSize, length: 1, .local, []) }
                == .badAddress)
        #expect(failure { () throws(Errno) in _ = try placing.node(at: pageSize) } == .badAddress)
    }
}
