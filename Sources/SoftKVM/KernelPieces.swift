public import MiniVMM
public import SystemPackage

// What a kernel does in pieces, between which others act: for who goes through interleavings. All of it at once is what the
// calls do.

extension SoftHostMapping {
    /// The page at an offset is in the page tables, so that whoever wants a reference on it needs no fault.
    public func isMapped(at offset: UInt64) -> Bool {
        file.model.look {
            guard offset < length, file.attributes.state(at: fileOffset + offset) == .shared, isMapped else {
                return false
            }
            return mapped.state(at: offset & ~(pageSize - 1)) == .private
        }
    }

    /// The protection of the page lets the process read it, or write it, and its memory has not failed under the mapping.
    public func permits(at offset: UInt64, toWrite: Bool) -> Bool {
        file.model.look { toWrite ? isWritable(at: offset) : isReadable(at: offset) }
    }

    /// Why `populate_read` or `populate_write` ends at a page that the host does not get.
    public func refusal(at offset: UInt64, toWrite: Bool) -> Errno {
        file.model.look {
            let page = offset & ~(pageSize - 1)
            guard isMapped else { return .noMemory }
            guard !failed.contains(page), !file.poisoned.contains(fileOffset + page) else {
                return .hardwarePoisoned
            }
            let isPermitted = toWrite ? isWritable(at: offset) : isReadable(at: offset)
            return isPermitted ? .badAddress : .invalidArgument
        }
    }

    /// A fault has found the page: it has a reference until the page is mapped, and a conversion to private meets that.
    ///
    /// - Returns: nil where the host gets no page.
    public func beginFault(at offset: UInt64) -> SoftPageHold? {
        file.model.look {
            let place = fileOffset + (offset & ~(pageSize - 1))
            guard offset < length, place < file.size, file.attributes.state(at: place) == .shared,
                isMapped, !file.poisoned.contains(place), let page = PageRange(start: place, size: pageSize)
            else { return nil }
            file.noteAllocated(page)
            return SoftPageHold(file, page)
        }
    }

    /// The page of a fault is mapped, and the reference of the fault gone. One that was punched out meanwhile is not: its
    /// fault begins again.
    public func endFault(_ fault: SoftPageHold) {
        file.model.look {
            if fault.detachedPages().allSatisfy({ $0 == nil }) { noteMapped(fault.pages) }
            fault.release()
        }
    }

    /// One more reference on a page that is mapped.
    public func holdPage(at offset: UInt64) -> SoftPageHold? {
        file.model.look {
            PageRange(start: fileOffset + (offset & ~(pageSize - 1)), size: pageSize).map {
                SoftPageHold(file, $0)
            }
        }
    }
}

extension SoftVM {
    /// A memslot is there, and on its way out: faults on it wait, and pre-faults are `EAGAIN`.
    public func isInvalid(at gpa: UInt64) -> Bool {
        model.look { slots.slot(at: withoutSharedBit(gpa))?.isInvalid == true }
    }

    /// A memslot is on its way out: whoever else wants to change memslots waits.
    public var changesSlots: Bool { model.look { slots.ascending.contains(where: \.isInvalid) } }

    /// The first half of deleting a memslot, or of moving it: its pages go out of the tables.
    ///
    /// - Returns: false without such a memslot.
    public func invalidate(slot id: UInt32) -> Bool {
        model.look { slots.invalidate(id, isInvalid: true) }
    }

    /// A move that was refused leaves the memslot as it was.
    public func validate(slot id: UInt32) { model.look { _ = slots.invalidate(id, isInvalid: false) } }

    /// What a fault takes an address for before it looks for the page: nothing keeps that from changing.
    public func isTakenForPrivate(at gpa: UInt64) -> Bool {
        model.look { type == .softwareProtected && isPrivateInFile(gpa) }
    }

