public import CKVMShim
import Glibc
public import MiniVMM
public import SystemPackage

/// A guest_memfd of ``SoftKVM``.
public final class SoftGuestMemfd: FirstPostedGuestMemfd, ArgumentTakingGuestMemfd, @unchecked Sendable {
    let file: GuestFile
    /// The number of a descriptor that was duplicated; the first has the file's.
    private let ownNumber: OwnedDescriptor?
    /// Guarded by the model's lock.
    private(set) var isOpen = true

    init(_ file: GuestFile, number: consuming OwnedDescriptor? = nil) {
        self.file = file
        ownNumber = number
        file.noteOpened()
    }

    deinit {
        file.model.look {
            if isOpen { file.noteClosed() }
        }
    }

    public var descriptor: Int32 {
        switch ownNumber {
        case .some(let own): own.rawValue
        case nil: file.descriptor
        }
    }
    public var size: UInt64 { file.size }

    /// A system call on the descriptor.
    private func call<R>(_ body: () throws(Errno) -> R) throws(Errno) -> R {
        try file.model.call { () throws(Errno) in
            guard isOpen else { throw .badFileDescriptor }
            return try body()
        }
    }

    public func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        try call { () throws(Errno) in try file.convert(&request) }
    }

    /// Row 12: what cannot be copied out is `EFAULT`, whatever the answer was.
    public func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno) {
        try call { () throws(Errno) in
            var copy = request
            do throws(Errno) {
                try file.convert(&copy, in: memory)
            } catch {
                let isNamed = [.resourceTemporarilyUnavailable, .noMemory].contains(error)
                throw isNamed && !file.plants(.copyOutUnchecked) ? .badAddress : error
            }
        }
    }

    /// The call of ``ABIProfile/rfcV1``; `ENOTTY` in the others.
    public func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno) {
        var wide = ckvm_memory_attributes2()
        wide.offset = request.offset
        wide.size = request.size
        wide.attributes = request.attributes
        wide.flags = request.flags
        wide.error_offset = request.error_offset
        (wide.reserved.0, wide.reserved.1, wide.reserved.2) = request.reserved
        defer { request.error_offset = wide.error_offset }
        try call { () throws(Errno) in try file.convert(&wide, isFirstCall: true) }
    }

    public func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try mapAlone(offset: offset, length: length)
    }

    /// Only the model knows the addresses of a mapping, so it is always alone.
    public func mapAlone(offset: UInt64, length: UInt64) throws(Errno) -> any ExaminableMapping {
        try call { () throws(Errno) in
            guard file.flags.contains(.mmap) || file.plants(.mmapNeedsNoFlag) else {
                throw .operationNotSupportedByDevice
            }
            let (padded, wraps) = length.addingReportingOverflow(pageSize - 1)
            guard !wraps, padded >= pageSize, offset % pageSize == 0, offset <= UInt64(Int64.max) else {
                throw .invalidArgument
            }
            guard file.hasMemory(offset: offset, length: length) else { throw SoftKVM.noMemoryBehind }
            let mapping = SoftHostMapping(
                file, offset: offset, length: length, try file.mapBacking(offset: offset, length: length))
            mapping.register()
            return mapping
        }
    }

    public func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try call { () throws(Errno) in
            try file.allocate(punchHole: punchHole, offset: offset, length: length)
        }
    }

    // MARK: what no system call tells

    /// Bytes of `range` that are in `state`.
    public func bytes(_ state: PageState, in range: PageRange) -> UInt64 {
        file.model.look { file.attributes.bytes(state, in: range) }
    }

    /// Pages of `range` that host mappings have faulted in and not lost since, of each mapping. A failed call to private drops
    /// them too, and this is the only place to see it: they fault back in.
    public func hostMappedPages(in range: PageRange) -> UInt64 {
        file.model.look { file.hostMappedPages(in: range) }
    }

    /// Pages of `range` that exist.
    public func allocatedPages(in range: PageRange) -> UInt64 {
        file.model.look { file.allocated.bytes(.private, in: range) / pageSize }
    }
}

