// SPDX-License-Identifier: MIT
// NUMA: the nodes that pages are allocated from, and calls that move pages.

extension KernelModel {
    /// Number of NUMA nodes. All CPUs are on node 0.
    public static var nodeCount: UInt32 { 2 }

    /// `mbind` of a part of a mapping.
    ///
    /// - Throws: `EINVAL` if the offset is not page aligned, the part reaches past the end of the mapping, or the
    ///   node does not exist; `EFAULT` if the mapping is unmapped; `EIO` with ``PolicyFlags/strict`` if a mapped
    ///   page is on another node and ``PolicyFlags/move`` is not set or the page cannot be moved.
    public mutating func bind(
        _ mapping: MappingID, at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(ErrorNumber) {
        let all = self[mapping].length
        guard offset % pageSize == 0, offset <= all, length <= all - offset else { throw .invalidArgument }
        guard length > 0 else { return }
        let target = policy.node
        if let target, target >= Self.nodeCount { throw .invalidArgument }
        guard self[mapping].isMapped else { throw .badAddress }
        guard let pages = PageRange.covering(start: self[mapping].fileOffset + offset, size: length) else {
            throw .invalidArgument
        }
        let file = self[mapping].file
        let isStrict = flags.contains(.strict) && policy != .standard
        let misplaced = misplacedPages(mapping, in: pages, from: target)
        if isStrict, !flags.contains(.move), !misplaced.isEmpty { throw .ioError }
        self[file].policies.append(File.Policy(range: pages, policy: policy))
        // The kernel only tries to move a page that no other mapping has mapped. A page of a guest_memfd cannot be
        // moved.
        if isStrict, misplaced.contains(where: { hostMappedPages(file, in: $0) == 1 }) { throw .ioError }
    }

    /// The mapped pages of a part of the file that are not on the node; all mapped pages if the node is nil.
    private func misplacedPages(_ mapping: MappingID, in pages: PageRange, from node: UInt32?) -> [PageRange]
    {
        let here = self[mapping]
        guard let own = here.offsets(of: pages) else { return [] }
        var misplaced: [PageRange] = []
        for range in here.mapped.ranges(in: own) {
            for page in range.chunks(of: pageSize) {
                guard let inFile = page.advanced(by: here.fileOffset) else { continue }
                if node == nil || self[here.file].nodes.value(at: inFile.start) != node {
                    misplaced.append(inFile)
                }
            }
        }
        return misplaced
    }

    /// The node of a page (`move_pages` without target nodes).
    ///
    /// - Throws: `EFAULT` if the mapping is unmapped or the offset is past its end; `ENOENT` if the page is
    ///   not in its page tables.
    public func node(_ mapping: MappingID, at offset: UInt64) throws(ErrorNumber) -> UInt32 {
        let page = try presentPage(mapping, at: offset)
        return self[self[mapping].file].nodes.value(at: page.start) ?? 0
    }

    /// `move_pages` of one page.
    ///
    /// - Throws: `ENODEV` if the node does not exist; `EFAULT` if the mapping is unmapped or the offset is past its
    ///   end; `ENOENT` if the page is not in its page tables. A page on another node cannot be moved: `EACCES` if
    ///   several mappings have it mapped, `EBUSY` otherwise.
    public func migrate(_ mapping: MappingID, at offset: UInt64, to node: UInt32) throws(ErrorNumber) {
        guard node < Self.nodeCount else { throw .operationNotSupportedByDevice }
        let page = try presentPage(mapping, at: offset)
        let file = self[mapping].file
        guard self[file].nodes.value(at: page.start) != node else { return }
        throw hostMappedPages(file, in: page) > 1 ? .permissionDenied : .resourceBusy
    }

    /// The page of the file that is mapped at an offset.
    private func presentPage(_ mapping: MappingID, at offset: UInt64) throws(ErrorNumber) -> PageRange {
        let here = self[mapping]
        guard here.isMapped, offset < here.length,
            let page = PageRange.covering(start: here.fileOffset + offset, size: 1)
        else { throw .badAddress }
        guard here.mappedCount(page) == 1 else { throw .noSuchFileOrDirectory }
        return page
    }

    /// Assigns nodes to the pages of the range that are not allocated yet.
    mutating func place(_ file: FileID, _ range: PageRange) {
        for part in self[file].allocated.gaps(in: range) {
            for rule in self[file].policies {
                guard let own = rule.range.intersection(part) else { continue }
                self[file].nodes.set(own, to: rule.policy.node ?? 0)
            }
        }
    }
}

extension MemoryPolicy {
    fileprivate var node: UInt32? {
        switch self {
        case .bind(let node), .preferred(let node): node
        case .standard, .local: nil
        }
    }
}
