// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// Files, regions and page states of a VM of ``MemslotTrapKVM``.
typealias TrapMemory = CarvedMemory<TrapFile>

/// A guest_memfd of ``MemslotTrapKVM``. Guarded by the lock of ``CarvedVM/memory``, like all that is in here.
final class TrapFile: CarvedFile, @unchecked Sendable {
    static let shutsOtherAlias = false

    let backing: any KVMGuestMemfd
    private let kind: TrapBacking
    /// The mapping that the kernel's own accesses use: all of the file, never protected, handed to nobody.
    let kernelView: any HostMapping
    var attributes: AttributeMap
    /// The mappings that were handed out.
    var views: [WeakView] = []
    /// The pages each hold has, by file offset.
    private var holds: [Int: [UInt64]] = [:]
    private var nextHold = 0

    struct WeakView {
        weak var view: TrapHostMapping?
    }

    init(
        backing: any KVMGuestMemfd, kind: TrapBacking, kernelView: any HostMapping, attributes: AttributeMap
    ) {
        self.backing = backing
        self.kind = kind
        self.kernelView = kernelView
        self.attributes = attributes
    }

    var descriptor: Int32 { backing.descriptor }
    var boundDescriptor: Int32? { isMemfd ? nil : backing.descriptor }
    var isMemfd: Bool { kind == .memfd }

    /// The caller's `userspace_addr` may not be touched at times.
    func userspaceAddress(of region: ckvm_userspace_memory_region2) -> UInt64 {
        kernelView.address + region.guest_memfd_offset
    }

    // MARK: mappings

    /// Gives the mappings that were handed out the access that the states of `range` allow.
    func protectViews(_ range: PageRange) throws(Errno) {
        let attributes = attributes
        for reference in views { try reference.view?.protect(range, as: attributes) }
    }

    // MARK: holds

    /// The lowest page in `range` that somebody holds.
    func lowestHeldPage(in range: PageRange) -> UInt64? {
        holds.isEmpty ? nil : holds.values.joined().filter(range.contains).min()
    }

    /// - Returns: a number that no hold of this file ever had.
    func addHold(of pages: PageRange?) -> Int {
        defer { nextHold += 1 }
        if let pages { holds[nextHold] = pages.chunks(of: pageSize).map(\.start) }
        return nextHold
    }

    func removeHold(_ number: Int) { holds[number] = nil }

    /// Whoever holds a page that is punched out keeps the old one, and the file has it no more.
    func forgetHolds(in range: PageRange) {
        for (id, pages) in holds { holds[id] = pages.filter { !range.contains($0) } }
    }
}

extension CarvedMemory where File == TrapFile {
    /// The memory fault of an access: its first page whose state is not that of its alias.
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