extension SoftGuestMemfd: ExaminableFile {
    /// The model hands out each number once as long as the object lives.
    public func reserveDescriptor() throws(Errno) {}

    public func duplicate() throws(Errno) -> any ExaminableFile {
        try call { () throws(Errno) in
            // A number that no other file of this process has.
            let number = dup(file.descriptor)
            guard number >= 0 else { throw Errno(rawValue: errno) }
            let copy = SoftGuestMemfd(file, number: OwnedDescriptor(owning: number))
            file.model.add(copy)
            return copy
        }
    }

    public func closeDescriptor() throws(Errno) {
        try call { () throws(Errno) in
            isOpen = false
            file.noteClosed()
        }
    }

    public func attempt(_ fileCall: FileCall) throws(Errno) {
        try call { () throws(Errno) in try refuse(fileCall) }
    }

    private func refuse(_ call: FileCall) throws(Errno) {
        switch call {
        case .read, .write, .truncate: throw .invalidArgument
        case .mapPrivate: throw file.flags.contains(.mmap) ? .invalidArgument : .operationNotSupportedByDevice
        case .grow: throw .notSupportedOnSocket
        }
    }
}

/// A host mapping of a ``SoftGuestMemfd``.
///
/// Access goes through ``read(at:into:)`` and ``write(at:from:)``, which know which pages are private. The memory at
/// ``address`` is real, but nothing stops a direct access to a private page.
public final class SoftHostMapping: ResidencyCounting, ExaminableMapping, @unchecked Sendable {
    let file: GuestFile
    /// Bytes.
    let fileOffset: UInt64
    public let length: UInt64
    private let mapping: OwnedMapping
    /// Pages in its page tables, counted from its start (`private` stands for yes). Guarded by the model's lock.
    var mapped: AttributeMap
    /// Pages that the process may not read, and not write, likewise.
    var unreadable: AttributeMap
    var unwritable: AttributeMap
    /// Pages of which its page tables say that their memory has failed, counted from its start. A hole does not change that.
    var failed: Set<UInt64> = []
    /// False once it is unmapped or moved.
    var isMapped = true

    init(_ file: GuestFile, offset: UInt64, length: UInt64, _ mapping: consuming OwnedMapping) {
        let pages = PageRange.covering(start: 0, size: length)
        mapped = AttributeMap(size: pages?.size ?? 0, initial: .shared)
        (unreadable, unwritable) = (mapped, mapped)
        self.file = file
        fileOffset = offset
        self.length = length
        self.mapping = mapping
        file.noteOpened()
    }

    deinit {
        file.model.look {
            if isMapped { file.noteClosed() }
        }
    }

    public var address: UInt64 { mapping.address }

