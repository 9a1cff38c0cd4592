// SPDX-License-Identifier: MIT
import CKVMShim
public import ConversionModel
public import MiniVMM
public import SystemPackage

/// A host mapping of a ``SoftGuestMemfd``.
///
/// Access it through ``read(at:into:)`` and ``write(at:from:)``, which check the states of pages. The memory at
/// ``address`` is real, but nothing stops a direct access to a private page.
public final class SoftHostMapping: ResidencyCounting, ExaminableMapping, @unchecked Sendable {
    let model: Model
    /// The number of this mapping in the model.
    public let number: MappingID
    /// Nil if the model keeps the bytes, as is ``mapping``.
    let memory: FileMemory?
    /// Bytes, as requested.
    public let length: UInt64
    /// Byte offset in the file at which the mapping begins.
    private let fileOffset: UInt64
    private let mapping: OwnedMapping?

    /// The lock is held.
    init(_ model: Model, _ number: MappingID, _ memory: FileMemory?, _ mapping: consuming OwnedMapping?) {
        self.model = model
        self.number = number
        self.memory = memory
        length = model.kernel.length(of: number)
        fileOffset = model.kernel.fileOffset(of: number)
        let address = Self.address(of: mapping)
        self.mapping = mapping
        if let address { model.kernel.place(number, at: address) }
        model.add(self)
    }

    /// The mapping in a forked child. Memslots cannot refer to it.
    private init(forked number: MappingID, of other: SoftHostMapping, _ mapping: consuming OwnedMapping?) {
        (model, memory, length, fileOffset) = (other.model, other.memory, other.length, other.fileOffset)
        self.number = number
        self.mapping = mapping
    }

    deinit {
        if !model.keepsBytes { forget() }
    }

    /// Frees the number of the mapping. No call may follow.
    package func forget() {
        model.withLock {
            model.remove(number)
            model.kernel.forget(number)
        }
    }

    private static func address(of mapping: borrowing OwnedMapping?) -> UInt64? {
        switch mapping {
        case .some(let own): own.address
        case nil: nil
        }
    }

    /// The address in the process. Without guest memory, an address that does not overlap any other mapping.
    public var address: UInt64 {
        Self.address(of: mapping) ?? model.withLock { model.kernel.address(of: number) ?? 0 }
    }

    /// Reads as `process_vm_readv` would, up to the first inaccessible page. Without guest memory, undefined bytes
    /// read as 0.
    ///
    /// - Returns: the number of bytes read.
    /// - Throws: `EFAULT` if the first page cannot be read or the range reaches past the end of the mapping.
    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        try model.callModel { kernel throws(ErrorNumber) in
            let count = Int(
                try kernel.touch(number, offset, UInt64(buffer.count), evenPrivateWith: .hostReadsPrivate))
            guard count > 0, let base = buffer.baseAddress else { return 0 }
            if let memory {
                unsafe base.copyMemory(from: memory.bytes(at: fileOffset + offset), byteCount: count)
            } else {
                let file = kernel.file(of: number)
                for index in 0..<count {
                    unsafe buffer[index] = kernel.byte(file, at: fileOffset + offset + UInt64(index)).value
                }
            }
            return count
        }
    }

    /// Writes as `process_vm_writev` would, up to the first inaccessible page.
    ///
    /// - Returns: the number of bytes written.
    /// - Throws: `EFAULT` if the first page cannot be written or the range reaches past the end of the mapping.
    public func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        try model.callModel { kernel throws(ErrorNumber) in
            let count = Int(
                try kernel.touch(
                    number, offset, UInt64(buffer.count), toWrite: true, evenPrivateWith: .hostWritesPrivate))
            guard count > 0, let base = buffer.baseAddress else { return 0 }
            guard let memory else {
                let file = kernel.file(of: number)
                for run in unsafe buffer[..<count].runs {
                    kernel.fill(file, at: fileOffset + offset + run.start, count: run.count, with: run.byte)
                }
                return count
            }
            unsafe memory.bytes(at: fileOffset + offset).copyMemory(from: base, byteCount: count)
            if let pages = PageRange.covering(start: fileOffset + offset, size: UInt64(count)) {
                kernel.noteHostWrite(kernel.file(of: number), pages)
            }
            return count
        }
    }

    /// The mapping in a child process forked now: the same pages, with empty page tables of its own.
    ///
    /// - Throws: `ENOMEM` if the host has no memory or address space for another mapping.
    public func forked() throws(Errno) -> SoftHostMapping {
        try model.call { () throws(Errno) in
            guard let memory else {
                return SoftHostMapping(forked: model.kernel.forkMapping(number), of: self, nil)
            }
            let own = try model.host { () throws(Errno) in
                try memory.map(offset: fileOffset, length: length)
            }
            return SoftHostMapping(forked: model.kernel.forkMapping(number), of: self, own)
        }
    }

    /// Number of pages of a part in the page tables of this mapping. Offset and length in bytes.
    public func residentPages(at offset: UInt64, length: UInt64) -> UInt64 {
        model.withLock { model.kernel.residentPages(number, at: offset, length: length) }
    }

    /// Reads one byte as through `/proc/self/mem`.
    ///
    /// - Throws: `EIO` for an inaccessible page and past the end.
    public func peek(at offset: UInt64) throws(Errno) -> UInt8 {
        try model.callModel { kernel throws(ErrorNumber) in
            guard (try? kernel.touch(number, offset, 1)) == 1 else { throw .ioError }
            guard let bytes = unsafe memory?.bytes(at: fileOffset + offset) else {
                return kernel.byte(kernel.file(of: number), at: fileOffset + offset).value
            }
            return unsafe bytes.load(as: UInt8.self)
        }
    }

    /// `madvise`.
    ///
    /// - Throws: as ``ConversionModel/KernelModel/advise(_:at:length:_:)``: `EINVAL` for an invalid part or advice,
    ///   `EFAULT` or `EHWPOISON` for a page that cannot be populated, `EBUSY` after a memory failure was injected,
    ///   `ENOMEM` once unmapped.
    public func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.advise(number, at: offset, length: length, advice)
        }
    }

    /// `munmap` of the whole mapping. A second call does nothing.
    ///
    /// - Throws: nothing.
    public func unmap() throws(Errno) { model.call { model.kernel.unmap(number) } }

    /// `mremap` of the whole mapping to another address and length, in bytes. This mapping is unmapped then, even
    /// if the host has no memory for the new one.
    ///
    /// - Throws: `EINVAL` for a length of 0, `EFAULT` once unmapped, `ENOMEM` if the host has no memory or address
    ///   space.
    public func move(toLength new: UInt64) throws(Errno) -> any ExaminableMapping {
        try model.call { () throws(Errno) in
            // The model's rules come first. If the host then has no memory, the old mapping is gone, as on a
            // kernel.
            let moved: MappingID
            do throws(ErrorNumber) {
                moved = try model.kernel.move(number, toLength: new)
            } catch {
                throw Errno(error)
            }
            guard let memory else { return SoftHostMapping(model, moved, nil, nil) }
            do throws(Errno) {
                let mapping = try model.host { () throws(Errno) in
                    try memory.map(offset: fileOffset, length: new)
                }
                return SoftHostMapping(model, moved, memory, mapping)
            } catch {
                model.kernel.forget(moved)
                throw error
            }
        }
    }

    /// `mprotect`.
    ///
    /// - Throws: `EINVAL` for an offset that is not page aligned and a part that reaches past the end of the
    ///   mapping, `ENOMEM` once unmapped.
    public func protect(at offset: UInt64, length: UInt64, _ protection: Protection) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.protect(number, at: offset, length: length, protection)
        }
    }

    /// The result of a read of one byte of the mapping. Does not fault the page in.
    public func visible(at offset: UInt64) -> VisibleByte {
        model.withLock {
            let visible = model.kernel.visibleToHost(number, at: offset)
            guard case .byte = visible, let bytes = unsafe memory?.bytes(at: fileOffset + offset) else {
                return visible
            }
            return .byte(.known(unsafe bytes.load(as: UInt8.self)))
        }
    }
}

