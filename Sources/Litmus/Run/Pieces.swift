import MiniVMM
import SoftKVM
import SystemPackage

/// How far an actor has come with a step, and the next atomic piece of it: what a kernel does before anybody else can act.
///
/// The pieces are those of Linux 7.4:
/// * A conversion, a hole, `fallocate` and a vCPU's access are one.
/// * A host comes to a page by a fault, which has a reference from finding the page to mapping it, and then by a reference on
///   the mapped page; in between a conversion can take the page away, and the fault begins again. So an access takes a
///   reference on up to 16 pages, copies page by page, and drops them page by page; a hold takes its pages one after the
///   other, and one that fails has held those before; `populate_read` and `populate_write` fault page by page.
/// * Who lets go of several pages does so page by page; so does who unmaps, once the pages are out of the page tables.
/// * KVM_PRE_FAULT_MEMORY asks for each page what it is, and then maps it. A vCPU comes to a memslot without a guest_memfd as
///   the host does.
/// * A memslot is invalid before it is gone. A hypercall is a conversion for each memslot.
struct Position {
    /// The step that is next, or under way.
    var step = 0
    /// Bytes of it that are done.
    private var done: UInt64 = 0
    /// When it began, where that is written down.
    var began: UInt64?
    private var phase = Phase.begin
    /// A page that is found and not mapped yet.
    private var fault: SoftPageHold?
    /// The references on pages that the step has.
    private var references: [SoftPageHold] = []
    /// What it comes to, when it has let go of everything.
    private var answer: Observation?
    /// The page that a vCPU is about to write is in the dirty log.
    private var isLogged = false
    /// Pages that it has counted.
    private var count: UInt64 = 0

    fileprivate enum Phase: Hashable {
        case begin
        /// So many pages of the batch are copied.
        case copying(Int)
        case releasing
        /// A memslot of this number is invalid.
        case deleting(UInt32)
        /// What a fault takes the page for.
        case asked(isPrivate: Bool)
        /// The page whose memory is to fail is found, and nobody has a reference on it for that.
        case failing
    }

    /// Pages that one system call has references on while it copies.
    private static let mostPages = 16

    init(step: Int = 0) { self.step = step }

    /// Everything that decides how the step goes on.
    struct Key: Hashable {
        fileprivate let step: Int
        fileprivate let done: UInt64
        fileprivate let phase: Phase
        fileprivate let fault: SoftPageHold.State?
        fileprivate let references: [SoftPageHold.State?]
        fileprivate let answer: String?
        fileprivate let isLogged: Bool
        fileprivate let count: UInt64
    }

    var key: Key {
        Key(
            step: step, done: done, phase: phase, fault: fault?.state, references: references.map(\.state),
            answer: answer?.description, isLogged: isLogged, count: count)
    }

    /// Whether the next piece has to wait until another actor has gone on.
    func waits(before step: Step, _ world: World) -> Bool {
        guard let vm = try? world.vm(nil) as? SoftVM, vm.changesSlots else { return false }
        if case .deleting = phase { return false }
        switch (step.action, step.role) {
        // Whoever changes memslots, or the files behind them, has the VM's slots_lock.
        case (.bind, _), (.unbind, _), (.close, _), (.dirty, _), (.setAttributes, _): return true
        // A fault tries again until the memslot is gone.
        case (.read(let place), .vcpu), (.write(let place, _), .vcpu): return vm.isInvalid(at: place.offset)
        default: return false
        }
    }

    /// Does the next piece.
    ///
    /// - Returns: what came of the step, nil if there is more of it.
    mutating func advance(_ step: Step, _ world: World) throws(Stop) -> Observation? {
        switch step.action {
        case .read, .write, .fill:
            if case .vcpu(let number) = step.role { return try guestAccess(step.action, number, world) }
            return try access(step, world)
        case .peek(let place):
            _ = try world.mapping(Extent(place.name, offset: place.offset, size: 1))
            let seen = try access(Step(step.role, .read(place)), world)
            if case .sigbus = seen?.outcome { return Observation(.errno(Errno.ioError.rawValue)) }
            return seen
        case .unmap(let view): return try unmap(Extent(view, offset: 0, size: .max), step, world)
        case .advise(let extent, .dontNeed): return try unmap(extent, step, world)
        case .advise(let extent, .populateRead), .advise(let extent, .populateWrite):
            return try populate(extent, step, world)
        case .advise(let extent, .hwPoison): return try fail(extent, step, world)
        case .hold(let extent, let kind, let name): return try hold(extent, kind, name, step, world)
        case .release(let name): return try release(name, step, world)
        case .unbind(let slot, let vm): return try delete(slot, vm, step, world)
        case .bind(let binding) where world.moves(binding):
            return try delete(binding.slot, binding.vm, step, world)
        case .preFault(let extent):
            guard case .vcpu(let number) = step.role else { return try world.perform(step) }
            return try preFault(extent, number, world)
        case .hypercall(let extent, let attributes):
            guard case .vcpu(let number) = step.role else { return try world.perform(step) }
            return try hypercall(extent, attributes, number, world)
        case .present(let extent): return try present(extent, step, world)
        default: return try world.perform(step, isRacing: true)
        }
    }