    /// The model and the file know it from now on.
    func register() {
        file.model.add(self)
        file.add(self)
    }

    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        try file.model.call { () throws(Errno) in
            let count = try touch(offset, buffer.count, unless: .hostReadsPrivate)
            guard count > 0, let base = buffer.baseAddress else { return 0 }
            unsafe base.copyMemory(from: file.bytes(at: fileOffset + offset), byteCount: count)
            return count
        }
    }

    public func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        try file.model.call { () throws(Errno) in
            let count = try touch(offset, buffer.count, toWrite: true, unless: .hostWritesPrivate)
            guard count > 0, let base = buffer.baseAddress else { return 0 }
            unsafe file.bytes(at: fileOffset + offset).copyMemory(from: base, byteCount: count)
            if let pages = PageRange.covering(start: fileOffset + offset, size: UInt64(count)) {
                file.noteHostWrite(pages)
            }
            return count
        }
    }

    /// The same pages as another process has them that was forked now: with page tables of its own, which are empty.
    public func forked() throws(Errno) -> SoftHostMapping {
        try file.model.call { () throws(Errno) in
            let copy = SoftHostMapping(
                file, offset: fileOffset, length: length,
                try file.mapBacking(offset: fileOffset, length: length))
            (copy.unreadable, copy.unwritable) = (unreadable, unwritable)
            file.add(copy)
            return copy
        }
    }

    /// References on the pages of a part that are in page tables, as whoever unmaps them has until the CPUs' translations
    /// are flushed: one for each page, ascending.
    public func holdMapped(at offset: UInt64, length: UInt64) -> [SoftPageHold] {
        file.model.look {
            guard let pages = PageRange.covering(start: offset, size: length) else { return [] }
            return mapped.runs(in: pages).filter { $0.state == .private }
                .flatMap { $0.range.chunks(of: pageSize) }.compactMap { $0.advanced(by: fileOffset) }
                .map { SoftPageHold(file, $0) }
        }
    }

    public func residentPages(at offset: UInt64, length: UInt64) -> UInt64 {
        file.model.look {
            PageRange.covering(start: fileOffset + offset, size: length).map(mappedPages) ?? 0
        }
    }

    // MARK: its page tables; the caller holds the model's lock

    /// Of pages of the file, by their place in it.
    func mappedPages(in range: PageRange) -> UInt64 {
        inMapping(range).map { mapped.bytes(.private, in: $0) / pageSize } ?? 0
    }

    func noteMapped(_ range: PageRange) {
        guard let own = inMapping(range) else { return }
        if mapped.uniformState(of: own) != .private { mapped.set(own, to: .private) }
    }

    /// - Parameter zaps: its page tables are emptied there, also of what says that memory has failed.
    func noteUnmapped(_ range: PageRange, zaps: Bool = true) {
        guard let own = inMapping(range) else { return }
        if zaps, !failed.isEmpty { failed = failed.filter { !own.contains($0) } }
        if mapped.uniformState(of: own) != .shared { mapped.set(own, to: .shared) }
    }

    /// The part of a range of the file that is mapped, counted from the mapping's start.
    private func inMapping(_ range: PageRange) -> PageRange? {
        PageRange(start: fileOffset, size: mapped.size).flatMap { range.intersection($0) }?
            .offset(from: fileOffset)
    }

    public func peek(at offset: UInt64) throws(Errno) -> UInt8 {
        try file.model.call { () throws(Errno) in
            guard (try? touch(offset, 1)) == 1 else { throw .ioError }
            return unsafe file.bytes(at: fileOffset + offset).load(as: UInt8.self)
        }
    }

    /// MADV_DONTNEED only unmaps; MADV_REMOVE is a hole; huge pages are not for these files.
    public func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) {
        try file.model.call { () throws(Errno) in
            guard offset % pageSize == 0, offset <= self.length, length <= self.length - offset else {
                throw .invalidArgument
            }
            guard length > 0 else { return }
            guard isMapped else {
                throw [.hwPoison, .softOffline].contains(advice) ? .badAddress : .noMemory
            }
            let start = fileOffset + offset
            guard let pages = PageRange.covering(start: start, size: length) else { throw .invalidArgument }
            switch advice {
            case .dontNeed: file.dropHostMappings(of: pages, only: self)
            case .remove: try file.allocate(punchHole: true, offset: start, length: pages.size)
            case .populateRead, .populateWrite:
                try populate(offset, pages, toWrite: advice == .populateWrite)
            case .collapse: throw .invalidArgument
            case .hwPoison:
                guard try touch(offset, 1) == 1 else { throw .badAddress }
                file.poison(start)
                throw .resourceBusy
            case .softOffline:
                // These pages cannot be moved.
                guard try touch(offset, 1) == 1 else { throw .badAddress }
                throw .resourceBusy
            }
        }
    }

    /// Every kind of holder takes the same references here; only a pipe has an end.
    public func hold(at offset: UInt64, length: UInt64, by kind: HoldKind) throws(Errno) -> any PageHold {
        try file.model.call { () throws(Errno) in
            guard let count = Int(exactly: length), count > 0 else { throw .invalidArgument }
            guard offset <= self.length, length <= self.length - offset,
                let pages = PageRange.covering(start: fileOffset + offset, size: length)
            else { throw .badAddress }
            // vmsplice puts what it could get into the pipe; less than asked for is nothing to this caller.
            // What is to be read from the pages needs no more; the others take them to write.
            let toWrite = kind == .ioUring || kind == .gupTest
            guard try touch(offset, count, toWrite: toWrite) == count else { throw .badAddress }
            guard kind != .vmsplice || pages.pageCount <= SoftPageHold.pipePages else {
                throw .resourceTemporarilyUnavailable
            }
            return SoftPageHold(file, pages)
        }
    }

    /// How many bytes the host gets, the pages faulted in.
    private func touch(
        _ offset: UInt64, _ count: Int, toWrite: Bool = false, unless fault: PlantedFault? = nil
    ) throws(Errno) -> Int {
        guard offset <= length, UInt64(count) <= length - offset else { throw .badAddress }
        guard count > 0 else { return 0 }
        let permitted = permitted(offset, UInt64(count), toWrite: toWrite)
        guard permitted > 0 else { throw .badAddress }
        return Int(
            try file.faultInForHost(
                fileOffset + offset, permitted, evenPrivate: fault.map { file.plants($0) } ?? false,
                through: self))
    }

    /// The pages one after the other: the first that cannot be had ends it.
    private func populate(_ offset: UInt64, _ pages: PageRange, toWrite: Bool) throws(Errno) {
        let permitted = permitted(offset, pages.size, toWrite: toWrite)
        var done: UInt64 = 0
        if permitted > 0 {
            done = (try? file.faultInForHost(pages.start, permitted, evenPrivate: false, through: self)) ?? 0
        }
        guard done < pages.size else { return }
        let isPoisoned = failed.contains(offset + done) || file.poisoned.contains(pages.start + done)
        if done == permitted, !isPoisoned { throw .invalidArgument }
        throw isPoisoned ? .hardwarePoisoned : .badAddress
    }

    // MARK: what the process may do; the caller holds the model's lock

    /// Bytes up to the first page that the protection keeps away.
    private func permitted(_ offset: UInt64, _ count: UInt64, toWrite: Bool) -> UInt64 {
        let refused = toWrite ? unwritable : unreadable
        // Nothing is kept away from most mappings.
        if isMapped, refused.runCount == 1, failed.isEmpty, refused.state(at: 0) == .shared { return count }
        guard isMapped, let run = refused.run(containing: offset), run.state == .shared else { return 0 }
        let end = failed.lazy.filter { $0 + pageSize > offset }.min() ?? .max
        let most = run.range.end >= refused.size ? count : min(count, run.range.end - offset)
        return end > offset ? min(most, end - offset) : 0
    }

    func isReadable(at offset: UInt64) -> Bool { permitted(offset, 1, toWrite: false) == 1 }
    func isWritable(at offset: UInt64) -> Bool { permitted(offset, 1, toWrite: true) == 1 }

    /// For whoever compares states.
    var protections: [AttributeMap] { [unreadable, unwritable] }
}

