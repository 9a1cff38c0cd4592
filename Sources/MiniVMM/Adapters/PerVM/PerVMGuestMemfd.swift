// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A guest_memfd of ``PerVMAttributesKVM``: a real one for what is private, a memfd for what is shared. Keeps its VM
/// alive. The real one is closed with this object, whatever slots are bound to it; mappings keep it open, as mmap does.
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

    // The descriptor is closed after this, so its number is nobody else's yet.
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

    /// Rows 9 and 10 of the table, and the conversion. All or nothing.
    ///
    /// The memory that comes into use is emptied before, since KVM may have written to shared memory on behalf of
    /// private pages; the one that goes out of use after, when nobody reaches it any more.
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
            try file.protectViews(range)
            for gpas in memory.places(of: range, in: file) {
                try vm.set(gpas, to: state)
                done.append(gpas)
            }
        } catch {
            for run in before { file.attributes.set(run.range, to: run.value) }
            undo(done, before, in: memory)
            throw error
        }
        // What could not be given back is emptied before it comes into use again.
        for run in changing { try? discard(run, of: state.other) }
    }

    /// Puts back the attributes at `done` and the mappings. What is undone was made private in nearly every case, and to
    /// clear an attribute takes no memory: it does not fail.
    private func undo(
        _ done: [PageRange], _ before: [(range: PageRange, value: PageState)],
        in memory: borrowing PerVMMemory
    ) {
        for run in before {
            for gpas in memory.places(of: run.range, in: file)
            where done.contains(where: { $0.contains(gpas) }) {
                try? vm.set(gpas, to: run.value)
            }
            try? file.protectViews(run.range)
        }
    }

    /// Gives back one of the two memories of `range`; it reads as zeros then.
    private func discard(_ range: PageRange, of state: PageState) throws(Errno) {
        let side: any KVMGuestMemfd = state == .private ? privateSide : file.sharedSide.memfd
        try side.allocate(punchHole: true, offset: range.start, length: range.size)
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        guard isMappable else { throw .operationNotSupportedByDevice }
        guard length > 0, offset % pageSize == 0,
            let pages = PageRange.covering(start: offset, size: length)
        else { throw .invalidArgument }
        let view = PerVMHostMapping(
            try file.sharedSide.memfd.map(offset: offset, length: length), of: pages, in: self)
        try vm.memory.withLock { _ throws(Errno) in
            try view.protect(pages, as: file.attributes)
            file.views.removeAll { $0.view == nil }
            file.views.append(PerVMMemory.WeakView(view: view))
        }
        return view
    }

    /// - Throws: `EFAULT` if a page of the range is private.
    func requireShared(_ range: PageRange) throws(Errno) {
        try vm.memory.withLock { _ throws(Errno) in
            guard file.attributes.uniformValue(of: range) == .shared else { throw .badAddress }
        }
    }

    /// A hole is one in both memories; pages are allocated in the one that is in use.
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

/// What a file has of shared memory, and the mapping of it that the kernel below uses: all of it, always accessible,
/// handed to nobody. A slot keeps it.
final class PerVMSharedMemory: Sendable {
    let memfd: Memfd
    private let kernelView: any HostMapping

    init(size: UInt64) throws(Errno) {
        memfd = try Memfd(size: size)
        kernelView = try memfd.map(offset: 0, length: size)
    }

    /// What `userspace_addr` takes for the start of the file.
    var address: UInt64 { kernelView.address }
}

/// A host mapping of shared memory whose private pages cannot be touched.
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

    /// The lock of ``PerVMVirtualMachine/memory`` is held.
    func protect(_ range: PageRange, as attributes: AttributeMap) throws(Errno) {
        try base.protect(range, of: pages, as: attributes)
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        unsafe try base.read(at: offset, into: buffer)
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        unsafe try base.write(at: offset, from: buffer)
    }

    /// A hole is one in both memories.
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
