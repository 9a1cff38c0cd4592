// SPDX-License-Identifier: MIT
import ConversionModel

// The pieces of the steps that access pages through a host mapping, and of other steps of more than one piece.
extension Position {
    /// The number of pages on which one system call holds references while it copies.
    private static let mostPages = 16

    package enum Page {
        case notYet
        case had
        case none
    }

    /// Performs the next piece of getting a page of a view.
    ///
    /// - Parameters:
    ///   - toWrite: whether the page will be written.
    ///   - isHeld: whether a reference is needed.
    package mutating func have(
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

    package mutating func access(_ step: Step, _ machine: inout ModelMachine) throws(Stop) -> Observation? {
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

    package mutating func populate(
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
    package mutating func fail(
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

    package mutating func hold(
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

    package mutating func release(
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
    package mutating func unmap(
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

    package mutating func delete(
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
    package mutating func convertGuest(
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

    package mutating func present(
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
}