/// Pages that somebody on the host uses.
public final class SoftPageHold: PageHold, @unchecked Sendable {
    /// What a pipe takes before it is full.
    public static let pipePages: UInt64 = 16

    /// One reference on one page. Guarded by the model's lock.
    final class Reference {
        /// The page's bytes, once it was punched out of the file.
        var detached: [UInt8]?
        /// A vCPU's, between finding the page and mapping it (``ABIProfile``, hazard H2).
        let isFault: Bool

        init(isFault: Bool = false) { self.isFault = isFault }
    }

    let file: GuestFile
    let pages: PageRange
    /// By page, ascending; empty once released. Guarded by the model's lock.
    private var references: [Reference]

    init(_ file: GuestFile, _ pages: PageRange) {
        self.file = file
        self.pages = pages
        references = (0..<pages.pageCount).map { _ in Reference() }
        for (index, reference) in references.enumerated() {
            file.addHold(reference, page: pages.start + UInt64(index) * pageSize)
        }
    }

    /// References that others took, of pages that follow one another.
    private init(_ file: GuestFile, _ pages: PageRange, _ references: [Reference]) {
        self.file = file
        self.pages = pages
        self.references = references
    }

    /// The references of `holds`, which have none left; nil unless their pages follow one another.
    public convenience init?(joining holds: [SoftPageHold]) {
        guard let first = holds.first, let last = holds.last,
            let pages = PageRange(start: first.pages.start, size: last.pages.end - first.pages.start),
            pages.pageCount == holds.count
        else { return nil }
        self.init(first.file, pages, first.file.model.look { holds.flatMap { $0.giveAway() } })
    }

