// SPDX-License-Identifier: MIT
public import ConversionModel

/// The model as a judge of one program, step by step.
///
/// Before each step it gives the answers that a kernel may return, and after each step the bytes that every actor may
/// see. ``follow(_:_:)`` accepts the answer that a kernel has given.
///
/// While no other actor runs, a kernel has three choices. First, a conversion that changes attributes may fail with
/// `ENOMEM` at its start, with nothing changed, even if a page is in use; it is `EFAULT` if the kernel cannot write that
/// place. A conversion of the guest's memory may do so at the start of each
/// region, with the regions before it converted; a conversion for a memory fault may do so at its page. Second, a page
/// whose conversion promised nothing about contents may hold any bytes. Third, where conversion is in place,
/// `KVM_SET_MEMORY_ATTRIBUTES` on a VM is `ENOTTY`; if the kernel is built with the call, it succeeds for shared and is
/// `EINVAL` for any other word.
///
/// The calls of a pattern (`every N of`) are not expected to fail for lack of memory.
public struct Oracle: Sendable {
    /// The answers that a kernel may return for a step.
    public struct Answers: Sendable, Equatable {
        /// The model's own answer.
        public let model: StepOutcome
        /// Further permitted answers.
        public var others: [StepOutcome] = []
        /// Whether the contents are undefined, so that any byte is permitted.
        public var isAnyByte = false

        package init(model: StepOutcome, others: [StepOutcome] = [], isAnyByte: Bool = false) {
            self.model = model
            self.others = others
            self.isAnyByte = isAnyByte
        }

        /// Whether a kernel may return this answer. `SIGBUS` or `fault` without a place matches any place.
        public func contains(_ seen: StepOutcome) -> Bool {
            if isAnyByte {
                switch (model, seen) {
                case (.value, .value): return true
                // A comparison of undefined bytes.
                case (.ok, .differs), (.differs, .ok), (.differs, .differs): return true
                // Undefined bytes of several pages.
                case (.value, .differs), (.differs, .value): return true
                default: break
                }
            }
            return model.covers(seen) || others.contains { $0.covers(seen) }
        }
    }