    // MARK: a page of the host

    private enum Page {
        case notYet
        case had
        case none
    }

    /// The next piece of what it takes to have the page at an offset of a view.
    ///
    /// - Parameters:
    ///   - toWrite: the page is to be written, and not only read.
    ///   - isHeld: a reference is wanted as well.
    private mutating func have(
        _ offset: UInt64, of mapping: SoftHostMapping, toWrite: Bool, isHeld: Bool = true
    ) -> Page {
        if let fault {
            mapping.endFault(fault)
            self.fault = nil
            return .notYet
        }
        guard mapping.permits(at: offset, toWrite: toWrite) else { return .none }
        if mapping.isMapped(at: offset) {
            guard isHeld else { return .had }
            guard let reference = mapping.holdPage(at: offset) else { return .none }
            references.append(reference)
            return .had
        }
        fault = mapping.beginFault(at: offset)
        return fault == nil ? .none : .notYet
    }

    /// Drops one reference.
    ///
    /// - Returns: whether it was the last.
    private mutating func dropOne() -> Bool {
        if !references.isEmpty { references.removeFirst().release() }
        return references.isEmpty
    }

    /// The answer, once no reference is left.
    private mutating func drop() -> Observation? { dropOne() ? answer : nil }

    // MARK: steps of the host

    private mutating func access(_ step: Step, _ world: World) throws(Stop) -> Observation? {
        guard let extent = step.action.extent, let mapping = try world.softMapping(of: extent, step.role)
        else {
            return try world.perform(step)
        }
        let start = extent.offset + done
        let first = start & ~(pageSize - 1)
        let end = extent.offset + extent.size
        switch phase {
        case .copying(let page):
            let reference = references[page]
            let from = max(start, first + UInt64(page) * pageSize)
            let size = min(end, (from & ~(pageSize - 1)) + pageSize) - from
            switch step.action {
            case .write(_, let byte), .fill(_, let byte):
                reference.fill(at: from % pageSize, count: Int(size), with: byte)
                answer = Observation(.ok)
            default:
                answer = Observation(.value(reference.read(at: from % pageSize, count: 1)?.first ?? 0))
            }
            phase = page + 1 < references.count ? .copying(page + 1) : .releasing
            // Of the pages that come next nothing is asked before these are dropped.
            if phase == .releasing { done = min(from + size, end) - extent.offset }
            return nil
        case .releasing:
            guard dropOne() else { return nil }
            phase = .begin
            return done < extent.size ? nil : answer
        default:
            let next = first + UInt64(references.count) * pageSize
            switch have(next, of: mapping, toWrite: step.action.isWrite) {
            case .notYet: return nil
            case .had:
                if next + pageSize >= end || references.count == Self.mostPages { phase = .copying(0) }
                return nil
            case .none where references.isEmpty:
                let seen = Observation(.sigbus(at: max(start, next)))
                return step.action.isSingle ? seen.withoutPlace : seen
            case .none:
                phase = .copying(0)
                return nil
            }
        }
    }

    private mutating func populate(_ extent: Extent, _ step: Step, _ world: World) throws(Stop)
        -> Observation?
    {
        guard extent.offset % pageSize == 0, let mapping = try world.softMapping(of: extent, step.role) else {
            return try world.perform(step)
        }
        var toWrite = false
        if case .advise(_, .populateWrite) = step.action { toWrite = true }
        let offset = extent.offset + done
        switch have(offset, of: mapping, toWrite: toWrite, isHeld: false) {
        case .notYet: return nil
        case .none: return Observation(.errno(mapping.refusal(at: offset, toWrite: toWrite).rawValue))
        case .had:
            done += pageSize
            return done < extent.size ? nil : Observation(.ok)
        }
    }