    /// One page of `KVM_PRE_FAULT_MEMORY`.
    ///
    /// - Parameter isPrivate: what the fault took the address for. Where that has changed it is `EFAULT`.
    public func preFaultPage(at gpa: UInt64, asPrivate isPrivate: Bool) -> Errno? {
        model.look {
            // With two doors the address says it, and the target knows.
            guard sharedBit != nil || isPrivate == (hasFileKinds && isPrivateInFile(gpa)) else {
                return .badAddress
            }
            guard let slot = slots.slot(at: gpa) else { return .noSuchFileOrDirectory }
            guard !slot.isInvalid else { return .resourceTemporarilyUnavailable }
            switch target(of: gpa) {
            case .memory: break
            case .fault(let fault?): return errno(of: fault)
            case .fault(nil), .mmio: return .badAddress
            }
            slot.noteMapped(gpa - slot.range.start)
            return nil
        }
    }

    /// The host mapping, and the place in it, through which a vCPU comes to a page that is not in its tables: that of a
    /// memslot without a guest_memfd. Nil for any other address.
    public func hostPage(at gpa: UInt64) -> (mapping: SoftHostMapping, offset: UInt64)? {
        model.look {
            let page = gpa & ~(pageSize - 1)
            guard let slot = slots.slot(at: page), !slot.isGuestMemfd,
                case let offset = page - slot.range.start,
                slot.mapped.state(at: offset) == .shared,
                let mapping = model.mapping(covering: slot.userspaceAddress + offset, size: pageSize)
            else { return nil }
            return (mapping, slot.userspaceAddress + offset - mapping.address)
        }
    }

    /// The page at an address is in the tables.
    public func isMapped(at gpa: UInt64) -> Bool {
        model.look {
            let page = gpa & ~(pageSize - 1)
            return slots.slot(at: page).map { $0.mapped.state(at: page - $0.range.start) == .private }
                ?? false
        }
    }

    /// A vCPU's fault has its page, and it is in the tables now.
    public func endGuestFault(at gpa: UInt64, _ fault: SoftPageHold) {
        model.look {
            let page = gpa & ~(pageSize - 1)
            if let slot = slots.slot(at: page), fault.detachedPages().allSatisfy({ $0 == nil }) {
                slot.noteMapped(page - slot.range.start)
            }
            fault.release()
        }
    }

    /// What comes of a vCPU's access to one byte.
    public enum Access: Sendable, Hashable {
        case byte(UInt8)
        case mmio
        case fault(MemoryFault)
        /// One with `EHWPOISON`: the memory of the page has failed.
        case poisoned(MemoryFault)
        /// `EFAULT` alone.
        case noPage
    }

    /// An access of a vCPU to one byte, as the CPU would make it, without one.
    ///
    /// - Parameter byte: what is written, nil for a read.
    public func access(_ gpa: UInt64, writing byte: UInt8?) -> Access {
        model.call {
            switch target(of: gpa) {
            case .mmio: return .mmio
            case .fault(let fault?):
                return errno(of: fault) == .hardwarePoisoned ? .poisoned(fault) : .fault(fault)
            case .fault(nil): return .noPage
            case .memory(let slot, _) where slot.isReadOnly && byte != nil: return .mmio
            case .memory(let slot, _):
                let offset = withoutSharedBit(gpa) - slot.range.start
                slot.noteMapped(offset)
                let place = unsafe slot.file.bytes(at: slot.fileOffset + offset)
                if let byte {
                    slot.noteWritten(offset)
                    unsafe place.storeBytes(of: byte, as: UInt8.self)
                    if let page = PageRange.covering(start: slot.fileOffset + offset, size: 1) {
                        slot.file.noteHostWrite(page)
                    }
                }
                return .byte(unsafe place.load(as: UInt8.self))
            }
        }
    }

    private func isPrivateInFile(_ gpa: UInt64) -> Bool {
        guard let slot = slots.slot(at: gpa), slot.isGuestMemfd, !slot.file.isClosed else { return false }
        return slot.file.attributes.state(at: slot.fileOffset + (gpa - slot.range.start)) == .private
    }

    /// The files say what is private, whatever the type of the VM.
    var hasFileKinds: Bool {
        type == .softwareProtected || model.abi == .linux74 && model.configuration.inPlaceConversion
    }
}
