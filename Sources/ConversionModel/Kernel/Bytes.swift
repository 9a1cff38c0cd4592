// SPDX-License-Identifier: MIT
/// A byte of guest memory, as far as the interface defines its value.
public enum Byte: Hashable, Sendable {
    /// The only value that a correct kernel can return.
    case known(UInt8)
    /// Undefined: any value is correct.
    case unknown
    /// Decrypted with another key than it was written with: always the same value for the same page, and not the one
    /// that was written.
    case garbled
}

/// The key with which an access reads and writes memory. It matters for SNP and TDX only.
public enum MemoryKey: Hashable, Sendable {
    /// Of the host, its devices and the shared alias of a guest.
    case host
    /// Of the guest, for its private pages.
    case guest
}

/// The bytes of one page: a base value for the whole page, and the bytes that differ from it.
struct PageBytes: Sendable {
    private var base = Byte.known(0)
    /// Bytes that differ from `base`, in ascending order of their position in the page.
    private var changes: ContiguousArray<Change> = []

    private struct Change: Hashable, Sendable {
        var place: UInt16
        var byte: Byte
    }

    init(filled byte: Byte = .known(0)) { base = byte }

    /// Whether every byte is this one, and was not written one by one.
    func isFilled(with byte: Byte) -> Bool { base == byte && changes.isEmpty }

    /// - Parameter place: 0 to 4095.
    func byte(at place: Int) -> Byte {
        let index = index(of: place)
        guard index < changes.count, changes[index].place == place else { return base }
        return changes[index].byte
    }

    mutating func set(_ byte: Byte, at place: Int) {
        let index = index(of: place)
        let isChanged = index < changes.count && changes[index].place == place
        if base == byte {
            if isChanged { changes.remove(at: index) }
        } else if isChanged {
            changes[index].byte = byte
        } else {
            changes.insert(Change(place: UInt16(truncatingIfNeeded: place), byte: byte), at: index)
        }
    }

    /// The first position in the range whose byte is not `byte`.
    func firstPlace(in range: Range<Int>, otherThan byte: UInt8) -> Int? {
        var place = range.lowerBound
        var index = index(of: place)
        // If the base is `byte`, every change is a different byte.
        if base == .known(byte) {
            return index < changes.count && changes[index].place < range.upperBound
                ? Int(changes[index].place) : nil
        }
        while place < range.upperBound, index < changes.count, changes[index].place == place,
            changes[index].byte == .known(byte)
        {
            place += 1
            index += 1
        }
        return place < range.upperBound ? place : nil
    }

    /// Index of the first change at or after this position.
    private func index(of place: Int) -> Int {
        partition(changes.count) { changes[$0].place < place }
    }
}

/// Two pages are equal if all their bytes are, however they were written.
extension PageBytes: Hashable {
    static func == (a: PageBytes, b: PageBytes) -> Bool {
        if a.base == b.base { return a.changes == b.changes }
        // Pages with different bases can only be equal if at least one of them was overwritten completely.
        guard a.changes.count + b.changes.count >= Int(pageSize) else { return false }
        for place in 0..<Int(pageSize) where a.byte(at: place) != b.byte(at: place) { return false }
        return true
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(byte(at: 0))
        hasher.combine(byte(at: Int(pageSize) - 1))
    }
}

/// The bytes of a file, as one key decrypts them.
struct FileBytes: Hashable, Sendable {
    /// Every byte of a page without an entry.
    private let absent: Byte
    private var pages: ContiguousArray<Page> = []

    init(absent: Byte = .known(0)) { self.absent = absent }

    private struct Page: Hashable, Sendable {
        /// Byte offset in the file.
        let start: UInt64
        var bytes: PageBytes
    }

    /// Index of the first page at or after this offset.
    private func index(of offset: UInt64) -> Int {
        partition(pages.count) { pages[$0].start < offset }
    }

    func page(at start: UInt64) -> PageBytes {
        let index = index(of: start)
        return index < pages.count && pages[index].start == start
            ? pages[index].bytes : PageBytes(filled: absent)
    }

    func byte(at offset: UInt64) -> Byte {
        let start = offset & ~(pageSize - 1)
        let index = index(of: start)
        guard index < pages.count, pages[index].start == start else { return absent }
        return pages[index].bytes.byte(at: Int(truncatingIfNeeded: offset - start))
    }

    mutating func set(_ byte: Byte, at offset: UInt64) {
        let start = offset & ~(pageSize - 1)
        let index = index(of: start)
        if index == pages.count || pages[index].start != start {
            if byte == absent { return }
            pages.insert(Page(start: start, bytes: PageBytes(filled: absent)), at: index)
        }
        pages[index].bytes.set(byte, at: Int(truncatingIfNeeded: offset - start))
        if pages[index].bytes.isFilled(with: absent) { pages.remove(at: index) }
    }

    /// Sets `count` bytes from `offset` to one value.
    mutating func fill(_ byte: Byte, from offset: UInt64, count: UInt64) {
        var here = offset
        let end = offset + count
        while here < end {
            if here % pageSize == 0, end - here >= pageSize {
                replace(here, with: PageBytes(filled: byte))
                here += pageSize
            } else {
                set(byte, at: here)
                here += 1
            }
        }
    }

