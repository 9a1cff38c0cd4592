public import ConversionModel
import MiniVMM
public import SystemPackage

// Calls and accesses of which a kernel does one piece after the other, for whoever interleaves them with those of others.

extension SoftHostMapping {
    /// The page at an offset is in the page tables, so that a reference on it needs no fault.
    public func isMapped(at offset: UInt64) -> Bool {
        model.look { model.kernel.isPresent(number, at: offset) }
    }

    /// The protection of the page permits the access, and its memory has not failed under the mapping.
    public func permits(at offset: UInt64, toWrite: Bool) -> Bool {
        model.look { model.kernel.permits(number, at: offset, toWrite: toWrite) }
    }

    /// Why `populate_read` or `populate_write` ends at a page that the host does not get.
    public func refusal(at offset: UInt64, toWrite: Bool) -> Errno {
        model.look { Errno(model.kernel.refusal(number, at: offset, toWrite: toWrite)) }
    }

    /// A fault has found the page: it has a reference until the page is mapped.
    ///
    /// - Returns: nil where the host gets no page.
    public func beginFault(at offset: UInt64) -> SoftPageHold? {
        model.look { model.kernel.beginFault(number, at: offset).map { SoftPageHold(model, $0, memory) } }
    }

    /// The page of a fault is mapped, and its reference dropped.
    public func endFault(_ fault: SoftPageHold) {
        model.look {
            if let hold = fault.take() { model.kernel.endFault(number, hold) }
        }
    }

    /// One more reference on a page that is mapped.
    public func holdPage(at offset: UInt64) -> SoftPageHold? {
        model.look { model.kernel.holdPage(number, at: offset).map { SoftPageHold(model, $0, memory) } }
    }

    /// References on the pages of a part that are in page tables: one for each page, ascending.
    public func holdMapped(at offset: UInt64, length: UInt64) -> [SoftPageHold] {
        model.look {
            model.kernel.holdPresent(number, at: offset, length: length).map {
                SoftPageHold(model, $0, memory)
            }
        }
    }

    /// The memory of the page fails that is there, whatever page it is by now.
    public func failMemory(at offset: UInt64) { model.call { model.kernel.failMemory(number, at: offset) } }
}

extension SoftVM {
    /// A memslot is there, and on its way out: faults on it wait, and pre-faults are `EAGAIN`.
    public func isInvalid(at gpa: UInt64) -> Bool { model.look { model.kernel.isInvalid(number, at: gpa) } }

    /// A memslot is on its way out: whoever else wants to change memslots waits.
    public var changesSlots: Bool { model.look { model.kernel.changesSlots(number) } }

    /// The first half of deleting a memslot, or of moving it: its pages leave the tables.
    ///
    /// - Returns: false without such a memslot.
    public func invalidate(slot id: UInt32) -> Bool {
        model.look { model.kernel.invalidate(number, slot: id) }
    }

    /// A move that was refused leaves the memslot as it was.
    public func validate(slot id: UInt32) { model.look { model.kernel.validate(number, slot: id) } }

    /// What a fault takes an address for before it looks for the page.
    public func isTakenForPrivate(at gpa: UInt64) -> Bool {
        model.look { model.kernel.isTakenForPrivate(number, at: gpa) }
    }

    /// One page of `KVM_PRE_FAULT_MEMORY`.
    public func preFaultPage(at gpa: UInt64, asPrivate isPrivate: Bool) -> Errno? {
        model.look { model.kernel.preFaultPage(number, at: gpa, asPrivate: isPrivate).map { Errno($0) } }
    }

    /// The host mapping, and the place in it, through which a vCPU comes to a page that is not in its tables.
    public func hostPage(at gpa: UInt64) -> (mapping: SoftHostMapping, offset: UInt64)? {
        model.look {
            guard let (mapping, offset) = model.kernel.hostPage(number, at: gpa),
                let object = model.mapping(mapping)
            else { return nil }
            return (object, offset)
        }
    }

    /// The page at an address is in the tables.
    public func isMapped(at gpa: UInt64) -> Bool { model.look { model.kernel.isMapped(number, at: gpa) } }

    /// A vCPU is about to write the page: it is in the dirty log from now on.
    ///
    /// - Returns: whether its slot has one.
    public func beginGuestWrite(at gpa: UInt64) -> Bool {
        model.look { model.kernel.beginGuestWrite(number, at: gpa) }
    }

