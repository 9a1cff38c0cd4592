// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A memslot of the base backend.
struct BaseSlot: Hashable {
    /// Guest-physical address; includes the shared bit for the shared alias.
    let gpa: UInt64
    /// Bytes.
    let size: UInt64
    /// The host address that the kernel uses for its own accesses.
    let userspaceAddress: UInt64
    /// The guest_memfd that the slot is bound to, nil for a memfd.
    let guestMemfd: Int32?
    /// Bytes from the start of the file.
    let offset: UInt64

    /// A shut alias: its slot is bound to a file that is closed afterwards, so that the kernel answers an access
    /// with `KVM_EXIT_MEMORY_FAULT` instead of emulating a device.
    static func shut(gpa: UInt64, size: UInt64, offset: UInt64) -> BaseSlot {
        BaseSlot(gpa: gpa, size: size, userspaceAddress: 0, guestMemfd: shutFile, offset: offset)
    }
    private static let shutFile: Int32 = -1
    var isShut: Bool { guestMemfd == Self.shutFile }

    func region(id: UInt32, shutFile: Int32?) -> ckvm_userspace_memory_region2 {
        var region = ckvm_userspace_memory_region2()
        region.slot = id
        region.guest_phys_addr = gpa
        region.memory_size = size
        region.userspace_addr = userspaceAddress
        if let guestMemfd = isShut ? shutFile : guestMemfd {
            region.flags = CKVM_MEM_GUEST_MEMFD
            region.guest_memfd = UInt32(bitPattern: guestMemfd)
            region.guest_memfd_offset = offset
        }
        return region
    }
}

/// The memslots that exist in the base backend, and their numbers. Guarded by ``CarvedVM/memory``'s lock; the gate is
/// closed while a slot changes.
struct BaseSlots {
    private let vm: any KVMVirtualMachine
    /// Nonnil where the kernel has only `KVM_SET_USER_MEMORY_REGION` (before 6.8).
    private let old: LinuxVM?
    private let limit: Int
    /// Slot numbers by guest-physical address.
    private var carved: [UInt64: UInt32] = [:]
    private var freeIDs: [UInt32] = []
    private var nextID: UInt32 = 0

    init(_ vm: any KVMVirtualMachine, limit: Int?, hasRegion2: Bool) throws(Errno) {
        self.vm = vm
        self.limit = try min(vm.checkExtension(.memslots), limit ?? .max)
        old = hasRegion2 ? nil : vm as? LinuxVM
    }

    private var used: Int { Int(nextID) - freeIDs.count }

    /// The largest slot to create for a region: 256 MiB, or more where that would use over an eighth of the slots.
    func chunk(forRegionOf size: UInt64) -> UInt64 {
        var chunk: UInt64 = 256 << 20
        while size / chunk > UInt64(limit / 8), chunk < 1 << 62 { chunk *= 2 }
        return chunk
    }

    /// A number for a slot that is not carved.
    mutating func allocateID() throws(Errno) -> UInt32 {
        if let id = freeIDs.popLast() { return id }
        guard Int(nextID) < limit else { throw .noMemory }
        defer { nextID += 1 }
        return nextID
    }

    mutating func free(_ id: UInt32) { freeIDs.append(id) }

    /// Whether there are enough free slots for `change`.
    func hasRoom(for change: Change) -> Bool {
        used - change.deleted.count + change.created.count <= limit
    }

    /// Slots to delete and slots to create.
    struct Change {
        var deleted: [BaseSlot] = []
        var created: [BaseSlot] = []

        var isEmpty: Bool { deleted.isEmpty && created.isEmpty }

        /// The smallest file size that covers every shut alias among the slots; nil if there are none.
        var shutFileSize: UInt64? {
            var size: UInt64 = 0
            for slot in deleted where slot.isShut { size = max(size, slot.offset + slot.size) }
            for slot in created where slot.isShut { size = max(size, slot.offset + slot.size) }
            return size == 0 ? nil : size
        }

        /// Drops slots that would be deleted and created again unchanged.
        mutating func dropCommon() {
            if deleted.count + created.count <= 16 {
                // For a few slots, as with a page or a run, a linear search is faster than hashing.
                let kept = deleted.filter(created.contains)
                guard !kept.isEmpty else { return }
                deleted.removeAll(where: kept.contains)
                created.removeAll(where: kept.contains)
                return
            }
            let kept = Set(deleted).intersection(created)
            deleted.removeAll { kept.contains($0) }
            created.removeAll { kept.contains($0) }
        }
    }

    /// All or nothing.
    ///
    /// All requests are prepared first, so that the calls follow one another directly: each waits for
    /// the users of the old memslots, and a microsecond between two calls makes the second wait a fifth longer.
    mutating func apply(_ change: Change) throws(Errno) {
        guard hasRoom(for: change) else { throw .noMemory }
        // The file stays open while slots are bound to it. No vCPU is inside, so none finds the alias open.
        var shutFile: (any KVMGuestMemfd)?
        if let size = change.shutFileSize { shutFile = try vm.createGuestMemfd(size: size, flags: [.mmap]) }
        defer { withExtendedLifetime(shutFile) {} }
        var calls: [ckvm_userspace_memory_region2] = []
        calls.reserveCapacity(change.deleted.count + change.created.count)
        for slot in change.deleted {
            guard let id = carved[slot.gpa] else { continue }
            var deletion = ckvm_userspace_memory_region2()
            deletion.slot = id
            calls.append(deletion)
        }
        // New slots reuse the numbers of deleted ones first.
        let deletions = calls.count
        for (index, slot) in change.created.enumerated() {
            let id = index < deletions ? calls[index].slot : try allocateID()
            calls.append(slot.region(id: id, shutFile: shutFile?.descriptor))
        }
        var done = 0
        do throws(Errno) {
            for call in calls {
                try set(call)
                done += 1
            }
        } catch {
            undo(change, calls, deletions: deletions, done: done, shutFile: shutFile?.descriptor)
            throw error
        }
        for slot in change.deleted { carved[slot.gpa] = nil }
        for (slot, call) in zip(change.created, calls[deletions...]) { carved[slot.gpa] = call.slot }
        for call in calls[..<deletions].dropFirst(change.created.count) { free(call.slot) }
    }

    /// The old slots have just been in use, so creating them again should succeed. If the kernel refuses even that,
    /// guest accesses there leave as MMIO and are finished one by one, since the page's state allows them.
    private mutating func undo(
        _ change: Change, _ calls: [ckvm_userspace_memory_region2], deletions: Int, done: Int,
        shutFile: Int32?
    ) {
        for index in (deletions..<max(deletions, done)).reversed() {
            var deletion = ckvm_userspace_memory_region2()
            deletion.slot = calls[index].slot
            try? set(deletion)
        }
        let gone = change.deleted.filter { carved[$0.gpa] != nil }
        for (slot, call) in zip(gone, calls).prefix(min(done, deletions)).reversed() {
            do throws(Errno) {
                try set(slot.region(id: call.slot, shutFile: shutFile))
            } catch {
                carved[slot.gpa] = nil
                free(call.slot)
            }
        }
        // Numbers that were allocated only for new slots.
        for call in calls.dropFirst(2 * deletions) { free(call.slot) }
    }

    /// One call to the base backend.
    func set(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        guard let old else { return try vm.setUserMemoryRegion2(region) }
        try old.setUserMemoryRegion(
            ckvm_userspace_memory_region(
                slot: region.slot, flags: region.flags, guest_phys_addr: region.guest_phys_addr,
                memory_size: region.memory_size, userspace_addr: region.userspace_addr))
    }
}
