// SPDX-License-Identifier: MIT
import CKVMShim
public import ConversionModel
public import MiniVMM
public import SystemPackage

/// A host mapping of a ``SoftGuestMemfd``.
///
/// Access goes through ``read(at:into:)`` and ``write(at:from:)``, which know which pages are private. The memory at
/// ``address`` is real, but nothing stops a direct access to a private page.
public final class SoftHostMapping: ResidencyCounting, ExaminableMapping, @unchecked Sendable {
    let model: Model
    /// Its number in the model.
    public let number: MappingID
    /// Nil where the model keeps the bytes, as ``mapping``.
    let memory: FileMemory?
    public let length: UInt64
    /// Where in the file it begins, bytes.
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

    /// Of a forked child's: no memslot leads there.
    private init(forked number: MappingID, of other: SoftHostMapping, _ mapping: consuming OwnedMapping?) {
        (model, memory, length, fileOffset) = (other.model, other.memory, other.length, other.fileOffset)
        self.number = number
        self.mapping = mapping
    }

    deinit {
        if !model.isValue { forget() }
    }

    /// Its number is free. No call may follow.
    package func forget() {
        model.look {
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

    public var address: UInt64 {
        Self.address(of: mapping) ?? model.look { model.kernel.address(of: number) ?? 0 }
    }

    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        try model.ask { kernel throws(ErrorNumber) in
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

    public func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        try model.ask { kernel throws(ErrorNumber) in
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

    /// The same pages as another process has them that was forked now: with page tables of its own, which are empty.
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

    public func residentPages(at offset: UInt64, length: UInt64) -> UInt64 {
        model.look { model.kernel.residentPages(number, at: offset, length: length) }
    }

    public func peek(at offset: UInt64) throws(Errno) -> UInt8 {
        try model.ask { kernel throws(ErrorNumber) in
            guard (try? kernel.touch(number, offset, 1)) == 1 else { throw .ioError }
            guard let bytes = unsafe memory?.bytes(at: fileOffset + offset) else {
                return kernel.byte(kernel.file(of: number), at: fileOffset + offset).value
            }
            return unsafe bytes.load(as: UInt8.self)
        }
    }

    public func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in
            try kernel.advise(number, at: offset, length: length, advice)
        }
    }

    public func unmap() throws(Errno) { model.call { model.kernel.unmap(number) } }

    public func move(toLength new: UInt64) throws(Errno) -> any ExaminableMapping {
        try model.call { () throws(Errno) in
            // The model's rules first; where the host then has no room the old mapping is gone, as on a kernel.
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

    public func protect(at offset: UInt64, length: UInt64, _ protection: Protection) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in
            try kernel.protect(number, at: offset, length: length, protection)
        }
    }

    /// What it shows at a byte, counted from its start.
    public func visible(at offset: UInt64) -> VisibleByte {
        model.look {
            let visible = model.kernel.visibleToHost(number, at: offset)
            guard case .byte = visible, let bytes = unsafe memory?.bytes(at: fileOffset + offset) else {
                return visible
            }
            return .byte(.known(unsafe bytes.load(as: UInt8.self)))
        }
    }
}

extension SoftHostMapping: NodePlacing {
    /// NUMA nodes of this machine. All CPUs are on node 0.
    public static let nodeCount = KernelModel.nodeCount

    public func bind(
        at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in
            try kernel.bind(number, at: offset, length: length, policy, flags)
        }
    }

    public func node(at offset: UInt64) throws(Errno) -> UInt32 {
        try model.ask { kernel throws(ErrorNumber) in try kernel.node(number, at: offset) }
    }

    public func migrate(at offset: UInt64, to node: UInt32) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in try kernel.migrate(number, at: offset, to: node) }
    }
}

extension Byte {
    /// Zero stands for a byte that is unknown.
    var value: UInt8 {
        switch self {
        case .known(let byte): byte
        case .unknown: 0
        }
    }
}

extension Slice<UnsafeRawBufferPointer> {
    /// Bytes of one value that follow one another.
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
    /// Every kind of holder takes the same references here; only a pipe has an end.
    public func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        SoftPageHold(
            model,
            try model.ask { kernel throws(ErrorNumber) in
                try kernel.hold(number, at: offset, length: length, by: kind)
            }, memory)
    }

    public func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        try hold(.vmsplice, at: offset, length: length)
    }
}
