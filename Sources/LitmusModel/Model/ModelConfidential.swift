// SPDX-License-Identifier: MIT
import ConversionModel

// Steps that only SNP and TDX VMs have.
extension ModelMachine {
    /// A page state change or MapGPA. The monitor answers each exit with one call, and the guest learns how far it came.
    package mutating func requestState(_ extent: Extent, _ attributes: UInt64, _ vm: VMID) throws(Stop)
        -> Observation
    {
        guard Attributes.state(attributes) != nil,
            let range = PageRange(start: extent.offset, size: extent.size)
        else { return Observation(.status(.invalid)) }
        if let error = kernel.runError(vm) { return answer(error) }
        let isTDX = kernel.type(of: vm) == .tdx
        guard let places = places(of: range) else {
            let ret = takeNextAnswer() ?? UInt64(ErrorNumber.invalidArgument.rawValue)
            return requestEnd(ret, at: range.start, isTDX) ?? Observation(.ok)
        }
        // KVM exits once for 2 MiB of MapGPA, and for neighbouring entries of a page state change, which has 253.
        let exit = isTDX ? 2 << 20 : 253 * pageSize
        for place in places {
            for part in place.bytes.chunks(of: exit) {
                let conversion = Conversion(
                    Extent(place.file, offset: part.start, size: part.size), attributes: attributes)
                let ret: UInt64
                if let given = takeNextAnswer() {
                    ret = given
                } else {
                    ret = try convert(conversion).outcome.requestAnswer
                }
                let resume = place.gpa + (part.start - place.bytes.start)
                if let end = requestEnd(ret, at: resume, isTDX) { return end }
            }
        }
        return Observation(.ok)
    }

    private mutating func takeNextAnswer() -> UInt64? {
        defer { nextAnswer = nil }
        return nextAnswer
    }

    /// How a request ends after the monitor has answered one of its exits; nil if it goes on.
    ///
    /// - Parameters:
    ///   - ret: `hypercall.ret`.
    ///   - gpa: the first page of the exit.
    private func requestEnd(_ ret: UInt64, at gpa: UInt64, _ isTDX: Bool) -> Observation? {
        do throws(ErrorNumber) {
            switch try kernel.requestAnswer(ret) {
            case .done: return nil
            case .busy where isTDX: return Observation(.status(.retry, at: gpa))
            case .busy, .refused: return Observation(.status(isTDX ? .invalid : .refused, at: gpa))
            }
        } catch {
            return answer(error)
        }
    }

    /// PVALIDATE or TDG.MEM.PAGE.ACCEPT.
    package mutating func performInGuest(
        _ action: ConfidentialAction, _ step: Step, _ vm: VMID
    ) throws(Stop) -> Observation {
        guard let extent = action.extent, let range = PageRange(start: extent.offset, size: extent.size)
        else {
            throw .broken("a vCPU does not \(step.action)")
        }
        for page in range.chunks(of: pageSize) {
            let answer: ValidationAnswer
            let isLarge: Bool
            switch action {
            case .validate(_, let isValid, let large):
                answer = kernel.validate(vm, page.start, isValid, large ? .large : .small)
                isLarge = large
            case .accept(_, let large):
                answer = kernel.accept(vm, page.start, large ? .large : .small)
                isLarge = large
            default: throw .broken("a vCPU does not \(step.action)")
            }
            if answer != .done { return observation(answer, at: page.start) }
            // One operand of 2 MiB covers the whole range.
            if isLarge { break }
        }
        return Observation(.ok)
    }

    private func observation(_ answer: ValidationAnswer, at gpa: UInt64) -> Observation {
        switch answer {
        case .done: Observation(.ok)
        case .unchanged: Observation(.status(.unchanged, at: gpa))
        case .invalid: Observation(.status(.invalid, at: gpa))
        case .sizeMismatch: Observation(.status(.sizeMismatch, at: gpa))
        case .stopped(.fault(let fault)), .stopped(.poisoned(let fault)):
            Observation(.fault(fault.wants, at: fault.gpa))
        case .stopped(.exception(let exception)):
            Observation(.status(exception == .vc ? .vc : .ve, at: gpa))
        case .stopped(.error(let error)): Observation(.errno(error.rawValue))
        case .stopped(.mmio), .stopped(.noPage), .stopped(.byte):
            Observation(.errno(ErrorNumber.badAddress.rawValue))
        }
    }

    /// A step of the host on an SNP or TDX VM.
    package mutating func perform(_ action: ConfidentialAction, _ step: Step) throws(Stop) -> Observation {
        let vm = try vm(nil)
        let range = action.extent.flatMap { PageRange(start: $0.offset, size: $0.size) }
        do throws(ErrorNumber) {
            switch action {
            case .finalize: try kernel.finalize(vm)
            case .raiseVE: kernel.raiseVE(vm)
            case .track: kernel.track(vm)
            case .answer(let number): nextAnswer = number
            case .launch:
                if let range { try kernel.launch(vm, range) }
            case .take:
                if let range { try kernel.takeAway(vm, range) }
            case .remap(let gpa, let place):
                guard let descriptor = files[place.name] else { throw .badFileDescriptor }
                try kernel.move(vm, gpa, to: kernel.file(of: descriptor), at: place.offset)
            case .block, .remove:
                guard let range else { throw .invalidArgument }
                do throws(TDXRefusal) {
                    if case .block = action {
                        try kernel.block(vm, range)
                    } else {
                        try kernel.remove(vm, range)
                    }
                } catch {
                    return Observation(.status(error.status, at: range.start))
                }
            case .validate, .accept: throw .invalidArgument
            }
            return Observation(.ok)
        } catch {
            return answer(error)
        }
    }
}

extension TDXRefusal {
    fileprivate var status: ArchitectureStatus {
        switch self {
        case .notBlocked: .notBlocked
        case .notTracked: .notTracked
        case .wrongState: .wrongState
        }
    }
}

extension StepOutcome {
    /// The value that a correct monitor writes into `hypercall.ret` after a conversion with this outcome.
    fileprivate var requestAnswer: UInt64 {
        if self == .ok { return 0 }
        return UInt64((isInUse ? ErrorNumber.resourceTemporarilyUnavailable : .invalidArgument).rawValue)
    }
}
