// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SystemPackage

/// How far an actor has come with a step, and the next atomic piece of it: what a kernel does before another actor can act.
///
/// The pieces are those of Linux 7.4:
/// * A conversion, a hole, `fallocate` and a vCPU's access are one piece each. A memory fault that asks for a
///   conversion is an access, the conversion, and the access once more.
/// * The host reaches a page by a fault, which holds a reference from finding the page to mapping it, and then by a reference
///   on the mapped page. A conversion in between can take the page away, and the fault begins again. So an access takes a
///   reference on up to 16 pages, copies page by page, and drops them page by page. A hold takes its pages one after the
///   other, and one that fails has held those before. `populate_read` and `populate_write` fault page by page.
/// * References on several pages are dropped page by page; so are those of an unmapping, once the pages are out of the page
///   tables.
/// * KVM_PRE_FAULT_MEMORY asks for each page what it is, and then maps it. A vCPU reaches a memslot without a guest_memfd as
///   the host does.
/// * A memslot is invalid before it is gone. A hypercall is a conversion for each memslot, and a conversion
///   of the guest's memory one for each region.
struct Position: Sendable {
    /// The step that is next, or under way.
    var step = 0
    /// Bytes of it that are done.
    var done: UInt64 = 0
    var phase = Phase.begin
    /// A page that is found and not mapped yet.
    var fault: HoldID?
    /// The references on pages that the step has.
    var references: [HoldID] = []
    /// The answer, once the step holds nothing any more.
    var answer: Observation?
    /// The page that a vCPU is about to write is in the dirty log.
    var isLogged = false
    /// The access that `again` repeats.
    var repeated: Step?
    /// Pages that it has counted.
    var count: UInt64 = 0
    /// What the monitor has converted for it. It decides nothing that is still to come.
    var conversions: [FileConversion] = []

    enum Phase: Hashable {
        case begin
        /// So many pages of the batch are copied.
        case copying(Int)
        case releasing
        /// A memslot of this number is invalid.
        case deleting(UInt32)
        /// What a fault takes the page for.
        case asked(isPrivate: Bool)
        /// The page whose memory is to fail is found, and the step has no reference on it any more.
        case failing
        /// A vCPU has left with a memory fault, and the monitor is about to convert the page.
        case faulted(MemoryFault, FaultConversion)
        /// That has succeeded without an effect, so there is no second attempt.
        case convertedWithoutEffect
    }

    /// Pages that one system call has references on while it copies.
    private static let mostPages = 16

    init(step: Int = 0) { self.step = step }

    /// Everything that decides how the step goes on.
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

    /// Whether the next piece has to wait until another actor has gone on.
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
        // Changes of memslots, and of the files behind them, take the VM's slots_lock.
        case (.bind, _), (.unbind, _), (.close, _), (.dirty, _), (.setAttributes, _): return true
        // A fault tries again until the memslot is gone.
        case (.read(let place), .vcpu), (.write(let place, _), .vcpu):
            return machine.kernel.isInvalid(vm, at: place.offset)
        default: return false
        }
    }

    /// Does the next piece.
    ///
    /// - Returns: what came of the step, nil if there is more of it.
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

    // MARK: a page of the host

    enum Page {
        case notYet
        case had
        case none
    }

    /// The next piece of what it takes to have the page at an offset of a view.
    ///
    /// - Parameters:
    ///   - toWrite: the page is to be written, and not only read.
    ///   - isHeld: a reference is wanted as well.
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
    /// - Returns: whether it was the last.
    private mutating func dropOne(_ kernel: inout KernelModel) -> Bool {
        if !references.isEmpty { kernel.release(references.removeFirst()) }
        return references.isEmpty
    }

    /// The answer, once no reference is left.
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
            // Nothing is asked of the pages that come next before these are dropped.
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

    /// A reference on the page; then, as long as the page is new to the LRU, none for a moment; then the failure of its
    /// memory, whatever the page is by now.
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
        // What is to be read from the pages needs no more; the others take them to write.
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
            // What it could get is in the pipe, and the rest is asked for once more.
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
        // The hold itself has none left, so that nothing is left to release by its name.
        guard let hold = machine.holds.removeValue(forKey: name) else { return try machine.perform(step) }
        references = machine.kernel.split(hold)
        answer = Observation(.ok)
        phase = .releasing
        return drop(&machine.kernel)
    }

    /// References on all pages that are mapped, the step itself, and the references dropped one after the other.
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

    /// A call for each region, until one fails.
    private mutating func convertGuest(
        _ conversion: Conversion, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        let request = try GuestConversion(conversion).request
        let regions = machine.setup.regions
        // A request that leaves the guest's memory is refused before anything changes.
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
    /// References on the pages that are mapped in a part of a view, one for each page, ascending.
    fileprivate mutating func holdMapped(_ part: Extent) -> [HoldID] {
        guard let view = views[part.name], case let length = kernel.length(of: view.mapping),
            part.offset <= length
        else { return [] }
        return kernel.holdPresent(
            view.mapping, at: part.offset, length: min(part.size, length - part.offset))
    }

    /// The binding moves a memslot, which goes where it was before it is elsewhere.
    fileprivate func moves(_ binding: Binding) -> Bool {
        let slot = slots[World.SlotKey(vm: binding.vm ?? setup.main, number: binding.slot)]
        guard let slot, binding.flags & Binding.guestMemfd == 0 else { return false }
        return slot.gpa != binding.gpa && slot.extent.size == binding.extent.size
    }
}
