// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SystemPackage

/// The position of an actor in its current step. Its next atomic piece is what a kernel does before another actor can
/// act.
///
/// The pieces are those of Linux 7.4:
/// * A conversion, a hole, `fallocate` and a vCPU's access are one piece each. A memory fault that asks for a
///   conversion makes three: the access, the conversion, and the access again.
/// * The host reaches a page through a page fault, which holds a reference from finding the page to mapping it, and
///   then through a reference on the mapped page. A conversion in between can remove the page, and the fault starts
///   again. So an access takes references on up to 16 pages, copies page by page, and drops the references page by
///   page. A hold takes its pages one by one; a hold that fails has held the pages before. `populate_read` and
///   `populate_write` fault page by page.
/// * References on several pages are dropped page by page. An unmapping does so after the pages have left the page
///   tables.
/// * KVM_PRE_FAULT_MEMORY reads the state of each page, and then maps the page. A vCPU reaches a memslot without a
///   guest_memfd as the host does.
/// * A memslot is invalid before it is deleted. A hypercall is one conversion for each memslot; a conversion of the
///   guest's memory is one for each region.
struct Position: Sendable {
    /// The next or current step.
    var step = 0
    /// Completed bytes of the step.
    var done: UInt64 = 0
    var phase = Phase.begin
    /// A page that a fault has found and not yet mapped.
    var fault: HoldID?
    /// The references that the step holds.
    var references: [HoldID] = []
    /// The answer that the step returns after it has dropped its references.
    var answer: Observation?
    /// Whether the page that a vCPU is about to write is in the dirty log.
    var isLogged = false
    /// The access that `again` repeats.
    var repeated: Step?
    /// Pages counted so far.
    var count: UInt64 = 0
    /// The conversions that the monitor has made for the step. They do not affect later pieces.
    var conversions: [FileConversion] = []

    enum Phase: Hashable {
        case begin
        /// This number of pages of the batch has been copied.
        case copying(Int)
        case releasing
        /// The memslot with this number is invalid.
        case deleting(UInt32)
        /// The state that a fault has read for the page.
        case asked(isPrivate: Bool)
        /// The page whose memory is to fail has been found, and the step no longer holds a reference on it.
        case failing
        /// A vCPU has exited with a memory fault, and the monitor is about to convert the page.
        case faulted(MemoryFault, FaultConversion)
        /// The conversion succeeded without an effect, so it is not repeated.
        case convertedWithoutEffect
    }

    /// The number of pages on which one system call holds references while it copies.
    private static let mostPages = 16

    init(step: Int = 0) { self.step = step }

    /// Everything that affects later pieces of the step.
    struct Key: Hashable {
        fileprivate let step: Int
        fileprivate let done: UInt64
        fileprivate let phase: Phase
        fileprivate let fault: KernelModel.HoldState?
        fileprivate let references: [KernelModel.HoldState]
        fileprivate let answer: Observation?
        fileprivate let isLogged: Bool
        fileprivate let repeated: Step?
        fileprivate let count: UInt64
    }

    func key(in kernel: KernelModel) -> Key {
        Key(
            step: step, done: done, phase: phase, fault: fault.map { kernel.state(of: $0) },
            references: references.map { kernel.state(of: $0) }, answer: answer, isLogged: isLogged,
            repeated: repeated, count: count)
    }

    /// Whether the next piece waits for another actor.
    func waits(before step: Step, _ machine: ModelMachine) -> Bool {
        guard let vm = machine.vms[machine.setup.main], machine.kernel.isChangingSlots(vm) else {
            return false
        }
        switch phase {
        case .deleting, .faulted: return false
        default: break
        }
        let step = repeated ?? step
        switch (step.action, step.actor) {
        // Changes of memslots, and of the files of memslots, take the VM's slots_lock.
        case (.bind, _), (.unbind, _), (.close, _), (.dirty, _), (.setAttributes, _): return true
        // A fault is retried until the memslot is gone.
        case (.read(let place), .vcpu), (.write(let place, _), .vcpu):
            return machine.kernel.isInvalid(vm, at: place.offset)
        default: return false
        }
    }

