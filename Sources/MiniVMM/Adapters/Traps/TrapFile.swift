// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// Files, regions and page states of a VM of ``MemslotTrapKVM``.
typealias TrapMemory = CarvedMemory<TrapFile>

/// A guest_memfd of ``MemslotTrapKVM``. ``CarvedVM/memory``'s lock guards it and everything in it.
final class TrapFile: CarvedFile, @unchecked Sendable {
    static let shutsOtherAlias = false

    let backing: any KVMGuestMemfd
    private let kind: TrapBacking
    /// The mapping for the kernel's own accesses: the whole file, never protected, never handed out.
    let kernelMapping: any HostMapping
    var attributes: AttributeMap
    /// Mappings that were handed out.
    var mappings: [WeakMapping] = []
    /// The pages of each hold, by file offset.
    private var holds: [Int: [UInt64]] = [:]
    private var nextHold = 0

    struct WeakMapping {
        weak var mapping: TrapHostMapping?
    }

    init(
        backing: any KVMGuestMemfd, kind: TrapBacking, kernelMapping: any HostMapping,
        attributes: AttributeMap
    ) {
        self.backing = backing
        self.kind = kind
        self.kernelMapping = kernelMapping
        self.attributes = attributes
    }

    var descriptor: Int32 { backing.descriptor }
    var boundDescriptor: Int32? { isMemfd ? nil : backing.descriptor }
    var isMemfd: Bool { kind == .memfd }

    /// The caller's `userspace_addr` is inaccessible at times, so the adapter's own mapping is used.
    func userspaceAddress(of region: ckvm_userspace_memory_region2) -> UInt64 {
        kernelMapping.address + region.guest_memfd_offset
    }

    // MARK: mappings

    /// Gives the mappings that were handed out the access that the states of `range` allow.
    func protectMappings(_ range: PageRange) throws(Errno) {
        let attributes = attributes
        // By index, because a copy of a weak reference costs as much as the rest.
        for index in mappings.indices { try mappings[index].mapping?.protect(range, as: attributes) }
    }

    // MARK: holds

    /// The lowest page in `range` with a hold.
    func lowestHeldPage(in range: PageRange) -> UInt64? {
        holds.isEmpty ? nil : holds.values.joined().filter(range.contains).min()
    }

    /// - Returns: a number that no other hold of this file has had.
    func addHold(of pages: PageRange?) -> Int {
        defer { nextHold += 1 }
        if let pages { holds[nextHold] = pages.chunks(of: pageSize).map(\.start) }
        return nextHold
    }

    func removeHold(_ number: Int) { holds[number] = nil }

    /// The holder of a punched page keeps the old page, which is no longer part of the file.
    func forgetHolds(in range: PageRange) {
        for (id, pages) in holds { holds[id] = pages.filter { !range.contains($0) } }
    }
}

extension CarvedMemory where File == TrapFile {
    /// The memory fault of an access: its first page whose state does not match the alias.
    func fault(at place: Target, length: UInt64) -> MemoryFault? {
        guard let alias = place.alias,
            let pages = PageRange.covering(start: place.offset, size: length)
        else { return nil }
        for page in pages.chunks(of: pageSize) where place.file.attributes.value(at: page.start) != alias {
            let gpa = (place.gpa - place.offset % pageSize) + (page.start - pages.start)
            return MemoryFault(
                gpa: gpa, size: pageSize, flags: alias == .private ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0)
        }
        return nil
    }
}
