public import MiniVMM

// What the model knows and no system call tells: for whoever explores it, or judges a kernel by it.

/// What an actor finds at a byte if it looks now.
public enum Sight: Sendable, Hashable {
    /// It reads this.
    case byte(UInt8)
    /// The host gets no page: the page is private, or behind the end of the file.
    case noPage
    /// The guest finds no memslot.
    case noMemslot
    /// The guest's access leaves with `KVM_EXIT_MEMORY_FAULT`.
    case fault
}

extension SoftGuestMemfd {
    /// What a host mapping of the file shows at a byte. Faults nothing in.
    public func hostSight(at offset: UInt64) -> Sight {
        file.model.look { file.hostSight(at: offset) }
    }

    /// Private or shared; nil behind the end.
    public func state(at offset: UInt64) -> PageState? {
        file.model.look { file.attributes.state(at: offset) }
    }

    /// Writes down all that decides what later calls and accesses answer: two files of which this is equal cannot be
    /// told apart from outside. Which slots serve the file is the VM's to say.
    public func appendState(to bytes: inout [UInt8]) {
        file.model.look {
            bytes.append(isOpen ? 1 : 0)
            file.appendState(to: &bytes)
        }
    }
}

extension SoftHostMapping {
    /// What it shows at a byte, counted from its start.
    public func sight(at offset: UInt64) -> Sight {
        file.model.look {
            offset < length && isReadable(at: offset) ? file.hostSight(at: fileOffset + offset) : .noPage
        }
    }

    /// Writes down what of the file it has in its page tables, and what it may do with it.
    public func appendState(to bytes: inout [UInt8]) {
        file.model.look {
            bytes.append(isMapped ? 1 : 0)
            for map in [mapped] + protections { appendRuns(of: map, to: &bytes) }
            for page in failed.sorted() { append(page, to: &bytes) }
        }
    }

    /// The same, of the file behind a mapping.
    public func appendFileState(to bytes: inout [UInt8]) {
        file.model.look { file.appendState(to: &bytes) }
    }
}

extension SoftVM {
    /// What a vCPU finds at a guest-physical byte, on a VM whose accesses have the kind that the page has.
    public func guestSight(at gpa: UInt64) -> Sight {
        model.look {
            guard let slot = slots.slot(at: gpa) else { return .noMemslot }
            guard !slot.isGuestMemfd || !slot.file.isClosed else { return .fault }
            if sharedBit == nil, case .fault = target(of: gpa) { return .fault }
            return .byte(slot.file.byte(at: slot.fileOffset + (gpa - slot.range.start)))
        }
    }

    /// The same as of a file, of the VM's memslots; which files they are bound to, and vCPUs, are left out.
    public func appendState(to bytes: inout [UInt8]) {
        model.look {
            if let attributes { appendRuns(of: attributes, to: &bytes) }
            for slot in slots.ascending {
                let flags: UInt64 = (slot.file.isClosed ? 1 : 0) | (slot.isInvalid ? 2 : 0)
                for word in [
                    UInt64(slot.id), UInt64(slot.flags), slot.range.start, slot.range.size, slot.fileOffset,
                    flags,
                ] {
                    append(word, to: &bytes)
                }
                if let written = slot.writtenPages { appendRuns(of: written, to: &bytes) }
                // What is mapped can be told from where faults take references.
                if model.abi.faultsHoldReferences || !slot.isGuestMemfd {
                    appendRuns(of: slot.mapped, to: &bytes)
                }
            }
        }
    }

    /// A vCPU is about to write the page at a guest-physical address: it is in the dirty log from now on.
    ///
    /// - Returns: whether its slot has one.
    public func beginGuestWrite(at gpa: UInt64) -> Bool {
        model.look {
            guard let slot = slots.slot(at: gpa), slot.isLogging, case .memory = target(of: gpa) else {
                return false
            }
            slot.noteWritten(gpa - slot.range.start)
            return true
        }
    }

    /// A vCPU is about to map the page at a guest-physical address, and in versions of the interface where that takes a
    /// reference (hazard H2) has it until the hold is released.
    ///
    /// - Returns: nil where no such reference is taken, or the page is mapped already.
    public func beginGuestFault(at gpa: UInt64) -> SoftPageHold? {
        model.look {
            let page = gpa & ~(pageSize - 1)
            guard model.abi.faultsHoldReferences, let slot = slots.slot(at: page),
                case let offset = page - slot.range.start, slot.mapped.state(at: offset) == .shared,
                !slot.file.isClosed, let inFile = PageRange(start: slot.fileOffset + offset, size: pageSize)
            else { return nil }
            slot.file.noteAllocated(inFile)
            return SoftPageHold(slot.file, inFile)
        }
    }
}

extension SoftPageHold {
    /// The pages that it has, and the bytes of those that the file has no more.
    public func appendState(to bytes: inout [UInt8]) {
        file.model.look {
            append(pages.start, to: &bytes)
            for page in detachedPages() {
                bytes.append(page == nil ? 0 : 1)
                if let page { bytes += page }
            }
        }
    }
}

extension GuestFile {
    /// The caller holds the model's lock.
    fileprivate func hostSight(at offset: UInt64) -> Sight {
        let mayRead = attributes.state(at: offset) == .shared || plants(.hostReadsPrivate)
        let isPoisoned = poisoned.contains(offset & ~(pageSize - 1))
        return mayRead && offset < size && !isPoisoned ? .byte(byte(at: offset)) : .noPage
    }

    /// The caller holds the model's lock, and the offset is inside the file.
    fileprivate func byte(at offset: UInt64) -> UInt8 {
        guard allocated.state(at: offset) == .private else { return 0 }
        return unsafe bytes(at: offset).load(as: UInt8.self)
    }

    fileprivate func appendState(to out: inout [UInt8]) {
        appendRuns(of: attributes, to: &out)
        guard let all = PageRange(start: 0, size: size) else { return }
        for (run, exists) in allocated.runs(in: all) where exists == .private {
            for page in run.chunks(of: pageSize) {
                append(page.start, to: &out)
                let contents = unsafe UnsafeRawBufferPointer(
                    start: bytes(at: page.start), count: Int(pageSize))
                let first = unsafe contents[0]
                // Most pages are of one byte.
                if unsafe contents.allSatisfy({ $0 == first }) {
                    out.append(first)
                } else {
                    unsafe out.append(contentsOf: contents)
                }
            }
        }
        appendPlacement(to: &out)
        for page in heldPages() {
            append(page.offset, to: &out)
            out.append(UInt8(clamping: page.count))
        }
    }
}

private func append(_ word: UInt64, to bytes: inout [UInt8]) {
    unsafe withUnsafeBytes(of: word) { unsafe bytes.append(contentsOf: $0) }
}

private func appendRuns(of map: AttributeMap, to bytes: inout [UInt8]) {
    guard let all = PageRange(start: 0, size: map.size) else { return }
    for (run, state) in map.runs(in: all) {
        append(run.end | (state == .private ? 1 : 0), to: &bytes)
    }
    append(.max, to: &bytes)
}