    /// Performs the next piece.
    ///
    /// - Returns: the answer of the step; nil if it has not ended.
    mutating func advance(_ step: Step, _ machine: inout ModelMachine) throws(Stop) -> Observation? {
        switch step.action {
        case .read, .write, .fill:
            if case .vcpu = step.actor { return try guestAccess(step, &machine) }
            return try access(step, &machine)
        case .peek(let place):
            let seen = try access(Step(step.actor, .read(place)), &machine)
            if case .sigbus = seen?.outcome { return Observation(.errno(Errno.ioError.rawValue)) }
            return seen
        case .unmap(let view): return try unmap(Extent(view, offset: 0, size: .max), step, &machine)
        case .advise(let extent, .dontNeed): return try unmap(extent, step, &machine)
        case .advise(let extent, .populateRead), .advise(let extent, .populateWrite):
            return try populate(extent, step, &machine)
        case .advise(let extent, .hwPoison): return try fail(extent, step, &machine)
        case .hold(let extent, let kind, let name): return try hold(extent, kind, name, step, &machine)
        case .release(let name): return try release(name, step, &machine)
        case .unbind(let slot, let vm): return try delete(slot, vm, step, &machine)
        case .bind(let binding) where machine.moves(binding):
            return try delete(binding.slot, binding.vm, step, &machine)
        case .preFault(let extent): return try preFault(extent, step, &machine)
        case .hypercall(let extent, let attributes):
            return try hypercall(extent, attributes, step, &machine)
        case .present(let extent): return try present(extent, step, &machine)
        case .again: return try again(step, &machine)
        case .convert(let conversion) where conversion.extent.name == .guest:
            return try convertGuest(conversion, step, &machine)
        default: return try machine.perform(step)
        }
    }

    // MARK: host pages

    enum Page {
        case notYet
        case had
        case none
    }

    /// Performs the next piece of getting a page of a view.
    ///
    /// - Parameters:
    ///   - toWrite: whether the page will be written.
    ///   - isHeld: whether a reference is needed.
    mutating func have(
        _ offset: UInt64, of mapping: MappingID, toWrite: Bool, isHeld: Bool = true,
        _ kernel: inout KernelModel
    ) -> Page {
        if let fault {
            kernel.endFault(mapping, fault)
            self.fault = nil
            return .notYet
        }
        guard kernel.permits(mapping, at: offset, toWrite: toWrite) else { return .none }
        if kernel.isPresent(mapping, at: offset) {
            guard isHeld else { return .had }
            guard let reference = kernel.holdPage(mapping, at: offset) else { return .none }
            references.append(reference)
            return .had
        }
        fault = kernel.beginFault(mapping, at: offset)
        return fault == nil ? .none : .notYet
    }

    /// Drops one reference.
    ///
    /// - Returns: whether it was the last one.
    private mutating func dropOne(_ kernel: inout KernelModel) -> Bool {
        if !references.isEmpty { kernel.release(references.removeFirst()) }
        return references.isEmpty
    }

    /// Drops one reference.
    ///
    /// - Returns: the answer after the last one.
    private mutating func drop(_ kernel: inout KernelModel) -> Observation? {
        dropOne(&kernel) ? answer : nil
    }

    // MARK: steps of the host

