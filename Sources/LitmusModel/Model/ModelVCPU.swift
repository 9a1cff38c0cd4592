// SPDX-License-Identifier: MIT
import ConversionModel

// Steps of vCPUs. The model answers accesses; no instruction is executed.
extension ModelMachine {
    package mutating func guestStep(
        _ step: Step, _ number: Int, _ placeWithoutMemory: UInt64?
    ) throws(Stop) -> Observation {
        let action = step.action
        let vm = try vm(nil)
        if case .hypercall(let extent, let attributes) = action {
            let call = try GuestReach.hypercall(extent, attributes)
            try enter(.vcpu(number))
            if kernel.type(of: vm).isConfidential { return try requestState(extent, attributes, vm) }
            guard let request = MapRequest(call), let places = places(of: request.range) else {
                return answer(.invalidArgument)
            }
            for place in places {
                guard let (errno, page) = try convert(place, request) else { continue }
                return Observation(.errno(errno.rawValue, at: page))
            }
            return Observation(.ok)
        }
        defer { noteMappedPages() }
        switch action {
        case .preFault(let extent): return preFault(extent, vm)
        case .clock(let place):
            vcpus[number, default: VCPU()].clock = place.offset
            return Observation(.ok)
        case .again:
            let pending = try takePending(number)
            let seen = try access(pending, number, placeWithoutMemory)
            return try pending.answerOfConversion(seen, of: step)
        case .read, .write, .fill, .check:
            return try step.answerOfConversion(access(step, number, placeWithoutMemory))
        case .confidential(let action):
            try enter(.vcpu(number))
            return try performInGuest(action, step, vm)
        default: throw .broken("a vCPU does not \(action)")
        }
    }

    /// The access that a stopped vCPU repeats. The vCPU is no longer stopped.
    package mutating func takePending(_ number: Int) throws(Stop) -> Step {
        guard let vcpu = vcpus[number], vcpu.isStuck, let pending = vcpu.pending else {
            throw .noAccessToRepeat(number)
        }
        vcpus[number]?.isStuck = false
        return pending
    }

    /// Performs an access, and the conversions that its memory faults ask for.
    private mutating func access(
        _ step: Step, _ number: Int, _ placeWithoutMemory: UInt64?
    ) throws(Stop) -> Observation {
        var seen = try attempt(step, number)
        guard step.onFault != nil else { return seen }
        var conversions: [FileConversion] = []
        var oddity: String?
        var converted: Set<UInt64> = []
        // If a conversion does not help, the access faults for ever, because no other actor runs.
        while let (fault, onFault) = faultToConvert(number), converted.insert(fault.gpa).inserted {
            var answer = Observation(.errno(ErrorNumber.noMemory.rawValue, at: fault.gpa))
            if fault.gpa != placeWithoutMemory { answer = try convert(for: fault, onFault) }
            conversions += answer.conversions
            oddity = oddity ?? answer.oddity
            guard answer.outcome == .ok else {
                if seen.outcome != .mmio { seen.outcome = answer.outcome }
                break
            }
            vcpus[number]?.isStuck = false
            seen = try attempt(step, number)
        }
        seen.conversions = conversions
        seen.oddity = oddity
        return seen
    }

    /// The base of the count of `zapped`.
    package mutating func noteMappedPages() { if let pages = try? countPages() { mappedPages = pages } }

    /// Pages in the second-stage tables of the test's VM.
    package mutating func countPages() throws(Stop) -> UInt64 {
        let vm = try vm(nil)
        return kernel.mappedPages(of: vm) + UInt64(guestPages.nonzeroBitCount)
    }

    /// A vCPU enters the guest: KVM writes its clock first, and the agent's pages are mapped.
    package mutating func enter(_ actor: Actor) throws(Stop) {
        guard case .vcpu(let number) = actor else { return }
        let vm = try vm(nil)
        var vcpu = vcpus[number] ?? VCPU()
        guard !vcpu.isStuck else { throw .vcpuIsStuck(number) }
        guestPages |= GuestReach.agentPages(hasTwoAliases: setup.sharedBit != nil)
        if let gpa = vcpu.clock {
            vcpu.clock = nil
            writeClock(at: gpa, vm)
        }
        vcpus[number] = vcpu
    }

    /// `struct pvclock_vcpu_time_info`: an even version first. The model has no time to write after it.
    private mutating func writeClock(at gpa: UInt64, _ vm: VMID) {
        guard let (file, offset) = kernel.reachForKVM(vm, at: gpa, size: 32) else { return }
        var version: UInt32 = 0
        for index in 0..<4 as Range<UInt64> {
            guard case .known(let byte) = kernel.byte(file, at: offset + index) else { continue }
            version |= UInt32(byte) << UInt32(index * 8)
        }
        version = (version | 1) &+ 1
        for index in 0..<4 as Range<UInt64> {
            kernel.fill(
                file, at: offset + index, count: 1,
                with: UInt8(truncatingIfNeeded: version >> UInt32(index * 8)))
        }
    }

