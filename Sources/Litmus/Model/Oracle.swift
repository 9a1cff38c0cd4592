// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
public import SoftKVM
import SystemPackage

/// The model as a judge: it is led through a program step by step, says before each what a kernel may answer and after each
/// what every actor may see of every byte, and follows a kernel that has chosen.
///
/// What a kernel is free in, when nobody acts meanwhile: a conversion that has something to write down may find no memory
/// (`ENOMEM`, at its start, nothing changed); and the bytes of a page whose conversion promised nothing are any bytes.
public struct Oracle: Sendable {
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

    private var machine: ModelMachine

    /// - Parameters:
    ///   - test: its header says what the machine is. Its body says which descriptors and views are used after their end.
    ///   - configuration: the version of the interface.
    public init(
        _ test: LitmusTest, _ configuration: SoftKVM.Configuration = SoftKVM.Configuration()
    ) throws(Problem) {
        do throws(Stop) {
            machine = try ModelMachine(ModelMachine.Setup(configuration.configured(for: test), test))
        } catch {
            throw Problem(error)
        }
    }

    // MARK: answers

    /// What a kernel may answer to this step now. Nothing is done.
    public func answers(to step: Step) throws(Problem) -> Answers {
        var copy = self
        return try copy.perform(step)
    }

    /// Follows a kernel: the step was done, and this came of it.
    ///
    /// - Returns: whether it may.
    @discardableResult
    public mutating func follow(_ step: Step, _ seen: StepOutcome) throws(Problem) -> Bool {
        if case .convert(let conversion) = step.action, seen == Self.noMemory(conversion),
            mayGrow(conversion)
        {
            return true
        }
        return try perform(step).contains(seen)
    }

    /// Does the step as the model does it.
    ///
    /// - Returns: what a kernel may answer.
    public mutating func perform(_ step: Step) throws(Problem) -> Answers {
        do throws(Stop) {
            let before = machine
            let seen = try machine.perform(step)
            var answers = Answers(model: seen.outcome, isAnyByte: seen.isAnyByte)
            switch step.action {
            case .convert(let conversion)
            where seen.outcome == .ok && Self(machine: before).mayGrow(conversion):
                answers.others.append(Self.noMemory(conversion))
            // A kernel that is built with the call takes no attribute where it converts in place; one that is not has no call.
            case .setAttributes(_, let attributes, 0, _)
            where seen.outcome == .errno(Errno.inappropriateIOCTLForDevice.rawValue):
                answers.others.append(attributes == 0 ? .ok : .errno(Errno.invalidArgument.rawValue))
            default: break
            }
            return answers
        } catch {
            throw Problem(error)
        }
    }

    private init(machine: ModelMachine) { self.machine = machine }

    private static func noMemory(_ conversion: Conversion) -> StepOutcome {
        .errno(Errno.noMemory.rawValue, at: conversion.extent.offset)
    }

    /// Whether the conversion has something to write down.
    private func mayGrow(_ conversion: Conversion) -> Bool {
        guard let file = file(conversion.extent.name),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= machine.kernel.size(of: file), let state = Attributes.state(conversion.attributes)
        else { return false }
        return machine.kernel.attributes(of: file).bytes(state, in: range) < range.size
    }

    // MARK: what there is to see

    /// What an actor finds at a byte: through a view for hosts and children, at a guest-physical address for vCPUs. Looking
    /// changes nothing.
    ///
    /// - Returns: nil where there is no such view, or the byte is not in it.
    public func visible(of place: Place, by role: Role) -> VisibleByte? {
        let view: ModelMachine.View?
        switch role {
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

    /// Private or shared; nil without such a page.
    public func state(of place: Place) -> PageState? {
        file(place.name).flatMap { machine.kernel.attributes(of: $0).value(at: place.offset) }
    }

    /// Whether nobody can know the byte of a file.
    public func isUndefined(_ place: Place) -> Bool {
        file(place.name).map { machine.kernel.byte($0, at: place.offset) } == .unknown
    }

    private func file(_ name: Name) -> FileID? {
        machine.files[name].map { machine.kernel.file(of: $0) }
    }
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
