import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``MemslotTrapKVM``. Keeps its VM alive.
final class TrapGuestMemfd: KVMGuestMemfd {
    private let file: TrapMemory.File
    private let flags: GuestMemfdFlags
    private let vm: TrapVM

    init(_ file: TrapMemory.File, flags: GuestMemfdFlags, of vm: TrapVM) {
        self.file = file
        self.flags = flags
        self.vm = vm
    }

    deinit { vm.memory.withLock { $0.files.removeAll { $0 === file } } }

    private var backing: any KVMGuestMemfd { file.backing }
    private var convertsBelow: Bool { file.kind == .inPlace }
    var descriptor: Int32 { backing.descriptor }
    var size: UInt64 { backing.size }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        if convertsBelow { return try convertBelow(&request) }
        let (range, state) = try request.validated(fileSize: size)
        do throws(ConversionRefusal) {
            // No vCPU is disturbed for a call that changes no memslot.
            let needsGate = try vm.memory.withLock { memory throws(ConversionRefusal) -> Bool in
                guard file.attributes.uniformValue(of: range) != state else { return false }
                let isHeld = state == .private && file.lowestHeldPage(in: range) != nil
                if memory.isCarved(file) && !isHeld { return true }
                try memory.convert(range, of: file, to: state)
                return false
            }
            guard needsGate else { return }
            try vm.gate.withClosed { () throws(ConversionRefusal) in
                try vm.memory.withLock { memory throws(ConversionRefusal) in
                    try memory.convert(range, of: file, to: state)
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
            if let (range, state) = conversion, memory.isCarved(file),
                file.attributes.uniformValue(of: range) != state
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
                try memory.convertBelow(range, of: file, to: state, &call)
            }
        }
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        if convertsBelow { return try backing.map(offset: offset, length: length) }
        guard flags.contains(.mmap) else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        return try vm.memory.withLock { _ throws(Errno) in
            let view = TrapHostMapping(
                try backing.map(offset: offset, length: length), of: file, pages: pages, in: vm)
            try view.protect(pages, as: file.attributes)
            file.views.removeAll { $0.view == nil }
            file.views.append(TrapMemory.WeakView(view: view))
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
        try vm.memory.withLock { _ throws(Errno) in
            try backing.allocate(punchHole: punchHole, offset: offset, length: length)
            if punchHole { file.forgetHolds(in: range) }
        }
    }
}

/// Why a conversion changed nothing, and at which byte of the file.
struct ConversionRefusal: Error {
    let errno: Errno
    let offset: UInt64
}

extension TrapMemory.File {
    /// Whoever holds a page that is punched out keeps the old one, and the file has it no more.
    func forgetHolds(in range: PageRange) {
        for (id, pages) in holds { holds[id] = pages.filter { !range.contains($0) } }
    }
}

extension TrapMemory {
    /// Rows 9 to 11 of the table, and the conversion. All or nothing; a kernel below that has no memory for it is
    /// `ENOMEM`. Where memslots change the gate is closed.
    fileprivate mutating func convert(
        _ range: PageRange, of file: File, to state: PageState
    ) throws(ConversionRefusal) {
        guard file.attributes.uniformValue(of: range) != state else { return }
        let before = Array(file.attributes.runs(in: range))
        let change = set(range, of: file, to: state)
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
        for run in before { file.attributes.set(run.range, to: run.value) }
        if refusal.errno == .noMemory { try? file.protectViews(range) }
        throw refusal
    }
}

extension TrapMemory {
    /// All or nothing, as far as the kernel below can undo what it did: nobody but a new holder can keep it from that.
    fileprivate mutating func convertBelow(
        _ range: PageRange, of file: File, to state: PageState, _ call: inout ckvm_memory_attributes2
    ) throws(Errno) {
        let before = Array(file.attributes.runs(in: range))
        let change = set(range, of: file, to: state)
        do throws(Errno) {
            guard slots.hasRoom(for: change) else {
                call.error_offset = range.start
                throw .noMemory
            }
            try file.backing.setMemoryAttributes2(&call)
        } catch {
            for run in before { file.attributes.set(run.range, to: run.value) }
            throw error
        }
        do throws(Errno) {
            try slots.apply(change)
        } catch {
            for run in before {
                var undo = ckvm_memory_attributes2()
                undo.offset = run.range.start
                undo.size = run.range.size
                undo.attributes = run.value == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
                undo.flags = call.flags & ContentMode.preserve.rawValue
                try? file.backing.setMemoryAttributes2(&undo)
                file.attributes.set(run.range, to: run.value)
            }
            call.error_offset = range.start
            throw .noMemory
        }
    }
}

extension TrapMemory.File {
    /// Gives the mappings that were handed out the access that the states of `range` allow.
    fileprivate func protectViews(_ range: PageRange) throws(Errno) {
        let attributes = attributes
        for reference in views { try reference.view?.protect(range, as: attributes) }
    }
}
