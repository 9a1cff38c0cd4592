// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``PerVMAttributesKVM``: a real one for private memory and a memfd for shared memory. Keeps its VM
/// alive. The real one is closed with this object even if slots are bound to it; mappings keep it open, as mmap does.
final class PerVMGuestMemfd: KVMGuestMemfd {
    private let file: PerVMMemory.File
    private let privateSide: any KVMGuestMemfd
    private let isMappable: Bool
    private let vm: PerVMVirtualMachine

    init(
        _ file: PerVMMemory.File, _ privateSide: any KVMGuestMemfd, isMappable: Bool,
        of vm: PerVMVirtualMachine
    ) {
        self.file = file
        self.privateSide = privateSide
        self.isMappable = isMappable
        self.vm = vm
    }

    // The descriptor is closed after this, so its number cannot have been reused yet.
    deinit { vm.memory.withLock { $0.files[descriptor] = nil } }

    var descriptor: Int32 { file.descriptor }
    var size: UInt64 { file.sharedSide.memfd.size }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let (range, state) = try request.validated(fileSize: size)
        do throws(Errno) {
            try vm.memory.withLock { memory throws(Errno) in
                try convert(range, to: state, in: memory)
            }
        } catch {
            if error == .noMemory { request.error_offset = range.start }
            throw error
        }
    }

    /// Rows 9 and 10 of the conversion table, and the conversion. All or nothing.
    ///
    /// The newly used memory is zeroed first, since KVM may have written to shared memory on behalf of
    /// private pages. The memory that is no longer used is freed last, when nothing can reach it.
    private func convert(
        _ range: PageRange, to state: PageState, in memory: borrowing PerVMMemory
    ) throws(Errno) {
        let before = Array(file.attributes.runs(in: range))
        let changing = before.filter { $0.value != state }.map(\.range)
        guard !changing.isEmpty else { return }
        for run in changing { try discard(run, of: state) }
        file.attributes.set(range, to: state)
        var done: [PageRange] = []
        do throws(Errno) {
            try file.protectMappings(range)
            for gpas in memory.places(of: range, in: file) {
                try vm.set(gpas, to: state)
                done.append(gpas)
            }
        } catch {
            for run in before { file.attributes.set(run.range, to: run.value) }
            undo(done, before, in: memory)
            throw error
        }
        // Memory that could not be freed is zeroed before its next use.
        for run in changing { try? discard(run, of: state.other) }
    }

    /// Restores the attributes at `done` and the mappings. In nearly every case the pages to restore had been made
    /// private, and clearing an attribute allocates no memory, so it does not fail.
    private func undo(
        _ done: [PageRange], _ before: [(range: PageRange, value: PageState)],
        in memory: borrowing PerVMMemory
    ) {
        for run in before {
            for gpas in memory.places(of: run.range, in: file)
            where done.contains(where: { $0.contains(gpas) }) {
                try? vm.set(gpas, to: run.value)
            }
            try? file.protectMappings(run.range)
        }
    }

    /// Frees one of the two memories of `range`, which then reads as zeros.
    private func discard(_ range: PageRange, of state: PageState) throws(Errno) {
        let side: any KVMGuestMemfd = state == .private ? privateSide : file.sharedSide.memfd
        try side.allocate(punchHole: true, offset: range.start, length: range.size)
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        guard isMappable else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        let mapping = PerVMHostMapping(
            try file.sharedSide.memfd.map(offset: offset, length: length), of: pages, in: self)
        try vm.memory.withLock { _ throws(Errno) in
            try mapping.protect(pages, as: file.attributes)
            file.mappings.removeAll { $0.mapping == nil }
            file.mappings.append(PerVMMemory.WeakMapping(mapping: mapping))
        }
        return mapping
    }

    /// - Throws: `EFAULT` if a page of the range is private.
    func requireShared(_ range: PageRange) throws(Errno) {
        try vm.memory.withLock { _ throws(Errno) in
            guard file.attributes.uniformValue(of: range) == .shared else { throw .badAddress }
        }
    }

    /// Punches a hole in both memories, but allocates pages only in the one that is in use.
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        guard let range = PageRange(start: offset, size: length), punchHole || range.end <= size else {
            throw .invalidArgument
        }
        try vm.memory.withLock { _ throws(Errno) in
            if punchHole {
                for state in PageState.allCases { try discard(range, of: state) }
                return
            }
            for run in file.attributes.runs(in: range) {
                let side: any KVMGuestMemfd = run.value == .private ? privateSide : file.sharedSide.memfd
                try side.allocate(punchHole: false, offset: run.range.start, length: run.range.size)
            }
        }
    }
}

/// The shared memory of a file, and the mapping of all of it that the base backend uses. That mapping is always
/// accessible and never handed out. A slot keeps it alive.
final class PerVMSharedMemory: Sendable {
    let memfd: Memfd
    private let kernelMapping: any HostMapping

    init(size: UInt64) throws(Errno) {
        memfd = try Memfd(size: size)
        kernelMapping = try memfd.map(offset: 0, length: size)
    }

    /// The `userspace_addr` of the start of the file.
    var address: UInt64 { kernelMapping.address }
}

/// A host mapping of shared memory whose private pages are inaccessible.
final class PerVMHostMapping: HoldableMapping {
    private let base: any HostMapping
    private let pages: PageRange
    private let file: PerVMGuestMemfd

    init(_ base: any HostMapping, of pages: PageRange, in file: PerVMGuestMemfd) {
        self.base = base
        self.pages = pages
        self.file = file
    }

    var address: UInt64 { base.address }
    var length: UInt64 { base.length }

    /// The caller holds the lock of ``PerVMVirtualMachine/memory``.
    func protect(_ range: PageRange, as attributes: AttributeMap) throws(Errno) {
        try base.protect(range, of: pages, as: attributes)
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        unsafe try base.read(at: offset, into: buffer)
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        unsafe try base.write(at: offset, from: buffer)
    }

    /// Punches a hole in both memories.
    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        try refuse(advice, inMemfd: true)
        if let range = advice.populated(at: offset, length: length, of: pages) {
            try file.requireShared(range)
        }
        try base.advise(at: offset, length: length, advice)
        if advice == .remove, let range = PageRange.covering(start: pages.start + offset, size: length) {
            try file.allocate(punchHole: true, offset: range.start, length: range.size)
        }
    }

    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try hold(.vmsplice, at: offset, length: length)
    }

    func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try base.hold(at: offset, length: length, by: kind)
    }
}