    private mutating func preFault(_ extent: Extent, _ vm: VMID) -> Observation {
        guard let range = PageRange(start: extent.offset, size: extent.size) else {
            return answer(.invalidArgument)
        }
        for page in range.chunks(of: pageSize) {
            let isPrivate = kernel.isFaultedAsPrivate(vm, at: page.start)
            guard let failure = kernel.preFaultPage(vm, at: page.start, asPrivate: isPrivate) else {
                continue
            }
            // A call that did a part is a success.
            return page.start == range.start ? answer(failure) : Observation(.ok)
        }
        return Observation(.ok)
    }

    // MARK: accesses

    /// The guest-physical address of a place of a vCPU, with the shared bit for the shared alias.
    package func address(_ offset: UInt64, in name: Name) -> UInt64 {
        guard name == .shared, let bit = setup.sharedBit else { return offset }
        return offset | 1 << UInt64(bit)
    }

    /// Continues an access until it completes or the vCPU exits.
    package mutating func attempt(_ step: Step, _ number: Int) throws(Stop) -> Observation {
        let action = step.action
        guard let extent = action.extent else { throw .broken("a vCPU does not \(action)") }
        try GuestReach.check(extent)
        guard extent.size <= GuestReach.mostBytes else { throw .guestStepTooLong }
        let vm = try vm(nil)
        try enter(.vcpu(number))
        let (seen, stop) = try access(extent, action, vm)
        var vcpu = VCPU(clock: vcpus[number]?.clock)
        if stop != nil, action.isSingle { vcpu.pending = step }
        if case .stuck(let fault) = stop {
            (vcpu.isStuck, vcpu.fault, vcpu.onFault) = (true, fault, step.onFault)
        }
        vcpus[number] = vcpu
        return seen
    }

    private enum Unfinished {
        /// The access was stopped by a memory fault or by something else.
        case stuck(MemoryFault?)
        /// Memory-mapped I/O, which the monitor has answered.
        case mmio
    }

    /// - Returns: the outcome, and why the access was not made as requested; nil if it was.
    private mutating func access(
        _ extent: Extent, _ action: Action, _ vm: VMID
    ) throws(Stop) -> (Observation, Unfinished?) {
        let written = action.byteWritten
        let end = extent.offset + extent.size
        var isMMIO = false
        var answer = Observation(.ok)
        // A step ends at the first thing that stops it. An earlier difference has precedence.
        func stop(_ outcome: StepOutcome, _ fault: MemoryFault? = nil) -> (Observation, Unfinished?) {
            (Observation(isMMIO ? .mmio : outcome), .stuck(fault))
        }
        var offset = extent.offset
        // All bytes of a page have the same outcome.
        while offset < end {
            let count = min(end, (offset & ~(pageSize - 1)) + pageSize) - offset
            switch kernel.reach(vm, address(offset, in: extent.name), toWrite: written != nil) {
            case .memory(let file, let place, let key):
                if let written {
                    kernel.fill(file, at: place, count: count, with: written, key: key)
                } else if case .check(_, let byte) = action {
                    let other = kernel.firstByte(
                        in: file, at: place, count: count, otherThan: byte, with: key)
                    if let other {
                        var seen = Observation(
                            isMMIO ? .mmio : .differs(at: offset + (other.offset - place)))
                        seen.isAnyByte = !isMMIO && other.byte == .unknown
                        return (seen, isMMIO ? .mmio : nil)
                    }
                } else {
                    answer = Observation(kernel.byte(file, at: place, with: key), at: place)
                }
            case .stopped(.mmio):
                isMMIO = true
                // The monitor answers a read with zeros, and a comparison ends where it finds another byte.
                if case .check(_, let byte) = action, byte != 0 { return (Observation(.mmio), .mmio) }
            case .stopped(.fault(let fault)):
                guard !kernel.rules.faults.contains(.faultReturnsSuccess) else {
                    throw .broken("KVM_RUN returned 0 with KVM_EXIT_MEMORY_FAULT")
                }
                return stop(.fault(fault.wants, at: fault.gpa), fault)
            case .stopped(.poisoned(let fault)):
                return stop(.errno(ErrorNumber.hardwarePoisoned.rawValue, at: fault.gpa))
            case .stopped(.noPage), .stopped(.byte): return stop(.errno(ErrorNumber.badAddress.rawValue))
            // The guest's handler goes on, so the vCPU is not stuck. Nor is that of a dead VM: it fails again.
            case .stopped(.exception(let exception)):
                return (Observation(.status(exception == .vc ? .vc : .ve, at: offset)), nil)
            case .stopped(.error(let error)): return (Observation(.errno(error.rawValue)), nil)
            }
            offset += count
        }
        return isMMIO ? (Observation(.mmio), .mmio) : (answer, nil)
    }
}
