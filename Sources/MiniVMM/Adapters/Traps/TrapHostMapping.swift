// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A host mapping whose private pages are inaccessible (PROT_NONE), so that the kernel itself refuses an access. Where
/// the base backend's mappings are not memory of this process, the attributes are checked in software.
final class TrapHostMapping: HoldableMapping {
    private let base: any HostMapping
    /// A mapping keeps its file open, as mmap does.
    private let file: TrapFile
    /// The mapped pages of the file.
    private let pages: PageRange
    private let vm: CarvedVM<TrapFile>
    private let isProtectable: Bool

    init(_ base: any HostMapping, of file: TrapFile, pages: PageRange, in vm: CarvedVM<TrapFile>) {
        self.base = base
        self.file = file
        self.pages = pages
        self.vm = vm
        isProtectable = base is LinuxHostMapping
    }

    var address: UInt64 { base.address }
    var length: UInt64 { base.length }

    /// Gives the mapped part of `range` the access that its states allow. The caller holds ``CarvedVM/memory``'s lock.
    func protect(_ range: PageRange, as attributes: AttributeMap) throws(Errno) {
        if isProtectable { try base.protect(range, of: pages, as: attributes) }
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        if isProtectable { return unsafe try base.read(at: offset, into: buffer) }
        return try vm.memory.withLock { memory throws(Errno) in
            let count = try memory.touchable(offset, buffer.count, self.file, self.pages)
            return unsafe try self.base.read(at: offset, into: .init(rebasing: buffer[..<count]))
        }
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        if isProtectable { return unsafe try base.write(at: offset, from: buffer) }
        return try vm.memory.withLock { memory throws(Errno) in
            let count = try memory.touchable(offset, buffer.count, self.file, self.pages)
            return unsafe try self.base.write(at: offset, from: .init(rebasing: buffer[..<count]))
        }
    }

    /// Passed on to the base backend.
    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        try refuse(advice, inMemfd: file.isMemfd)
        if let range = advice.populated(at: offset, length: length, of: pages) {
            try vm.memory.withLock { _ throws(Errno) in
                guard file.attributes.uniformValue(of: range) == .shared else { throw .badAddress }
            }
        }
        try base.advise(at: offset, length: length, advice)
        if advice == .remove, let range = PageRange.covering(start: pages.start + offset, size: length) {
            vm.memory.withLock { _ in file.forgetHolds(in: range) }
        }
    }

    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try hold(.vmsplice, at: offset, length: length)
    }

    func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try vm.memory.withLock { memory throws(Errno) in
            if !isProtectable, let count = Int(exactly: length),
                try memory.touchable(offset, count, file, pages) < count
            {
                throw .badAddress
            }
            let hold = try base.hold(at: offset, length: length, by: kind)
            let number = file.addHold(
                of: PageRange.covering(start: pages.start + offset, size: length))
            return TrapHold(hold, number: number, file: file, in: vm)
        }
    }
}

extension TrapHostMapping: NodePlacing {
    private func placing() throws(Errno) -> any NodePlacing {
        guard let base = base as? any NodePlacing else { throw .noFunction }
        return base
    }

    func bind(
        at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(Errno) {
        try placing().bind(at: offset, length: length, policy, flags)
    }

    func node(at offset: UInt64) throws(Errno) -> UInt32 { try placing().node(at: offset) }

    func migrate(at offset: UInt64, to node: UInt32) throws(Errno) {
        try placing().migrate(at: offset, to: node)
    }
}

extension CarvedMemory where File == TrapFile {
    /// Bytes from `offset` in a mapping of `pages` up to the first page that the host cannot access.
    fileprivate func touchable(
        _ offset: UInt64, _ count: Int, _ file: File, _ pages: PageRange
    ) throws(Errno) -> Int {
        guard count > 0 else { return 0 }
        guard offset < pages.size, UInt64(count) <= pages.size - offset,
            let run = file.attributes.run(containing: pages.start + offset), run.value == .shared
        else { throw .badAddress }
        return min(count, Int(clamping: run.range.end - (pages.start + offset)))
    }
}

/// A hold that the adapter has registered.
final class TrapHold: PageHold {
    private let base: any PageHold
    private let number: Int
    /// Weak, because pages may be held longer than their file is open.
    private weak let file: TrapFile?
    private let vm: CarvedVM<TrapFile>

    init(_ base: any PageHold, number: Int, file: TrapFile, in vm: CarvedVM<TrapFile>) {
        self.base = base
        self.number = number
        self.file = file
        self.vm = vm
    }

    deinit { release() }

    /// Releases the kernel's reference first, so that the page can be converted only when it is really free.
    func release() {
        base.release()
        vm.memory.withLock { _ in file?.removeHold(number) }
    }
}
