// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``MemslotTrapKVM``. Keeps its VM alive.
final class TrapGuestMemfd: KVMGuestMemfd {
    private let file: TrapFile
    private let isMappable: Bool
    private let vm: CarvedVM<TrapFile>

    init(_ file: TrapFile, isMappable: Bool, of vm: CarvedVM<TrapFile>) {
        self.file = file
        self.isMappable = isMappable
        self.vm = vm
    }

    deinit { vm.memory.withLock { $0.files.removeAll { $0 === file } } }

    private var backing: any KVMGuestMemfd { file.backing }
    var descriptor: Int32 { backing.descriptor }
    var size: UInt64 { backing.size }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let (range, state) = try request.validated(fileSize: size)
        do throws(ConversionRefusal) {
            // Leave the vCPUs running for a call that changes no memslot.
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

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        guard isMappable else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        return try vm.memory.withLock { _ throws(Errno) in
            let mapping = TrapHostMapping(
                try backing.map(offset: offset, length: length), of: file, pages: pages, in: vm)
            try mapping.protect(pages, as: file.attributes)
            file.mappings.removeAll { $0.mapping == nil }
            file.mappings.append(TrapFile.WeakMapping(mapping: mapping))
            return mapping
        }
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        guard let range = PageRange(start: offset, size: length), punchHole || range.end <= size else {
            throw .invalidArgument
        }
        try vm.memory.withLock { _ throws(Errno) in
            try backing.allocate(punchHole: punchHole, offset: offset, length: length)
            if punchHole { file.forgetHolds(in: range) }
        }
    }
}

/// Why a conversion was refused without effect, and at which byte of the file.
struct ConversionRefusal: Error {
    let errno: Errno
    let offset: UInt64
}

extension CarvedMemory where File == TrapFile {
    /// Rows 9 to 11 of the conversion table, and the conversion. All or nothing. If the base backend runs out of
    /// memory, the error is `ENOMEM`. The gate is closed while memslots change.
    fileprivate mutating func convert(
        _ range: PageRange, of file: File, to state: PageState
    ) throws(ConversionRefusal) {
        let uniform = file.attributes.uniformValue(of: range)
        guard uniform != state else { return }
        let before = uniform == nil ? Array(file.attributes.runs(in: range)) : []
        let change = set(range, of: file, to: state)
        let refusal: ConversionRefusal
        if !slots.hasRoom(for: change) {
            refusal = ConversionRefusal(errno: .noMemory, offset: range.start)
        } else if state == .private, let held = file.lowestHeldPage(in: range) {
            refusal = ConversionRefusal(errno: .resourceTemporarilyUnavailable, offset: held)
        } else {
            do throws(Errno) {
                try file.protectMappings(range)
                try slots.apply(change)
                return
            } catch {
                refusal = ConversionRefusal(errno: .noMemory, offset: range.start)
            }
        }
        if let uniform { file.attributes.set(range, to: uniform) }
        for run in before { file.attributes.set(run.range, to: run.value) }
        if refusal.errno == .noMemory { try? file.protectMappings(range) }
        throw refusal
    }
}
