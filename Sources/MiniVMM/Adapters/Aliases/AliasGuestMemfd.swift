// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// The state of one ``AliasesKVM`` guest_memfd that its memslots depend on. Guarded by ``CarvedVM/memory``'s lock.
final class AliasFile: CarvedFile, @unchecked Sendable {
    static let shutsOtherAlias = true

    let backing: any KVMGuestMemfd
    var attributes: AttributeMap

    init(backing: any KVMGuestMemfd, attributes: AttributeMap) {
        self.backing = backing
        self.attributes = attributes
    }

    var descriptor: Int32 { backing.descriptor }
    var boundDescriptor: Int32? { backing.descriptor }
    func userspaceAddress(of region: ckvm_userspace_memory_region2) -> UInt64 { region.userspace_addr }
}

/// A guest_memfd of ``AliasesKVM``, on top of the base backend's own. Keeps its VM alive.
final class AliasGuestMemfd: KVMGuestMemfd {
    private let file: AliasFile
    private let vm: CarvedVM<AliasFile>

    init(_ file: AliasFile, of vm: CarvedVM<AliasFile>) {
        self.file = file
        self.vm = vm
    }

    deinit { vm.memory.withLock { $0.files.removeAll { $0 === file } } }

    private var backing: any KVMGuestMemfd { file.backing }
    var descriptor: Int32 { backing.descriptor }
    var size: UInt64 { backing.size }

    /// The base backend validates and converts; the memslots are changed to match.
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        var call = request
        defer { request = call }
        let conversion = try? call.validated(fileSize: size)
        // Leave the vCPUs running for a call that changes no memslot or that the base backend will refuse.
        let isDone = try vm.memory.withLock { memory throws(Errno) -> Bool in
            if let (range, state) = conversion, memory.isCarved(file),
                file.attributes.uniformValue(of: range) != state
            {
                return false
            }
            try backing.convertInPlace(&call)
            if let (range, state) = conversion { file.attributes.set(range, to: state) }
            return true
        }
        guard !isDone, let (range, state) = conversion else { return }
        try vm.gate.withClosed { () throws(Errno) in
            try vm.memory.withLock { memory throws(Errno) in
                try memory.convert(range, of: file, to: state, &call)
            }
        }
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try backing.map(offset: offset, length: length)
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try backing.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}

extension CarvedMemory where File == AliasFile {
    /// All or nothing, as far as the base backend can undo its conversion. Only a hold taken meanwhile prevents that.
    fileprivate mutating func convert(
        _ range: PageRange, of file: File, to state: PageState, _ call: inout ckvm_memory_attributes2
    ) throws(Errno) {
        let before = Array(file.attributes.runs(in: range))
        let change = set(range, of: file, to: state)
        do throws(Errno) {
            guard slots.hasRoom(for: change) else {
                call.error_offset = range.start
                throw .noMemory
            }
            try file.backing.convertInPlace(&call)
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
                try? file.backing.convertInPlace(&undo)
                file.attributes.set(run.range, to: run.value)
            }
            call.error_offset = range.start
            throw .noMemory
        }
    }
}
