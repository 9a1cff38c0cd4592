// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A memslot of the kernel below.
struct BaseSlot: Hashable {
    /// Guest-physical address, with the shared bit where it is the shared alias.
    let gpa: UInt64
    /// Bytes.
    let size: UInt64
    /// Where the kernel's own accesses go.
    let userspaceAddress: UInt64
    /// The guest_memfd that it is bound to, nil for a memfd.
    let guestMemfd: Int32?
    /// Bytes from the start of the file.
    let offset: UInt64

    /// An alias that is shut: its slot is bound to a file that is closed afterwards, so that the kernel answers an access
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

/// The memslots that exist below, and their numbers. Guarded by the lock of ``CarvedVM/memory``; the gate is
/// closed while one changes.
struct BaseSlots {
    private let vm: any KVMVirtualMachine
    /// `KVM_SET_USER_MEMORY_REGION`, where the kernel has no newer one (before 6.8).
    private let old: LinuxVM?
    private let limit: Int
    /// By guest-physical address.
    private var carved: [UInt64: UInt32] = [:]
    private var freeIDs: [UInt32] = []
    private var nextID: UInt32 = 0

    init(_ vm: any KVMVirtualMachine, limit: Int?, hasRegion2: Bool) throws(Errno) {
        self.vm = vm
        self.limit = try min(vm.checkExtension(.memslots), limit ?? .max)
        old = hasRegion2 ? nil : vm as? LinuxVM
    }

    private var used: Int { Int(nextID) - freeIDs.count }

    /// The largest slot to make for a region: 256 MiB, or more where that would take over an eighth of the slots.
    func chunk(forRegionOf size: UInt64) -> UInt64 {
        var chunk: UInt64 = 256 << 20
        while size / chunk > UInt64(limit / 8), chunk < 1 << 62 { chunk *= 2 }
        return chunk
    }

    /// A number for a slot that is not carved.
    mutating func takeID() throws(Errno) -> UInt32 {
        if let id = freeIDs.popLast() { return id }
        guard Int(nextID) < limit else { throw .noMemory }
        defer { nextID += 1 }
        return nextID
    }

    mutating func giveBack(_ id: UInt32) { freeIDs.append(id) }

    /// Whether ``change(_:)`` has slots enough.
    func hasRoom(for change: Change) -> Bool {
        used - change.gone.count + change.new.count <= limit
    }

    /// Slots that go and slots that come.
    struct Change {
        var gone: [BaseSlot] = []
        var new: [BaseSlot] = []

        var isEmpty: Bool { gone.isEmpty && new.isEmpty }

        /// Bytes of a file that all shut aliases among the slots can be bound to; nil without any.
        var shutFileSize: UInt64? {
            (gone + new).lazy.filter(\.isShut).map { $0.offset + $0.size }.max()
        }

        /// What goes only to come again stays: only what differs is carved anew.
        mutating func dropCommon() {
            if gone.count + new.count <= 16 {
                // Few, as for a page or a run: looking at all is quicker than hashing them.
                let kept = gone.filter(new.contains)
                guard !kept.isEmpty else { return }
                gone.removeAll(where: kept.contains)
                new.removeAll(where: kept.contains)
                return
            }
            let kept = Set(gone).intersection(new)
            gone.removeAll { kept.contains($0) }
            new.removeAll { kept.contains($0) }
        }
    }

    /// All or nothing.
    ///
    /// What is asked of the kernel is written down first and the calls follow right after one another: each waits for
    /// those who still use the old memslots, and a microsecond between two makes the second wait a fifth longer.
    mutating func apply(_ change: Change) throws(Errno) {
        guard hasRoom(for: change) else { throw .noMemory }
        // Open while slots are bound to it. No vCPU is inside, so none finds the alias open.
        var shutFile: (any KVMGuestMemfd)?
        if let size = change.shutFileSize { shutFile = try vm.createGuestMemfd(size: size, flags: [.mmap]) }
        defer { withExtendedLifetime(shutFile) {} }
        var calls: [ckvm_userspace_memory_region2] = []
        calls.reserveCapacity(change.gone.count + change.new.count)
        for slot in change.gone {
            guard let id = carved[slot.gpa] else { continue }
            var deletion = ckvm_userspace_memory_region2()
            deletion.slot = id
            calls.append(deletion)
        }
        // New slots have the numbers of deleted ones, as far as these go.
        let deletions = calls.count
        for (index, slot) in change.new.enumerated() {
            let id = index < deletions ? calls[index].slot : try takeID()
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
        for slot in change.gone { carved[slot.gpa] = nil }
        for (slot, call) in zip(change.new, calls[deletions...]) { carved[slot.gpa] = call.slot }
        for call in calls[..<deletions].dropFirst(change.new.count) { giveBack(call.slot) }
    }

    /// What existed a moment ago can exist again. Should the kernel refuse even that, the guest's accesses there
    /// leave as MMIO, and are finished one by one, since the page's state allows them.
    private mutating func undo(
        _ change: Change, _ calls: [ckvm_userspace_memory_region2], deletions: Int, done: Int,
        shutFile: Int32?
    ) {
        for index in (deletions..<max(deletions, done)).reversed() {
            var deletion = ckvm_userspace_memory_region2()
            deletion.slot = calls[index].slot
            try? set(deletion)
        }
        let gone = change.gone.filter { carved[$0.gpa] != nil }
        for (slot, call) in zip(gone, calls).prefix(min(done, deletions)).reversed() {
            do throws(Errno) {
                try set(slot.region(id: call.slot, shutFile: shutFile))
            } catch {
                carved[slot.gpa] = nil
                giveBack(call.slot)
            }
        }
        // Numbers that were taken for new slots alone.
        for call in calls.dropFirst(2 * deletions) { giveBack(call.slot) }
    }

    /// One call to the kernel below.
    func set(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        guard let old else { return try vm.setUserMemoryRegion2(region) }
        try old.setUserMemoryRegion(
            ckvm_userspace_memory_region(
                slot: region.slot, flags: region.flags, guest_phys_addr: region.guest_phys_addr,
                memory_size: region.memory_size, userspace_addr: region.userspace_addr))
    }
}
