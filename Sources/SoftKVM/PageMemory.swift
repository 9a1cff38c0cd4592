import MiniVMM

// The memory that pages of a file are made of: where it comes from, and that it can fail. The caller holds the model's lock.

extension GuestFile {
    // MARK: memory that fails

    /// The memory of a page fails: it goes out of all tables, and comes back into none. Linux keeps a reference on it for
    /// ever, so that it is in use for a conversion.
    func poison(_ page: UInt64) {
        guard let range = PageRange(start: page, size: pageSize), poisoned.insert(page).inserted else {
            return
        }
        addHold(SoftPageHold.Reference(), page: page)
        noteFailure(of: range)
        dropHostMappings(of: range, zaps: false)
        forEachSlot(serving: range) { slot, part in slot.zap(part, deleted: true) }
    }

    /// The pages around one of a range, up to those that have failed; nil if it has.
    func soundRun(of range: PageRange, around page: UInt64) -> PageRange? {
        guard !poisoned.contains(page) else { return nil }
        let low =
            poisoned.lazy.filter { $0 < page }.max().map { max($0 + pageSize, range.start) } ?? range.start
        let high = poisoned.lazy.filter { $0 > page }.min().map { min($0, range.end) } ?? range.end
        return PageRange(start: low, size: high - low)
    }

    // MARK: NUMA nodes

    func set(_ policy: MemoryPolicy, for range: PageRange) { policies.append((range, policy)) }

    func node(of page: UInt64) -> UInt32 { nodes[page] ?? 0 }

    /// Gives pages that do not exist yet their nodes. The CPUs are all on node 0.
    func place(_ range: PageRange) {
        for (run, exists) in allocated.runs(in: range) where exists == .shared {
            for page in run.chunks(of: pageSize) {
                switch policies.last(where: { $0.range.contains(page.start) })?.policy {
                case .bind(let node), .preferred(let node): nodes[page.start] = node == 0 ? nil : node
                case .standard, .local, nil: break
                }
            }
        }
    }

    func appendPlacement(to bytes: inout [UInt8]) {
        if poisoned.isEmpty, nodes.isEmpty, policies.isEmpty { return }
        bytes += Array("\(poisoned.sorted()) \(nodes.sorted { $0.key < $1.key }) \(policies)".utf8)
    }
}