extension SoftHostMapping: NodePlacing {
    /// Number of NUMA nodes. All CPUs are on node 0.
    public static let nodeCount = KernelModel.nodeCount

    /// `mbind(2)`.
    ///
    /// - Throws: `EINVAL` for a node that does not exist, an offset that is not page aligned and a part that
    ///   reaches past the end of the mapping; `EIO` with ``PolicyFlags/strict``; `EFAULT` once unmapped.
    public func bind(
        at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.bind(number, at: offset, length: length, policy, flags)
        }
    }

    /// `move_pages(2)` of one page without target nodes: reports its node.
    ///
    /// - Throws: `ENOENT` for a page that is not in the page tables, `EFAULT` once unmapped or past the end.
    public func node(at offset: UInt64) throws(Errno) -> UInt32 {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.node(number, at: offset) }
    }

    /// `move_pages(2)` of one page. Pages of a guest_memfd cannot be moved.
    ///
    /// - Throws: `ENODEV` for a node that does not exist, `ENOENT` and `EFAULT` as ``node(at:)``; for a page on
    ///   another node `EACCES` if several mappings have it mapped, and `EBUSY` otherwise.
    public func migrate(at offset: UInt64, to node: UInt32) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.migrate(number, at: offset, to: node) }
    }
}

extension Byte {
    /// The value; 0 for a byte without a known one.
    var value: UInt8 {
        switch self {
        case .known(let byte): byte
        case .unknown, .garbled: 0
        }
    }
}

extension Slice<UnsafeRawBufferPointer> {
    /// Runs of equal bytes.
    fileprivate var runs: [(start: UInt64, count: UInt64, byte: UInt8)] {
        var runs: [(start: UInt64, count: UInt64, byte: UInt8)] = []
        for unsafe(index, byte) in unsafe enumerated() {
            if let last = runs.last, last.byte == byte {
                runs[runs.count - 1].count += 1
            } else {
                runs.append((UInt64(index), 1, byte))
            }
        }
        return runs
    }
}

extension SoftHostMapping: HoldableMapping {
    /// Takes the same references for every kind of holder. Only the pipe of vmsplice has a limit.
    ///
    /// - Throws: `EINVAL` for a length of 0, `EFAULT` for a page that is inaccessible or
    ///   outside the mapping, `EAGAIN` if `vmsplice` gets more than ``SoftPageHold/pipePages`` pages.
    public func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        SoftPageHold(
            model,
            try model.callModel { kernel throws(ErrorNumber) in
                try kernel.hold(number, at: offset, length: length, by: kind)
            }, memory)
    }

    /// Takes a hold as ``HoldKind/vmsplice``. Offset and length in bytes.
    ///
    /// - Throws: `EINVAL` for a length of 0, `EFAULT` for a page that is inaccessible or
    ///   outside the mapping, `EAGAIN` for more than ``SoftPageHold/pipePages`` pages.
    public func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try hold(.vmsplice, at: offset, length: length)
    }
}
