// SPDX-License-Identifier: MIT
import ConversionModel

// The pieces of a vCPU's steps.
extension Position {
    package mutating func guestAccess(
        _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        guard case .vcpu(let number) = step.actor, let extent = step.action.extent else {
            return try machine.perform(step)
        }
        let vm = try machine.vm(nil)
        if case .faulted(let fault, let onFault) = phase {
            return try convert(fault, onFault, of: step, number, &machine)
        }
        if phase == .releasing {
            if let reference = references.popLast() {
                machine.kernel.endGuestFault(vm, at: extent.offset, reference)
            }
            phase = .begin
            return nil
        }
        if let (mapping, offset) = machine.kernel.hostPage(vm, at: extent.offset) {
            switch have(offset, of: mapping, toWrite: false, &machine.kernel) {
            case .notYet: return nil
            case .had:
                phase = .releasing
                return nil
            // The access itself determines the outcome.
            case .none: break
            }
        } else if let fault {
            // The memslot was deleted, and the fault continues with the page that it has found.
            machine.kernel.release(fault)
            self.fault = nil
            return nil
        } else if let found = machine.kernel.beginGuestFault(vm, at: extent.offset) {
            references = [found]
            phase = .releasing
            return nil
        }
        // A page is logged before it is written, and again if the log was read in between.
        if step.action.byteWritten != nil, !isLogged, machine.kernel.beginGuestWrite(vm, at: extent.offset) {
            isLogged = true
            return nil
        }
        guard step.onFault != nil else { return try machine.perform(step) }
        var seen = try machine.attempt(step, number)
        machine.noteMappedPages()
        guard phase != .convertedWithoutEffect, let (fault, onFault) = machine.faultToConvert(number) else {
            seen.conversions = conversions
            return seen
        }
        (phase, isLogged) = (.faulted(fault, onFault), false)
        return nil
    }

    /// Performs the conversion that a memory fault asks for. Afterwards the vCPU enters again.
    private mutating func convert(
        _ fault: MemoryFault, _ onFault: FaultConversion, of step: Step, _ number: Int,
        _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        var seen = try machine.convert(for: fault, onFault)
        conversions += seen.conversions
        guard seen.outcome == .ok, seen.oddity == nil else {
            machine.noteMappedPages()
            seen.conversions = conversions
            return try step.answerOfConversion(seen)
        }
        machine.vcpus[number]?.isStuck = false
        phase = machine.state(of: fault) ?? fault.wants == fault.wants ? .begin : .convertedWithoutEffect
        return nil
    }

    package mutating func again(_ step: Step, _ machine: inout ModelMachine) throws(Stop) -> Observation? {
        guard case .vcpu(let number) = step.actor else { return try machine.perform(step) }
        if repeated == nil {
            // Repeating an access that asks for no conversion is one piece.
            guard machine.vcpus[number]?.onFault != nil else { return try machine.perform(step) }
            repeated = try machine.takePending(number)
        }
        guard var access = repeated else { return nil }
        access.expectation = step.expectation
        return try guestAccess(access, &machine)
    }

    package mutating func preFault(
        _ extent: Extent, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        guard let range = PageRange(start: extent.offset, size: extent.size) else {
            return try machine.perform(step)
        }
        let vm = try machine.vm(nil)
        let gpa = range.start + done
        switch phase {
        case .asked(let isPrivate):
            if references.isEmpty, let (mapping, offset) = machine.kernel.hostPage(vm, at: gpa) {
                switch have(offset, of: mapping, toWrite: false, &machine.kernel) {
                case .notYet, .had: return nil
                case .none: return preFaulted(.badAddress, machine)
                }
            }
            let failure = machine.kernel.preFaultPage(vm, at: gpa, asPrivate: isPrivate)
            for reference in references { machine.kernel.release(reference) }
            references = []
            if let fault { machine.kernel.release(fault) }
            fault = nil
            if let failure { return preFaulted(failure, machine) }
            done += pageSize
            phase = .begin
            return done < range.size ? nil : Observation(.ok)
        default:
            phase = .asked(isPrivate: machine.kernel.isFaultedAsPrivate(vm, at: gpa))
            return nil
        }
    }

    /// A call that did a part is a success.
    private func preFaulted(_ failure: ErrorNumber, _ machine: ModelMachine) -> Observation {
        done > 0 ? Observation(.ok) : machine.answer(failure)
    }

    package mutating func hypercall(
        _ extent: Extent, _ attributes: UInt64, _ step: Step, _ machine: inout ModelMachine
    ) throws(Stop) -> Observation? {
        let call = try GuestReach.hypercall(extent, attributes)
        if done == 0 { try machine.enter(step.actor) }
        guard let request = MapRequest(call), let places = machine.places(of: request.range) else {
            return machine.answer(.invalidArgument)
        }
        guard let place = places.first(where: { $0.gpa >= extent.offset + done }) else {
            throw .broken("\(extent) is no longer in a memslot")
        }
        if let (errno, page) = try machine.convert(place, request) {
            return Observation(.errno(errno.rawValue, at: page))
        }
        done = place.gpa + place.bytes.size - extent.offset
        return done < extent.size ? nil : Observation(.ok)
    }
}