    /// A reference on the page; then, as long as the page is new to the LRU, none for a moment; then the failure of its
    /// memory, whatever the page is by now.
    private mutating func fail(_ extent: Extent, _ step: Step, _ world: World) throws(Stop) -> Observation? {
        guard extent.offset % pageSize == 0, let mapping = try world.softMapping(of: extent, step.role) else {
            return try world.perform(step)
        }
        if phase == .failing {
            try world.poison(extent)
            mapping.failMemory(at: extent.offset)
            return Observation(.errno(Errno.resourceBusy.rawValue))
        }
        if !references.isEmpty {
            _ = dropOne()
            phase = .failing
            return nil
        }
        switch have(extent.offset, of: mapping, toWrite: false) {
        case .notYet, .had: return nil
        case .none: return try world.perform(step)
        }
    }

    private mutating func hold(
        _ extent: Extent, _ kind: HoldKind, _ name: Name, _ step: Step, _ world: World
    ) throws(Stop) -> Observation? {
        guard let mapping = try world.softMapping(of: extent, step.role),
            let pages = PageRange.covering(start: extent.offset, size: extent.size)
        else { return try world.perform(step) }
        if phase == .releasing { return drop() }
        func fails(_ errno: Errno) -> Observation? {
            world.state.withLock { _ = $0.missed.insert(name) }
            answer = Observation(.errno(errno.rawValue))
            phase = .releasing
            return references.isEmpty ? answer : nil
        }
        if kind == .vmsplice, UInt64(references.count) == SoftPageHold.pipePages {
            return fails(.resourceTemporarilyUnavailable)
        }
        // What is to be read from the pages needs no more; the others take them to write.
        let toWrite = kind == .ioUring || kind == .gupTest
        switch have(pages.start + UInt64(references.count) * pageSize, of: mapping, toWrite: toWrite) {
        case .notYet: return nil
        case .had:
            guard UInt64(references.count) == pages.pageCount else { return nil }
            let whole = SoftPageHold.joining(references)
            references = []
            world.state.withLock { $0.holds[name] = whole }
            return Observation(.ok)
        case .none:
            // What it could get is in the pipe, and the rest is asked for once more.
            let taken = UInt64(references.count)
            guard kind == .vmsplice, taken > done else { return fails(.badAddress) }
            done = taken
            return nil
        }
    }

    private mutating func release(_ name: Name, _ step: Step, _ world: World) throws(Stop) -> Observation? {
        if phase == .releasing { return drop() }
        guard let hold = world.state.withLock({ $0.holds[name] as? SoftPageHold }) else {
            return try world.perform(step)
        }
        // The hold itself has none left, so that nothing is left to release by its name.
        references = hold.split()
        world.state.withLock { $0.holds[name] = nil }
        answer = Observation(.ok)
        phase = .releasing
        return drop()
    }

    /// References on all pages that are mapped, the step itself, and the references let go of one after the other.
    private mutating func unmap(_ view: Extent, _ step: Step, _ world: World) throws(Stop) -> Observation? {
        if phase == .releasing { return drop() }
        if references.isEmpty {
            references = try world.mappedPages(of: view)
            if !references.isEmpty { return nil }
        }
        answer = try world.perform(step)
        phase = .releasing
        return references.isEmpty ? answer : nil
    }

    private mutating func delete(
        _ slot: UInt32, _ name: VMName?, _ step: Step, _ world: World
    ) throws(Stop) -> Observation? {
        let vm = try world.vm(name) as? SoftVM
        if case .deleting = phase {
            let seen = try world.perform(step)
            vm?.validate(slot: slot)
            return seen
        }
        guard vm?.invalidate(slot: slot) == true else { return try world.perform(step) }
        phase = .deleting(slot)
        return nil
    }

    private mutating func present(_ extent: Extent, _ step: Step, _ world: World) throws(Stop) -> Observation?
    {
        let place = extent.offset + done
        let size = min(pageSize - place % pageSize, extent.size - done)
        let part = Extent(extent.name, offset: place, size: size)
        let seen = try world.perform(Step(step.role, .present(part)))
        guard case .value(let pages) = seen.outcome else { return seen }
        count += UInt64(pages)
        done += size
        return done < extent.size ? nil : Observation(.value(UInt8(clamping: count)))
    }

    // MARK: steps of a vCPU