    private mutating func access(_ step: Step, _ machine: inout ModelMachine) throws(Stop) -> Observation? {
        guard let extent = step.action.extent else { return try machine.perform(step) }
        let mapping = try machine.mapping(extent, step.actor)
        let start = extent.offset + done
        let first = start & ~(pageSize - 1)
        let end = extent.offset + extent.size
        switch phase {
        case .copying(let page):
            let reference = references[page]
            let from = max(start, first + UInt64(page) * pageSize)
            let size = min(end, (from & ~(pageSize - 1)) + pageSize) - from
            if let byte = step.action.byteWritten {
                machine.kernel.fill(reference, at: from % pageSize, count: size, with: byte)
                answer = Observation(.ok)
            } else {
                let place = (machine.kernel.pages(of: reference)?.start ?? 0) + from % pageSize
                answer = Observation(machine.kernel.byte(reference, at: from % pageSize), at: place)
            }
            phase = page + 1 < references.count ? .copying(page + 1) : .releasing
            // The next pages are accessed after these references are dropped.
            if phase == .releasing { done = min(from + size, end) - extent.offset }
            return nil
        case .releasing:
            guard dropOne(&machine.kernel) else { return nil }
            phase = .begin
            return done < extent.size ? nil : answer
        default:
            let next = first + UInt64(references.count) * pageSize
            switch have(next, of: mapping, toWrite: step.action.byteWritten != nil, &machine.kernel) {
            case .notYet: return nil
            case .had:
                if next + pageSize >= end || references.count == Self.mostPages { phase = .copying(0) }
                return nil
            case .none where references.isEmpty:
                return Observation(step.action.isSingle ? .sigbus() : .sigbus(at: max(start, next)))
            case .none:
                phase = .copying(0)
                return nil
            }
        }
    }

    private mutating func populate(
        _ extent: Extent, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        guard extent.offset % pageSize == 0 else { return try machine.perform(step) }
        let mapping = try machine.mapping(extent, step.actor)
        var toWrite = false
        if case .advise(_, .populateWrite) = step.action { toWrite = true }
        let offset = extent.offset + done
        switch have(offset, of: mapping, toWrite: toWrite, isHeld: false, &machine.kernel) {
        case .notYet: return nil
        case .none: return machine.answer(machine.kernel.refusal(mapping, at: offset, toWrite: toWrite))
        case .had:
            done += pageSize
            return done < extent.size ? nil : Observation(.ok)
        }
    }

    /// Takes a reference on the page, drops it for a moment if the page is new to the LRU, and then makes the memory
    /// fail, whatever state the page has by then.
    private mutating func fail(
        _ extent: Extent, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        guard extent.offset % pageSize == 0 else { return try machine.perform(step) }
        let mapping = try machine.mapping(extent, step.actor)
        if phase == .failing {
            try machine.poison(extent)
            machine.kernel.failMemory(mapping, at: extent.offset)
            return machine.answer(.resourceBusy)
        }
        if !references.isEmpty {
            _ = dropOne(&machine.kernel)
            phase = .failing
            return nil
        }
        switch have(extent.offset, of: mapping, toWrite: false, &machine.kernel) {
        case .notYet, .had: return nil
        case .none: return try machine.perform(step)
        }
    }

    private mutating func hold(
        _ extent: Extent, _ kind: HoldKind, _ name: Name, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        guard let pages = PageRange.covering(start: extent.offset, size: extent.size) else {
            return try machine.perform(step)
        }
        let mapping = try machine.mapping(extent, step.actor)
        if phase == .releasing { return drop(&machine.kernel) }
        func fails(_ error: ErrorNumber, _ machine: inout ModelMachine, _ own: inout Position) -> Observation?
        {
            machine.missed.insert(name)
            own.answer = machine.answer(error)
            own.phase = .releasing
            return own.references.isEmpty ? own.answer : nil
        }
        if kind == .vmsplice, UInt64(references.count) == KernelModel.pipePages {
            return fails(.resourceTemporarilyUnavailable, &machine, &self)
        }
        // Holders that only read from the pages need no write access.
        let toWrite = kind == .ioUring || kind == .gupTest
        let next = pages.start + UInt64(references.count) * pageSize
        switch have(next, of: mapping, toWrite: toWrite, &machine.kernel) {
        case .notYet: return nil
        case .had:
            guard UInt64(references.count) == pages.pageCount else { return nil }
            machine.holds[name] = machine.kernel.join(references)
            references = []
            return Observation(.ok)
        case .none:
            // The pages taken so far are in the pipe, and the rest is requested again.
            let taken = UInt64(references.count)
            guard kind == .vmsplice, taken > done else { return fails(.badAddress, &machine, &self) }
            done = taken
            return nil
        }
    }