    /// The same references, a hold for each page, ascending. This one has none left.
    public func split() -> [SoftPageHold] {
        file.model.look {
            let pages = pages.chunks(of: pageSize)
            return zip(pages, giveAway()).map { SoftPageHold(file, $0, [$1]) }
        }
    }

    private func giveAway() -> [Reference] {
        defer { references = [] }
        return references
    }

    deinit { release() }

    public func release() {
        file.model.call {
            for (index, reference) in references.enumerated() {
                file.dropHold(reference, page: pages.start + UInt64(index) * pageSize)
            }
            references = []
        }
    }

    /// Copies what the holder has, as a device would that was given the pages: from the file, or from the page as it was
    /// when it was punched out.
    ///
    /// - Parameter offset: bytes from the start of the first page; what is asked for is inside one page.
    /// - Returns: nil once released.
    public func read(at offset: UInt64, count: Int) -> [UInt8]? {
        file.model.call {
            let index = Int(offset / pageSize)
            let start = Int(offset % pageSize)
            guard references.indices.contains(index), count <= Int(pageSize) - start else { return nil }
            if let old = references[index].detached { return Array(old[start..<start + count]) }
            let page = unsafe file.bytes(at: pages.start + UInt64(index) * pageSize)
            return unsafe [UInt8](UnsafeRawBufferPointer(start: page + start, count: count))
        }
    }

    /// Writes one byte value to a part of what the holder has. The same rules.
    public func fill(at offset: UInt64, count: Int, with byte: UInt8) {
        file.model.call {
            let index = Int(offset / pageSize)
            let start = Int(offset % pageSize)
            guard references.indices.contains(index), count <= Int(pageSize) - start else { return }
            if references[index].detached != nil {
                for place in start..<start + count { references[index].detached?[place] = byte }
                return
            }
            let page = unsafe file.bytes(at: pages.start + UInt64(index) * pageSize)
            unsafe (page + start).initializeMemory(as: UInt8.self, repeating: byte, count: count)
            if let range = PageRange(start: pages.start + UInt64(index) * pageSize, size: pageSize) {
                file.noteHostWrite(range)
            }
        }
    }

    /// For each page the bytes of the holder's own, where it was punched out of the file.
    func detachedPages() -> [[UInt8]?] { references.map(\.detached) }

    /// What the holder has, for instance what comes out of the pipe: the bytes of the `index`-th page as they are now, or as they were when it was
    /// punched out of the file (hazard A11). Nil once released.
    public func contents(ofPage index: Int) -> [UInt8]? {
        file.model.look {
            guard references.indices.contains(index) else { return nil }
            if let old = references[index].detached { return old }
            let page = unsafe file.bytes(at: pages.start + UInt64(index) * pageSize)
            return unsafe [UInt8](UnsafeRawBufferPointer(start: page, count: Int(pageSize)))
        }
    }
}