    private mutating func guestAccess(
        _ action: Action, _ number: Int, _ world: World
    ) throws(Stop) -> Observation? {
        guard let extent = action.extent, let vm = try world.vm(nil) as? SoftVM else {
            throw .broken("a vCPU does not \(action)")
        }
        if phase == .releasing {
            if let reference = references.popLast() { vm.endGuestFault(at: extent.offset, reference) }
            phase = .begin
            return nil
        }
        if let (mapping, offset) = vm.hostPage(at: extent.offset) {
            switch have(offset, of: mapping, toWrite: false) {
            case .notYet: return nil
            case .had:
                phase = .releasing
                return nil
            // The access says what becomes of it.
            case .none: break
            }
        } else if fault != nil {
            // The memslot is gone, and the fault goes on with what it has found.
            fault?.release()
            fault = nil
            return nil
        } else if let found = vm.beginGuestFault(at: extent.offset) {
            references = [found]
            phase = .releasing
            return nil
        }
        // The page is logged before it is written, and once more if the log has been taken in between.
        if action.isWrite, !isLogged, vm.beginGuestWrite(at: extent.offset) {
            isLogged = true
            return nil
        }
        return try world.perform(Step(.vcpu(number), action), isRacing: true)
    }

    private mutating func preFault(
        _ extent: Extent, _ number: Int, _ world: World
    ) throws(Stop) -> Observation? {
        guard let range = PageRange(start: extent.offset, size: extent.size),
            let vm = try world.vm(nil) as? SoftVM
        else { return try world.perform(Step(.vcpu(number), .preFault(extent))) }
        let gpa = range.start + done
        switch phase {
        case .asked(let isPrivate):
            if references.isEmpty, let (mapping, offset) = vm.hostPage(at: gpa) {
                switch have(offset, of: mapping, toWrite: false) {
                case .notYet, .had: return nil
                case .none: return preFaulted(.badAddress)
                }
            }
            let failure = vm.preFaultPage(at: gpa, asPrivate: isPrivate)
            for reference in references { reference.release() }
            references = []
            fault?.release()
            fault = nil
            if let failure { return preFaulted(failure) }
            done += pageSize
            phase = .begin
            return done < range.size ? nil : Observation(.ok)
        default:
            if !world.isValue { try world.guest().prepare(number) }
            phase = .asked(isPrivate: vm.isTakenForPrivate(at: gpa))
            return nil
        }
    }

    /// A part that was done is a success.
    private func preFaulted(_ failure: Errno) -> Observation {
        Observation(done > 0 ? .ok : .errno(failure.rawValue))
    }

    private mutating func hypercall(
        _ extent: Extent, _ attributes: UInt64, _ number: Int, _ world: World
    ) throws(Stop) -> Observation? {
        let call = Agent.Call(
            gpa: extent.offset, pages: extent.size / pageSize,
            attributes: Attributes.hypercallWord(attributes))
        var answer: Agent.Answer = nil
        if let places = world.places(of: call) {
            guard let place = places.first(where: { $0.gpa >= extent.offset + done }) else {
                throw .broken("\(extent) is no part of memslots any more")
            }
            answer = try world.convert(place, call.target)
            done = place.gpa + place.bytes.size - extent.offset
            if answer == nil, done < extent.size { return nil }
        } else {
            answer = (.invalidArgument, nil)
        }
        if world.isValue || world.canSayAccesses {
            return Observation(answer.map { .errno($0.errno.rawValue, at: $0.page) } ?? .ok)
        }
        let said = answer
        return try world.guest().hypercall(extent, attributes, vcpu: number) { _ in said }
    }
}

extension Action {
    fileprivate var isWrite: Bool {
        switch self {
        case .write, .fill: true
        default: false
        }
    }
}

extension World {
    /// The model's mapping behind a view, with all of the extent inside; nil where it is none of the model's.
    fileprivate func softMapping(of extent: Extent, _ role: Role) throws(Stop) -> SoftHostMapping? {
        guard case .child(let number) = role else { return try mapping(extent) as? SoftHostMapping }
        guard let view = try child(number).mapping(of: extent.name) else {
            throw .broken("\(role) has no view `\(extent.name)`: there was none when it was forked")
        }
        try extent.isInside(view.length)
        return view as? SoftHostMapping
    }

    /// References on the pages that are mapped in what is to be unmapped. None where that cannot be done.
    fileprivate func mappedPages(of extent: Extent) throws(Stop) -> [SoftPageHold] {
        guard let view = state.withLock({ $0.views[extent.name] })?.mapping as? SoftHostMapping,
            extent.offset <= view.length
        else { return [] }
        return view.holdMapped(at: extent.offset, length: min(extent.size, view.length - extent.offset))
    }

    /// The binding moves a memslot, which goes where it was before it is elsewhere.
    fileprivate func moves(_ binding: Binding) -> Bool {
        let slot = state.withLock { $0.slots[SlotKey(vm: binding.vm ?? main, number: binding.slot)] }
        guard let slot, binding.flags & Binding.guestMemfd == 0 else { return false }
        return slot.gpa != binding.gpa && slot.extent.size == binding.extent.size
    }
}