    /// Why a step cannot be judged: the model lacks what it needs, or an earlier step left no object to use.
    public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
        /// The reason for people, without the step.
        public let description: String
    }

    private var machine: ModelMachine

    /// The machine of a test before its first step.
    ///
    /// - Parameters:
    ///   - test: configures the machine by its header. From its body only the uses of closed descriptors and unmapped
    ///     views matter.
    ///   - rules: the version of the interface, and everything else that the header does not set.
    /// - Throws: ``Problem`` if a VM, file, view or memslot of the header cannot be created with these rules.
    public init(_ test: LitmusTest, rules: Rules = Rules(memoryLimit: KernelModel.backedBytes))
        throws(Problem)
    {
        do throws(Stop) {
            machine = try ModelMachine(ModelMachine.Setup(rules.configured(for: test), test))
        } catch {
            throw Problem(error)
        }
    }

    // MARK: answers

    /// The answers that a kernel may return for this step now. The step is not performed.
    ///
    /// - Throws: ``Problem`` if the model cannot perform the step.
    public func answers(to step: Step) throws(Problem) -> Answers {
        var copy = self
        return try copy.perform(step)
    }

    /// Performs a step that a kernel has answered with `seen`. A permitted `ENOMEM` leaves everything after its place
    /// unchanged; after any other answer the model continues from its own answer.
    ///
    /// - Returns: whether a kernel may return `seen`.
    /// - Throws: ``Problem`` if the model cannot perform the step.
    @discardableResult
    public mutating func follow(_ step: Step, _ seen: StepOutcome) throws(Problem) -> Bool {
        if case .convert(let conversion) = step.action,
            let place = placesWithoutMemory(conversion).first(where: { Self.noMemory(at: $0) == seen })
        {
            var done = conversion
            done.extent.size = place - conversion.extent.offset
            if done.extent.size > 0 { _ = try perform(Step(step.actor, .convert(done))) }
            return true
        }
        // The same, if the kernel cannot write the place.
        if case .convert(let conversion) = step.action, conversion.structure == .readOnly,
            case let answers = try answers(to: step), answers.model == .ok, answers.others.contains(seen)
        {
            return true
        }
        guard step.action.mayFault, case .errno(ErrorNumber.noMemory.rawValue, let place?) = seen else {
            return try perform(step).contains(seen)
        }
        let answers = try answers(to: step)
        guard answers.model != seen, answers.others.contains(seen) else {
            return try perform(step).contains(seen)
        }
        do throws(Stop) {
            _ = try machine.perform(step, placeWithoutMemory: place)
            return true
        } catch {
            throw Problem(error)
        }
    }

    /// Performs a step with the model's own answer.
    ///
    /// - Returns: the answers that a kernel may return.
    /// - Throws: ``Problem`` if the model cannot perform the step. The model may then be partly changed: continue with
    ///   a copy made before.
    public mutating func perform(_ step: Step) throws(Problem) -> Answers {
        do throws(Stop) {
            // Memory for the tracking structure is reserved before pages are checked.
            var places: [UInt64] = []
            if case .convert(let conversion) = step.action { places = placesWithoutMemory(conversion) }
            let seen = try machine.perform(step)
            var answers = Answers(model: seen.outcome, isAnyByte: seen.isAnyByte)
            switch step.action {
            case .convert(let conversion) where seen.outcome == .ok || seen.outcome.isInUse:
                answers.others = places.map { place in
                    conversion.structure == .readOnly
                        ? .errno(ErrorNumber.badAddress.rawValue) : Self.noMemory(at: place)
                }
            case _ where step.action.mayFault:
                let made = seen.conversions.filter { $0.failure == nil }
                answers.others = made.map { Self.noMemory(at: $0.gpa) }
            default: break
            }
            // A kernel that converts in place has no attributes of VMs. If it is built with the call, it accepts only
            // shared.
            if case .setAttributes(_, let attributes, 0, _) = step.action.single,
                case .errno(ErrorNumber.inappropriateIOCTLForDevice.rawValue, let place) = seen.outcome
            {
                answers.others.append(
                    attributes == 0 ? .ok : .errno(ErrorNumber.invalidArgument.rawValue, at: place))
            }
            return answers
        } catch {
            throw Problem(error)
        }
    }

    private static func noMemory(at place: UInt64) -> StepOutcome {
        .errno(ErrorNumber.noMemory.rawValue, at: place)
    }

    /// The places where the conversion may run out of memory, as its answer names them.
    private func placesWithoutMemory(_ conversion: Conversion) -> [UInt64] {
        let extent = conversion.extent
        guard let state = Attributes.state(conversion.attributes) else { return [] }
        guard extent.name == .guest else { return mayGrow(extent, state) ? [extent.offset] : [] }
        guard let range = PageRange(start: extent.offset, size: extent.size) else { return [] }
        return machine.setup.regions.parts(of: range).filter { region, part in
            mayGrow(region.extent(at: part), state)
        }.map { $0.gpa.start }
    }

    /// Whether a conversion of these pages changes attributes.
    private func mayGrow(_ extent: Extent, _ state: PageState) -> Bool {
        guard let file = file(extent.name),
            let range = PageRange(start: extent.offset, size: extent.size),
            range.end <= machine.kernel.size(of: file)
        else { return false }
        return machine.kernel.attributes(of: file).bytes(state, in: range) < range.size
    }

    // MARK: contents

    /// The byte that an actor finds: through a view for hosts and children, at a guest-physical address for vCPUs.
    /// Changes nothing.
    ///
    /// - Returns: nil if there is no such view, or the byte is outside of it.
    public func visible(of place: Place, by actor: Actor) -> VisibleByte? {
        let view: ModelMachine.View?
        switch actor {
        case .vcpu:
            return machine.vms[machine.setup.main].map {
                machine.kernel.visibleToGuest($0, at: machine.address(place.offset, in: place.name))
            }
        case .host: view = machine.views[place.name]
        case .child(let number): view = machine.children[number]?[place.name]
        }
        guard let view, place.offset < machine.kernel.length(of: view.mapping) else { return nil }
        return machine.kernel.visibleToHost(view.mapping, at: place.offset)
    }

    /// The state of a page of a file; nil if there is no such file or page.
    public func state(of place: Place) -> PageState? {
        file(place.name).flatMap { machine.kernel.attributes(of: $0).value(at: place.offset) }
    }

    /// Whether this byte of a file is undefined, because a conversion promised nothing about contents.
    public func isUndefined(_ place: Place) -> Bool {
        file(place.name).map { machine.kernel.byte($0, at: place.offset) } == .unknown
    }

    private func file(_ name: Name) -> FileID? {
        machine.files[name].map { machine.kernel.file(of: $0) }
    }
}

extension StepOutcome {
    /// Whether a conversion has found a page in use.
    package var isInUse: Bool {
        if case .errno(ErrorNumber.resourceTemporarilyUnavailable.rawValue, _) = self { true } else { false }
    }
}

extension Action {
    /// Whether a vCPU may have a memory fault for which the monitor converts.
    fileprivate var mayFault: Bool { isAccess || self == .again }
}

extension Oracle.Problem {
    package init(_ stop: Stop) {
        switch stop {
        case .skip(let reason), .broken(let reason): description = reason
        case .brokenStep(let failure): description = failure.seen
        case .host(let failure): description = "\(failure.call): \(failure.error.name)"
        }
    }
}
