import CKVMShim
public import MiniVMM
public import SystemPackage

// System calls that change a host mapping, or say from where its pages come.

extension SoftHostMapping {
    public func unmap() throws(Errno) { file.model.call { forget() } }

    /// It is gone from the process. The caller holds the model's lock.
    private func forget() {
        guard isMapped else { return }
        if let all = PageRange(start: fileOffset, size: mapped.size) {
            file.dropHostMappings(of: all, only: self)
        }
        isMapped = false
        file.noteClosed()
    }

    public func move(toLength new: UInt64) throws(Errno) -> any ExaminableMapping {
        try file.model.call { () throws(Errno) in
            guard new > 0 else { throw .invalidArgument }
            guard isMapped else { throw .badAddress }
            let other = SoftHostMapping(
                file, offset: fileOffset, length: new,
                try file.mapBacking(offset: fileOffset, length: new))
            other.take(self)
            forget()
            other.register()
            return other
        }
    }

    /// The memory of the page fails that is there, whatever it is by now.
    public func failMemory(at offset: UInt64) {
        file.model.call {
            let page = fileOffset + offset
            if file.allocated.state(at: page) == .private { file.poison(page) }
        }
    }

    public func protect(at offset: UInt64, length: UInt64, _ protection: Protection) throws(Errno) {
        try file.model.call { () throws(Errno) in
            guard offset % pageSize == 0, offset <= self.length, length <= self.length - offset else {
                throw .invalidArgument
            }
            guard length > 0 else { return }
            guard isMapped else { throw .noMemory }
            if let pages = PageRange.covering(start: offset, size: length) { set(protection, for: pages) }
        }
    }
}

extension SoftHostMapping: NodePlacing {
    /// NUMA nodes of this machine. All CPUs are on node 0.
    public static let nodeCount: UInt32 = 2

    public func bind(
        at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(Errno) {
        try file.model.call { () throws(Errno) in
            guard offset % pageSize == 0, offset <= self.length, length <= self.length - offset else {
                throw .invalidArgument
            }
            guard length > 0 else { return }
            var target: UInt32?
            if case .bind(let node) = policy { target = node }
            if case .preferred(let node) = policy { target = node }
            if let target, target >= Self.nodeCount { throw .invalidArgument }
            guard isMapped else { throw .badAddress }
            guard let pages = PageRange.covering(start: fileOffset + offset, size: length) else {
                throw .invalidArgument
            }
            let isStrict = flags.contains(.strict) && policy != .standard
            let astray = strays(in: pages, from: target)
            // To move one that others have mapped is not tried; the rest does not move.
            let isAlone = astray.contains { file.hostMappedPages(in: $0) == 1 }
            if isStrict, !flags.contains(.move), !astray.isEmpty { throw .ioError }
            file.set(policy, for: pages)
            if isStrict, isAlone { throw .ioError }
        }
    }

    public func node(at offset: UInt64) throws(Errno) -> UInt32 {
        try file.model.call { () throws(Errno) in file.node(of: try mappedPage(at: offset).start) }
    }

    public func migrate(at offset: UInt64, to node: UInt32) throws(Errno) {
        try file.model.call { () throws(Errno) in
            guard node < Self.nodeCount else { throw .operationNotSupportedByDevice }
            let page = try mappedPage(at: offset)
            guard file.node(of: page.start) != node else { return }
            throw file.hostMappedPages(in: page) > 1 ? .permissionDenied : .resourceBusy
        }
    }
}

// The caller holds the model's lock.
extension SoftHostMapping {
    /// What another mapping had of the same pages, as far as this one goes.
    func take(_ old: SoftHostMapping) {
        guard let own = PageRange(start: 0, size: mapped.size) else { return }
        for run in old.mapped.runs(in: own) { mapped.set(run.range, to: run.state) }
        for run in old.unreadable.runs(in: own) { unreadable.set(run.range, to: run.state) }
        for run in old.unwritable.runs(in: own) { unwritable.set(run.range, to: run.state) }
        failed = old.failed.filter { own.contains($0) }
        // The last page's protection is that of all that follows.
        let end = min(old.mapped.size, own.size)
        guard end < own.size, let more = PageRange(start: end, size: own.size - end) else { return }
        unreadable.set(more, to: old.unreadable.state(at: end - pageSize) ?? .shared)
        unwritable.set(more, to: old.unwritable.state(at: end - pageSize) ?? .shared)
    }

    func set(_ protection: Protection, for pages: PageRange) {
        unreadable.set(pages, to: protection.isReadable ? .shared : .private)
        unwritable.set(pages, to: protection.isWritable ? .shared : .private)
        // Page tables that change are told to KVM, whose own go (hazard A9).
        guard let inFile = pages.advanced(by: fileOffset), mappedPages(in: inFile) > 0 else { return }
        file.zapGuest(through: self, inFile)
    }

    /// Pages of a part of the file that are mapped, and not on the node; all that are mapped without one.
    func strays(in pages: PageRange, from node: UInt32?) -> [PageRange] {
        pages.chunks(of: pageSize).filter { page in
            mappedPages(in: page) == 1 && (node == nil || file.node(of: page.start) != node)
        }
    }

    /// The page of the file that is mapped at a byte.
    func mappedPage(at offset: UInt64) throws(Errno) -> PageRange {
        guard isMapped, offset < length,
            let page = PageRange.covering(start: fileOffset + offset, size: 1)
        else { throw .badAddress }
        guard mappedPages(in: page) == 1 else { throw .noSuchFileOrDirectory }
        return page
    }
}