    mutating func discard(_ range: PageRange) {
        let (low, high) = (index(of: range.start), index(of: range.end))
        if low < high { pages.removeSubrange(low..<high) }
    }

    mutating func overwrite(_ range: PageRange, _ overwrite: Effect.Overwrite) {
        switch overwrite {
        case .zeros where absent == .known(0): discard(range)
        case .zeros: fill(.known(0), from: range.start, count: range.size)
        case .noise: fill(.unknown, from: range.start, count: range.size)
        }
    }

    /// Gives a page, by its first byte, the bytes of another one.
    mutating func replace(_ start: UInt64, with bytes: PageBytes) {
        let index = index(of: start)
        let isThere = index < pages.count && pages[index].start == start
        if bytes.isFilled(with: absent) {
            if isThere { pages.remove(at: index) }
        } else if isThere {
            pages[index].bytes = bytes
        } else {
            pages.insert(Page(start: start, bytes: bytes), at: index)
        }
    }
}

// Accesses to bytes that the model keeps (``KernelModel/Contents/inside``).
extension KernelModel {
    /// The byte at a file offset as this key decrypts it, regardless of access rights.
    public func byte(_ file: FileID, at offset: UInt64, with key: MemoryKey = .host) -> Byte {
        bytes(of: file, with: key).byte(at: offset)
    }

    /// The first of `count` bytes from `offset` that is unknown, garbled or not `byte`, as this key decrypts them.
    public func firstByte(
        in file: FileID, at offset: UInt64, count: UInt64, otherThan byte: UInt8, with key: MemoryKey = .host
    ) -> (offset: UInt64, byte: Byte)? {
        var here = offset
        let end = offset + count
        while here < end {
            let start = here & ~(pageSize - 1)
            let next = min(end, start + pageSize)
            let page = bytes(of: file, with: key).page(at: start)
            if let place = page.firstPlace(in: Int(here - start)..<Int(next - start), otherThan: byte) {
                return (start + UInt64(place), page.byte(at: place))
            }
            here = next
        }
        return nil
    }

    /// A host read of one byte.
    ///
    /// - Throws: `EFAULT` if the host cannot access the page; an instruction gets SIGBUS.
    public mutating func read(_ mapping: MappingID, at offset: UInt64) throws(ErrorNumber) -> Byte {
        guard try touch(mapping, offset, 1, evenPrivateWith: .hostReadsPrivate) == 1 else {
            throw .badAddress
        }
        return self[self[mapping].file].bytes.byte(at: self[mapping].fileOffset + offset)
    }

    /// A host write of `count` bytes of one value.
    ///
    /// - Returns: the number of bytes written, up to the first page that the host cannot write.
    /// - Throws: `EFAULT` if no byte could be written or the range reaches past the end of the mapping.
    public mutating func fill(
        _ mapping: MappingID, at offset: UInt64, count: UInt64, with byte: UInt8
    ) throws(ErrorNumber) -> UInt64 {
        let done = try touch(mapping, offset, count, toWrite: true, evenPrivateWith: .hostWritesPrivate)
        let file = self[mapping].file
        write(file, at: self[mapping].fileOffset + offset, count: done, byte, with: .host)
        return done
    }

    /// Writes `count` bytes of one value with this key, regardless of access rights.
    public mutating func fill(
        _ file: FileID, at offset: UInt64, count: UInt64, with byte: UInt8, key: MemoryKey = .host
    ) {
        write(file, at: offset, count: count, byte, with: key)
    }

    /// A vCPU access to one byte.
    public mutating func access(_ vm: VMID, _ gpa: UInt64, writing byte: UInt8?) -> Access {
        switch reach(vm, gpa, toWrite: byte != nil) {
        case .stopped(let access): return access
        case .memory(let file, let offset, let key):
            if let byte { write(file, at: offset, count: 1, byte, with: key) }
            return .byte(self.byte(file, at: offset, with: key))
        }
    }

    /// A byte that the holder can access: in the file, or in a page as it was when it was punched out.
    ///
    /// - Parameter offset: bytes from the start of the first page.
    public func byte(_ hold: HoldID, at offset: UInt64) -> Byte {
        let here = self[hold]
        guard let pages = here.pages else { return .unknown }
        let place = pages.start + offset
        if let old = here.detached.first(where: { $0.page == place & ~(pageSize - 1) }) {
            return old.bytes.byte(at: Int(truncatingIfNeeded: place % pageSize))
        }
        return self[here.file].bytes.byte(at: place)
    }

    /// Writes one value to bytes that the holder can access. They must be in one page.
    public mutating func fill(_ hold: HoldID, at offset: UInt64, count: UInt64, with byte: UInt8) {
        guard let pages = self[hold].pages else { return }
        let place = pages.start + offset
        guard let index = self[hold].detached.firstIndex(where: { $0.page == place & ~(pageSize - 1) }) else {
            return write(self[hold].file, at: place, count: count, byte, with: .host)
        }
        for offset in place..<place + count {
            self[hold].detached[index].bytes.set(.known(byte), at: Int(truncatingIfNeeded: offset % pageSize))
        }
    }
}