    /// A vCPU is about to map the page, and in versions of the interface where that takes a reference (hazard H2) has it
    /// until the hold is released.
    ///
    /// - Returns: nil where no such reference is taken, or the page is mapped already.
    public func beginGuestFault(at gpa: UInt64) -> SoftPageHold? {
        model.look {
            model.kernel.beginGuestFault(number, at: gpa).map {
                SoftPageHold(model, $0, model.memory(of: model.kernel.file(of: $0)))
            }
        }
    }

    /// A vCPU's fault has its page, and it is in the tables now.
    public func endGuestFault(at gpa: UInt64, _ fault: SoftPageHold) {
        model.look {
            if let hold = fault.take() { model.kernel.endGuestFault(number, at: gpa, hold) }
        }
    }

    /// The result of a vCPU's access to one byte.
    public enum Access: Sendable, Hashable {
        case byte(UInt8)
        case mmio
        case fault(MemoryFault)
        /// A fault with `EHWPOISON`: the memory of the page has failed.
        case poisoned(MemoryFault)
        /// `EFAULT` alone.
        case noPage
    }

    /// An access of a vCPU to one byte, as the CPU would make it, without one.
    ///
    /// - Parameter byte: what is written, nil for a read.
    public func access(_ gpa: UInt64, writing byte: UInt8?) -> Access {
        model.call {
            switch model.kernel.reach(number, gpa, toWrite: byte != nil) {
            case .stopped(.mmio): return .mmio
            case .stopped(.fault(let fault)): return .fault(fault)
            case .stopped(.poisoned(let fault)): return .poisoned(fault)
            case .stopped(.noPage), .stopped(.byte): return .noPage
            case .memory(let file, let offset):
                guard let place = unsafe model.memory(of: file)?.bytes(at: offset) else {
                    if let byte { model.kernel.fill(file, at: offset, count: 1, with: byte) }
                    return .byte(model.kernel.byte(file, at: offset).value)
                }
                if let byte {
                    unsafe place.storeBytes(of: byte, as: UInt8.self)
                    if let page = PageRange.covering(start: offset, size: 1) {
                        model.kernel.noteHostWrite(file, page)
                    }
                }
                return .byte(unsafe place.load(as: UInt8.self))
            }
        }
    }

    /// What a vCPU finds at a guest-physical byte, on a VM whose accesses have the kind that the page has.
    public func guestSight(at gpa: UInt64) -> Sight {
        model.look {
            guard let (file, offset) = model.kernel.guestByte(number, at: gpa),
                let bytes = unsafe model.memory(of: file)?.bytes(at: offset)
            else { return model.kernel.guestSight(number, at: gpa) }
            return .byte(.known(unsafe bytes.load(as: UInt8.self)))
        }
    }
}

extension SoftPageHold {
    /// The pages that it has, and the bytes of those that the file has no more.
    public struct State: Hashable, Sendable {
        private let references: KernelModel.HoldState
        private let bytes: [UInt64: [UInt8]]

        init(_ references: KernelModel.HoldState, _ bytes: [UInt64: [UInt8]]) {
            self.references = references
            self.bytes = bytes
        }
    }

    /// Nil once released.
    public var state: State? {
        model.look {
            number.map { State(model.kernel.state(of: $0), model.detachedPages($0)) }
        }
    }
}

extension SoftKVM {
    /// Everything but holds that decides what later calls and accesses answer: two states that are equal cannot be told apart.
    public struct State: Hashable, Sendable {
        private let kernel: KernelModel
        /// The bytes of the pages that exist, file by file.
        private let bytes: [UInt8]

        init(_ model: Model) {
            kernel = model.kernel.withoutStatistics
            var bytes: [UInt8] = []
            model.appendBytes(to: &bytes)
            self.bytes = bytes
        }
    }

    public var state: State { model.look { State(model) } }
}

extension Model {
    /// The lock is held.
    fileprivate func appendBytes(to bytes: inout [UInt8]) {
        for (file, memory) in memoriesByNumber {
            let allocated = kernel.allocatedPages(of: file)
            guard let all = allocated.all else { continue }
            for range in allocated.ranges(in: all) {
                for page in range.chunks(of: pageSize) where page.start < memory.size {
                    let contents = unsafe UnsafeRawBufferPointer(
                        start: memory.bytes(at: page.start), count: Int(pageSize))
                    let first = unsafe contents[0]
                    // Most pages are of one byte.
                    let isFilled = unsafe contents.allSatisfy { $0 == first }
                    bytes.append(isFilled ? 1 : 0)
                    if isFilled { bytes.append(first) } else { unsafe bytes.append(contentsOf: contents) }
                }
            }
        }
    }
}