    private mutating func release(
        _ name: Name, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        if phase == .releasing { return drop(&machine.kernel) }
        // The hold is removed first, so that its name cannot be released again.
        guard let hold = machine.holds.removeValue(forKey: name) else { return try machine.perform(step) }
        references = machine.kernel.split(hold)
        answer = Observation(.ok)
        phase = .releasing
        return drop(&machine.kernel)
    }

    /// Takes references on all mapped pages, performs the step, and drops the references one by one.
    private mutating func unmap(
        _ part: Extent, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        if phase == .releasing { return drop(&machine.kernel) }
        if references.isEmpty {
            references = machine.holdMapped(part)
            if !references.isEmpty { return nil }
        }
        answer = try machine.perform(step)
        phase = .releasing
        return references.isEmpty ? answer : nil
    }

    private mutating func delete(
        _ slot: UInt32, _ name: VMName?, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        let vm = try machine.vm(name)
        if case .deleting = phase {
            let seen = try machine.perform(step)
            machine.kernel.validate(vm, slot: slot)
            return seen
        }
        guard machine.kernel.invalidate(vm, slot: slot) else { return try machine.perform(step) }
        machine.guestTablesMayBeEmpty(vm)
        phase = .deleting(slot)
        return nil
    }

    /// Makes a call for each region, until one fails.
    private mutating func convertGuest(
        _ conversion: Conversion, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        let request = try GuestConversion(conversion).request
        let regions = machine.setup.regions
        // A request beyond the guest's memory is refused before anything changes.
        guard request.range.end <= regions.last?.gpa.end ?? 0,
            let (_, part) = regions.parts(of: request.range).first(where: { part in
                part.gpa.start >= request.range.start + done
            })
        else { return try machine.perform(step) }
        var piece = conversion
        piece.extent = Extent(.guest, offset: part.start, size: part.size)
        var seen = try machine.perform(Step(step.actor, .convert(piece), step.expectation))
        conversions += seen.conversions
        done = part.end - request.range.start
        guard seen.outcome != .ok || done == request.range.size else { return nil }
        seen.conversions = conversions
        return seen
    }

    private mutating func present(
        _ extent: Extent, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        let place = extent.offset + done
        let size = min(pageSize - place % pageSize, extent.size - done)
        let part = Extent(extent.name, offset: place, size: size)
        let seen = try machine.perform(Step(step.actor, .present(part)))
        guard case .value(let pages) = seen.outcome else { return seen }
        count += UInt64(pages)
        done += size
        return done < extent.size ? nil : Observation(count: count)
    }
}

extension ModelMachine {
    /// Takes a reference on each mapped page of a part of a view, in ascending order.
    fileprivate mutating func holdMapped(_ part: Extent) -> [HoldID] {
        guard let view = views[part.name], case let length = kernel.length(of: view.mapping),
            part.offset <= length
        else { return [] }
        return kernel.holdPresent(
            view.mapping, at: part.offset, length: min(part.size, length - part.offset))
    }

    /// Whether the binding moves a memslot. The slot then leaves its old address before it appears at the new one.
    fileprivate func moves(_ binding: Binding) -> Bool {
        let slot = slots[World.SlotKey(vm: binding.vm ?? setup.main, number: binding.slot)]
        guard let slot, binding.flags & Binding.guestMemfd == 0 else { return false }
        return slot.gpa != binding.gpa && slot.extent.size == binding.extent.size
    }
}
