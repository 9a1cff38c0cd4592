import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``MemslotTrapKVM``. Keeps its VM alive.
final class TrapGuestMemfd: KVMGuestMemfd {
    private let backing: any KVMGuestMemfd
    private let number: Int
    private let flags: GuestMemfdFlags
    private let convertsBelow: Bool
    private let vm: TrapVM

    init(
        _ backing: any KVMGuestMemfd, number: Int, flags: GuestMemfdFlags, convertsBelow: Bool, of vm: TrapVM
    ) {
        self.backing = backing
        self.number = number
        self.flags = flags
        self.convertsBelow = convertsBelow
        self.vm = vm
    }

    deinit { vm.memory.withLock { $0.close(number) } }

    var descriptor: Int32 { backing.descriptor }
    var size: UInt64 { backing.size }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        if convertsBelow { return try convertBelow(&request) }
        let (range, state) = try request.validated(fileSize: size)
        do throws(ConversionRefusal) {
            // No vCPU is disturbed for a call that changes no memslot.
            let needsGate = try vm.memory.withLock { memory throws(ConversionRefusal) -> Bool in
                guard let file = memory.files[number], file.attributes.uniformState(of: range) != state else {
                    return false
                }
                let isHeld = state == .private && file.lowestHeldPage(in: range) != nil
                if memory.isCarved(number) && !isHeld { return true }
                try memory.convert(number, range, to: state)
                return false
            }
            guard needsGate else { return }
            try vm.gate.withClosed { () throws(ConversionRefusal) in
                try vm.memory.withLock { memory throws(ConversionRefusal) in
                    try memory.convert(number, range, to: state)
                }
            }
        } catch {
            request.error_offset = error.offset
            throw error.errno
        }
    }

    /// The kernel below judges and converts; memslots follow.
    private func convertBelow(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        var call = request
        defer { request = call }
        let conversion = try? call.validated(fileSize: size)
        // No vCPU is disturbed for a call that changes no memslot, or that the kernel will refuse.
        let isDone = try vm.memory.withLock { memory throws(Errno) -> Bool in
            guard let file = memory.files[number] else { throw .badFileDescriptor }
            if let (range, state) = conversion, memory.isCarved(number),
                file.attributes.uniformState(of: range) != state
            {
                return false
            }
            try backing.setMemoryAttributes2(&call)
            if let (range, state) = conversion { file.attributes.set(range, to: state) }
            return true
        }
        guard !isDone, let (range, state) = conversion else { return }
        try vm.gate.withClosed { () throws(Errno) in
            try vm.memory.withLock { memory throws(Errno) in
                try memory.convertBelow(number, range, to: state, &call)
            }
        }
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        if convertsBelow { return try backing.map(offset: offset, length: length) }
        guard flags.contains(.mmap) else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        return try vm.memory.withLock { memory throws(Errno) in
            let view = TrapHostMapping(
                try backing.map(offset: offset, length: length), of: number, pages: pages, in: vm,
                openedBy: self)
            guard let file = memory.files[number] else { throw .badFileDescriptor }
            try view.protect(pages, as: file.attributes)
            memory.files[number]?.views.removeAll { $0.view == nil }
            memory.files[number]?.views.append(TrapMemory.WeakView(view: view))
            return view
        }
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        if convertsBelow {
            return try backing.allocate(punchHole: punchHole, offset: offset, length: length)
        }
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
    fileprivate func forgetHolds(in range: PageRange) {
        for (id, pages) in holds { holds[id] = pages.filter { !range.contains($0) } }
    }
}

extension TrapMemory {
    /// Rows 9 to 11 of the table, and the conversion. All or nothing; a kernel below that has no memory for it is
    /// `ENOMEM`. Where memslots change the gate is closed.
    fileprivate mutating func convert(
        _ number: Int, _ range: PageRange, to state: PageState
    ) throws(ConversionRefusal) {
        guard let file = files[number], file.attributes.uniformState(of: range) != state else { return }
        let before = Array(file.attributes.runs(in: range))
        let change = set(range, of: file, number, to: state)
        let refusal: ConversionRefusal
        if !slots.hasRoom(for: change) {
            refusal = ConversionRefusal(errno: .noMemory, offset: range.start)
        } else if state == .private, let held = file.lowestHeldPage(in: range) {
            refusal = ConversionRefusal(errno: .resourceTemporarilyUnavailable, offset: held)
        } else {
            do throws(Errno) {
                try file.protectViews(range)
                try slots.apply(change)
                return
            } catch {
                refusal = ConversionRefusal(errno: .noMemory, offset: range.start)
            }
        }
        for run in before { file.attributes.set(run.range, to: run.state) }
        if refusal.errno == .noMemory { try? file.protectViews(range) }
        throw refusal
    }
}

extension TrapMemory {
    /// All or nothing, as far as the kernel below can undo what it did: nobody but a new holder can keep it from that.
    fileprivate mutating func convertBelow(
        _ number: Int, _ range: PageRange, to state: PageState, _ call: inout ckvm_memory_attributes2
    ) throws(Errno) {
        guard let file = files[number] else { throw .badFileDescriptor }
        let before = Array(file.attributes.runs(in: range))
        let change = set(range, of: file, number, to: state)
        do throws(Errno) {
            guard slots.hasRoom(for: change) else {
                call.error_offset = range.start
                throw .noMemory
            }
            try file.backing.setMemoryAttributes2(&call)
        } catch {
            for run in before { file.attributes.set(run.range, to: run.state) }
            throw error
        }
        do throws(Errno) {
            try slots.apply(change)
        } catch {
            for run in before {
                var undo = ckvm_memory_attributes2()
                undo.offset = run.range.start
                undo.size = run.range.size
                undo.attributes = run.state == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
                undo.flags = call.flags & ContentMode.preserve.rawValue
                try? file.backing.setMemoryAttributes2(&undo)
                file.attributes.set(run.range, to: run.state)
            }
            call.error_offset = range.start
            throw .noMemory
        }
    }
}

extension TrapMemory.File {
    /// Gives the mappings that were handed out the access that the states of `range` allow.
    fileprivate func protectViews(_ range: PageRange) throws(Errno) {
        for index in views.indices { try views[index].view?.protect(range, as: attributes) }
    }
}
