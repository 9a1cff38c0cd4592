import MiniVMM
public import SoftKVM
import SystemPackage

/// The software kernel as a judge: it is led through a program step by step, says before each what a kernel may answer and
/// after each what every actor may see of every byte, and follows a kernel that has chosen.
///
/// What a kernel is free in, when nobody acts meanwhile: a conversion that has something to write down may find no memory
/// (`ENOMEM`, at its start, nothing changed); and the bytes of a page whose conversion promised nothing are any bytes.
///
/// One thread at a time.
public final class Oracle {
    /// What a kernel may answer to a step.
    public struct Answers: Sendable, Equatable {
        /// What the model answers.
        public let model: StepOutcome
        /// What it could answer as well.
        public var others: [StepOutcome] = []
        /// Any byte will do: the contents are undefined.
        public var isAnyByte = false

        public func contains(_ seen: StepOutcome) -> Bool {
            if isAnyByte {
                switch (model, seen) {
                case (.value, .value): return true
                // A comparison of bytes that nobody knows.
                case (.ok, .differs), (.differs, .ok), (.differs, .differs): return true
                default: break
                }
            }
            return model.covers(seen) || others.contains { $0.covers(seen) }
        }
    }

    /// Why a step cannot be judged.
    public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        public let description: String
    }

    private let test: LitmusTest
    private let facts: KernelFacts
    private var world: World
    /// What was done, as far as the kernel that is judged did it.
    private var history: [Step] = []
    /// The last access of each vCPU, which `again` makes once more.
    private var pending: [Int: Action] = [:]
    /// Pages whose bytes nobody knows, by file and page offset.
    private var undefined: [Name: Set<UInt64>] = [:]

    /// - Parameters:
    ///   - test: its header says what the machine is. Its steps, if it has any, are those that are asked for.
    ///   - configuration: the version of the interface.
    public init(
        _ test: LitmusTest, _ configuration: SoftKVM.Configuration = SoftKVM.Configuration()
    ) throws(Problem) {
        self.test = test
        do throws(Stop) {
            let soft = try KernelFacts(SoftKVM(configuration)).configured(for: test)
            let isSayable = !test.steps.isEmpty && test.isSayable(on: soft, isModel: true)
            facts = (isSayable ? soft.valued : nil) ?? soft
            world = try World(facts, test, Patience(), isModel: !test.steps.isEmpty)
        } catch {
            throw Problem(error)
        }
    }

    deinit { world.close() }

    // MARK: answers

    /// What a kernel may answer to this step now. Nothing is done.
    public func answers(to step: Step) throws(Problem) -> Answers {
        do throws(Stop) {
            if let saved = world.save() {
                let seen = Result { () throws(Stop) in try world.perform(step).outcome }
                world.restore(saved)
                return answers(to: step, try seen.get())
            }
            // A kernel with memory and a CPU cannot be copied: another one goes the same way.
            let other = try World(facts, test, Patience(), isModel: !test.steps.isEmpty)
            defer { other.close() }
            for step in history { _ = try other.perform(step) }
            return answers(to: step, try other.perform(step).outcome)
        } catch {
            throw Problem(error)
        }
    }

    /// Follows a kernel: the step was done, and this came of it.
    ///
    /// - Returns: whether it may.
    @discardableResult
    public func follow(_ step: Step, _ seen: StepOutcome) throws(Problem) -> Bool {
        if case .convert(let conversion) = step.action, seen == Self.noMemory(conversion), mayGrow(conversion)
        {
            return true
        }
        return try perform(step).contains(seen)
    }

    /// Does the step as the model does it.
    ///
    /// - Returns: what a kernel may answer.
    public func perform(_ step: Step) throws(Problem) -> Answers {
        do throws(Stop) {
            let before = changingPages(step)
            let outcome = try world.perform(step).outcome
            if case .vcpu(let number) = step.role, step.action.isAccess { pending[number] = step.action }
            let answers = answers(to: step, outcome)
            history.append(step)
            note(step, outcome, before)
            return answers
        } catch {
            throw Problem(error)
        }
    }

    private func answers(to step: Step, _ outcome: StepOutcome) -> Answers {
        var answers = Answers(model: outcome)
        switch step.action {
        case .convert(let conversion) where outcome == .ok && mayGrow(conversion):
            answers.others.append(Self.noMemory(conversion))
        case .read, .check, .peek, .again:
            switch outcome {
            case .value, .ok, .differs: answers.isAnyByte = isUndefined(step)
            default: break
            }
        // A kernel that is built with the call takes no attribute where it converts in place; one that is not has no call.
        case .setAttributes(_, let attributes, 0, _)
        where outcome == .errno(Errno.inappropriateIOCTLForDevice.rawValue):
            answers.others.append(attributes == 0 ? .ok : .errno(Errno.invalidArgument.rawValue))
        default: break
        }
        return answers
    }

    private static func noMemory(_ conversion: Conversion) -> StepOutcome {
        .errno(Errno.noMemory.rawValue, at: conversion.extent.offset)
    }

    /// Whether the conversion has something to write down.
    private func mayGrow(_ conversion: Conversion) -> Bool {
        guard let file = softFile(conversion.extent.name),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= file.size, let state = Attributes.state(conversion.attributes)
        else { return false }
        return file.bytes(state, in: range) < range.size
    }

    // MARK: contents that nobody knows

    /// The pages that a step would convert, with a fate of contents that is not to be relied on, by file.
    private func changingPages(_ step: Step) -> [(name: Name, pages: [UInt64])] {
        switch step.action {
        case .convert(let conversion): return [changingPages(conversion)].compactMap { $0 }
        case .hypercall(let extent, let attributes):
            return bytes(ofGuest: extent).map { Conversion($0, attributes: attributes) }
                .compactMap(changingPages)
        default: return []
        }
    }

    private func changingPages(_ conversion: Conversion) -> (name: Name, pages: [UInt64])? {
        guard let file = softFile(conversion.extent.name),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= file.size, let state = Attributes.state(conversion.attributes),
            let promise = try? world.vm(nil).contentPromise
        else { return nil }
        let fate = state == .private ? promise.toPrivate : promise.toShared
        let isKept =
            fate == .preserved
            || fate == .byFlag
                && (conversion.contents == .preserve || conversion.flags == ContentMode.preserve.rawValue)
        guard !isKept else { return nil }
        // Versions with content modes overwrite what does not change as well.
        let pages = range.chunks(of: pageSize).map(\.start).filter {
            fate == .byFlag || file.state(at: $0) != state
        }
        return (conversion.extent.name, pages)
    }

    /// The bytes of files that are at guest-physical addresses; none if one of them has no slot.
    private func bytes(ofGuest extent: Extent) -> [Extent] {
        guard let range = PageRange.covering(start: extent.offset, size: extent.size) else { return [] }
        return (world.places(of: range) ?? []).map {
            Extent($0.file, offset: $0.bytes.start, size: $0.bytes.size)
        }
    }

    private func note(
        _ step: Step, _ outcome: StepOutcome, _ changing: [(name: Name, pages: [UInt64])]
    ) {
        for (name, pages) in changing {
            // A hypercall that fails may have been done for the first of its memslots.
            let done = outcome == .ok ? pages : pages.filter { isConverted(name, page: $0, by: step) }
            if !done.isEmpty { undefined[name, default: []].formUnion(done) }
        }
        switch step.action {
        case .fill(let extent, _):
            if case .vcpu = step.role { return }
            define(whole: extent, through: true)
        case .punch(let extent): define(whole: extent, through: false)
        case .convert(let conversion) where conversion.contents == .zero && outcome == .ok:
            define(whole: conversion.extent, through: false)
        default: break
        }
    }

    /// All bytes of the whole pages in the extent are known again.
    private func define(whole extent: Extent, through isView: Bool) {
        let place = isView ? world.filePlace(of: extent) : extent
        guard let place, !undefined.isEmpty else { return }
        let (end, overflow) = place.offset.addingReportingOverflow(place.size)
        undefined[place.name] = undefined[place.name]?.filter { page in
            !(page >= place.offset && !overflow && page + pageSize <= end)
        }
    }

    private func isConverted(_ name: Name, page: UInt64, by step: Step) -> Bool {
        guard case .hypercall(_, let attributes) = step.action else { return false }
        return softFile(name)?.state(at: page) == Attributes.state(attributes)
    }

    private func isUndefined(_ step: Step) -> Bool {
        var action = step.action
        if case .again = action, case .vcpu(let number) = step.role, let access = pending[number] {
            action = access
        }
        guard let extent = action.extent, !undefined.isEmpty else { return false }
        var places: [Extent] = []
        if case .vcpu = step.role {
            places = bytes(ofGuest: Extent(offset: extent.offset, size: extent.size))
        } else if let place = world.filePlace(of: extent) {
            places = [place]
        }
        return places.contains { place in
            undefined[place.name]?.contains { page in
                page < place.offset + place.size && place.offset < page + pageSize
            } == true
        }
    }

    // MARK: what there is to see

    /// What an actor finds at a byte: through a view for hosts and children, at a guest-physical address for vCPUs. Looking
    /// changes nothing.
    ///
    /// - Returns: nil where there is no such view, or the byte is not in it.
    public func sight(of place: Place, by role: Role) -> Sight? {
        switch role {
        case .vcpu: return (try? world.vm(nil) as? SoftVM)?.guestSight(at: place.offset)
        case .host:
            let view = world.state.withLock { $0.views[place.name]?.mapping } as? SoftHostMapping
            return view.flatMap { place.offset < $0.length ? $0.sight(at: place.offset) : nil }
        case .child(let number):
            guard let view = try? world.child(number).mapping(of: place.name) as? SoftHostMapping else {
                return nil
            }
            return view.sight(at: place.offset)
        }
    }

    /// Private or shared; nil without such a page.
    public func state(of place: Place) -> PageState? { softFile(place.name)?.state(at: place.offset) }

    /// Whether nobody can know the byte.
    public func isUndefined(_ place: Place) -> Bool {
        undefined[place.name]?.contains(place.offset & ~(pageSize - 1)) == true
    }

    private func softFile(_ name: Name) -> SoftGuestMemfd? { try? world.file(name) as? SoftGuestMemfd }
}

extension Oracle.Problem {
    init(_ stop: Stop) {
        switch stop {
        case .skip(let reason), .broken(let reason): description = reason
        case .brokenStep(let failure): description = failure.seen
        case .host(let failure): description = failure.description
        }
    }
}

extension World {
    /// The bytes of a file that a part of a view shows; nil if it is not in the view.
    fileprivate func filePlace(of extent: Extent) -> Extent? {
        guard let view = state.withLock({ $0.views[extent.name] }),
            (try? extent.isInside(view.mapping.length)) != nil
        else { return nil }
        return Extent(view.file, offset: view.offset + extent.offset, size: extent.size)
    }
}
