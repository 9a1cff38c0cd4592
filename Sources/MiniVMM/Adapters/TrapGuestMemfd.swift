import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``MemslotTrapKVM``. Keeps its VM alive.
final class TrapGuestMemfd: KVMGuestMemfd {
    private let backing: any KVMGuestMemfd
    private let number: Int
    private let flags: GuestMemfdFlags
    private let vm: TrapVM

    init(_ backing: any KVMGuestMemfd, number: Int, flags: GuestMemfdFlags, of vm: TrapVM) {
        self.backing = backing
        self.number = number
        self.flags = flags
        self.vm = vm
    }

    deinit { vm.memory.withLock { $0.close(number) } }

    var descriptor: Int32 { backing.descriptor }
    var size: UInt64 { backing.size }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let (range, state) = try validated(request)
        do throws(ConversionRefusal) {
            // No vCPU is disturbed for a call that changes no memslot.
            let isDone = try vm.memory.withLock { memory throws(ConversionRefusal) -> Bool in
                let plan = try memory.plan(number, range, state)
                guard let plan, !plan.change.isEmpty else {
                    if let plan { try memory.carryOut(plan) }
                    return true
                }
                return false
            }
            if isDone { return }
            try vm.gate.withClosed { () throws(ConversionRefusal) in
                try vm.memory.withLock { memory throws(ConversionRefusal) in
                    if let plan = try memory.plan(number, range, state) { try memory.carryOut(plan) }
                }
            }
        } catch {
            request.error_offset = error.offset
            throw error.errno
        }
    }

    /// Rows 2 to 8 of the table, in its order.
    private func validated(
        _ request: ckvm_memory_attributes2
    ) throws(Errno) -> (range: PageRange, state: PageState) {
        guard request.flags == 0 else { throw .invalidArgument }
        let hasReserved = unsafe withUnsafeBytes(of: request.reserved) { unsafe $0.contains { $0 != 0 } }
        guard !hasReserved, request.attributes & ~CKVM_MEMORY_ATTRIBUTE_PRIVATE == 0,
            let range = PageRange(start: request.offset, size: request.size), range.end <= size
        else { throw .invalidArgument }
        return (range, request.attributes == 0 ? .shared : .private)
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        guard flags.contains(.mmap) else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        return try vm.memory.withLock { memory throws(Errno) in
            let view = TrapHostMapping(
                try backing.map(offset: offset, length: length), of: number, pages: pages, in: vm)
            guard let file = memory.files[number] else { throw .badFileDescriptor }
            try view.protect(pages, as: file.attributes)
            memory.files[number]?.views.removeAll { $0.view == nil }
            memory.files[number]?.views.append(TrapMemory.WeakView(view: view))
            return view
        }
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        guard let range = PageRange(start: offset, size: length), punchHole || range.end <= size else {
            throw .invalidArgument
        }
        try vm.memory.withLock { memory throws(Errno) in
            try backing.allocate(punchHole: punchHole, offset: offset, length: length)
            // Whoever holds a punched page keeps the old one, and the file has it no more.
            if punchHole { memory.files[number]?.forgetHolds(in: range) }
        }
    }
}

/// Why a conversion changed nothing, and at which byte of the file.
struct ConversionRefusal: Error {
    let errno: Errno
    let offset: UInt64
}

extension TrapMemory.File {
    fileprivate mutating func forgetHolds(in range: PageRange) {
        for (id, pages) in holds { holds[id] = pages.filter { !range.contains($0) } }
    }
}

extension TrapMemory {
    /// A conversion that was found possible.
    fileprivate struct Plan {
        let file: Int
        let range: PageRange
        let after: AttributeMap
        let change: BaseSlots.Change
    }

    /// Rows 9 to 11 of the table.
    ///
    /// - Returns: nil when nothing is to be done.
    fileprivate func plan(
        _ number: Int, _ range: PageRange, _ state: PageState
    ) throws(ConversionRefusal) -> Plan? {
        guard let file = files[number], file.attributes.uniformState(of: range) != state else { return nil }
        var after = file.attributes
        after.set(range, to: state)
        let change = change(of: file, number, range, to: after)
        guard slots.hasRoom(for: change) else {
            throw ConversionRefusal(errno: .noMemory, offset: range.start)
        }
        if state == .private, let held = file.lowestHeldPage(in: range) {
            throw ConversionRefusal(errno: .resourceTemporarilyUnavailable, offset: held)
        }
        return Plan(file: number, range: range, after: after, change: change)
    }

    /// All or nothing; a kernel that has no memory for it is `ENOMEM`.
    fileprivate mutating func carryOut(_ plan: Plan) throws(ConversionRefusal) {
        guard let file = files[plan.file] else { return }
        let views = file.views.compactMap(\.view)
        do throws(Errno) {
            for view in views { try view.protect(plan.range, as: plan.after) }
            try slots.apply(plan.change)
        } catch {
            for view in views { try? view.protect(plan.range, as: file.attributes) }
            throw ConversionRefusal(errno: .noMemory, offset: plan.range.start)
        }
        files[plan.file]?.attributes = plan.after
    }
}
