// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

// The operations of the server's thread on a stopped guest.
extension GuestDebugger: DebugTarget {
    package var threads: ClosedRange<Int> { 1...max(1, machine?.vcpus.count ?? 1) }

    private func vcpu(_ thread: Int) throws(DebugError) -> any KVMVCPU {
        guard let machine, machine.vcpus.indices.contains(thread &- 1) else { throw .noThread(thread) }
        return machine.vcpus[thread - 1]
    }

    private func view() throws(DebugError) -> GuestView {
        guard let machine else { throw .noThread(1) }
        return GuestView(machine)
    }

    /// Keeps an error for `monitor why`.
    private func noting<R>(_ body: () throws(DebugError) -> R) throws(DebugError) -> R {
        do throws(DebugError) {
            return try body()
        } catch {
            explanation.withLock { $0.error = error }
            throw error
        }
    }

    package func information(about thread: Int) -> String {
        let isHalted = read { $0.isHalted(thread - 1) } ?? false
        return "vCPU \(thread - 1)" + (isHalted ? " (halted)" : "")
    }

    // MARK: registers

    package func registers(of thread: Int) throws(DebugError) -> RegisterFile {
        let vcpu = try vcpu(thread)
        return RegisterFile(try general(vcpu), try special(vcpu))
    }

    private func general(_ vcpu: any KVMVCPU) throws(DebugError) -> ckvm_regs {
        do throws(Errno) { return try vcpu.registers() } catch { throw .call("KVM_GET_REGS", error) }
    }

    private func special(_ vcpu: any KVMVCPU) throws(DebugError) -> ckvm_sregs {
        do throws(Errno) { return try vcpu.specialRegisters() } catch { throw .call("KVM_GET_SREGS", error) }
    }

    package func setRegisters(
        of thread: Int, from old: RegisterFile, to new: RegisterFile
    ) throws(DebugError) {
        let vcpu = try vcpu(thread)
        if !old.hasSameSpecial(as: new) {
            do throws(Errno) { try vcpu.setSpecialRegisters(new.special) } catch {
                throw .call("KVM_SET_SREGS", error)
            }
        }
        do throws(Errno) { try vcpu.setRegisters(new.general) } catch { throw .call("KVM_SET_REGS", error) }
    }

    // MARK: memory

    package func read(_ thread: Int, at address: UInt64, count: Int) throws(DebugError) -> [UInt8] {
        let (view, special) = (try view(), try special(try vcpu(thread)))
        var bytes: [UInt8] = []
        while bytes.count < count {
            let here = address &+ UInt64(bytes.count)
            let piece = Int(min(UInt64(count - bytes.count), pageSize - here % pageSize))
            do throws(DebugError) {
                let place = try view.place(view.translate(here, special))
                let found = try view.read(at: place, count: piece)
                bytes += breakpoints.withLock { $0.patches.hidden(in: found, at: place.gpa) }
            } catch {
                explanation.withLock { $0.error = error }
                guard !bytes.isEmpty else { throw error }
                return bytes
            }
        }
        return bytes
    }

    package func write(_ thread: Int, at address: UInt64, _ bytes: [UInt8]) throws(DebugError) {
        let (view, special) = (try view(), try special(try vcpu(thread)))
        try noting { () throws(DebugError) in
            var done = 0
            while done < bytes.count {
                let here = address &+ UInt64(done)
                let piece = Int(min(UInt64(bytes.count - done), pageSize - here % pageSize))
                let place = try view.place(view.translate(here, special))
                let part = Array(bytes[done..<done + piece])
                var changed = breakpoints.withLock { $0.patches }
                try view.write(at: place, changed.kept(in: part, at: place.gpa))
                breakpoints.withLock { [changed] in $0.patches = changed }
                done += piece
            }
        }
    }

    // MARK: breakpoints

    package func begin() {
        clearBreakpoints()
        explanation.withLock { $0.stopsAtFaults = false }
    }

    private func clearBreakpoints() {
        try? change(breakpointsTo: [], by: 1)
    }

    package func insert(_ breakpoint: Breakpoint, by thread: Int) throws(DebugError) {
        try noting { () throws(DebugError) in
            guard breakpoint.isPossible else { throw .unwatchable(breakpoint.address, size: breakpoint.size) }
            let now = breakpoints.withLock { $0.set }
            guard !now.contains(breakpoint) else { return }
            guard now.count < Self.mostBreakpoints else { throw .noBreakpointLeft(breakpoint.address) }
            do throws(DebugError) {
                try change(breakpointsTo: now + [breakpoint], by: thread)
            } catch {
                try? change(breakpointsTo: now, by: thread)
                throw error
            }
        }
    }

    private static let mostBreakpoints = 1024

    package func remove(_ breakpoint: Breakpoint) throws(DebugError) {
        let left = breakpoints.withLock { $0.set.filter { $0 != breakpoint } }
        try noting { () throws(DebugError) in try change(breakpointsTo: left, by: 1) }
    }

    private func change(breakpointsTo new: [Breakpoint], by thread: Int) throws(DebugError) {
        let (view, special) = (try view(), try special(try vcpu(thread)))
        let plan = try BreakpointPlan(new, new.isEmpty ? DebugFacts() : facts()) {
            view.canPatch($0, special)
        }
        for watched in plan.compared where watched.kind.isWatchpoint {
            try view.checkReadable(watched, special)
        }
        try breakpoints.withLock { state throws(DebugError) in
            state.bytes = [:]
            try state.patches.set(plan.inCode, view, special)
            state.set = new
            state.plan = plan
        }
    }

    /// The abilities of this backend's debug registers. The first call tries them out.
    private func facts() -> DebugFacts {
        if let known = breakpoints.withLock({ $0.facts }) { return known }
        guard let machine else { return DebugFacts() }
        let found = DebugProbe.facts(of: machine.backend, like: machine.configuration)
        breakpoints.withLock { $0.facts = found }
        return found
    }

    /// Tells each vCPU what to stop for.
    private func apply(_ chosen: [ResumeAction?]) throws(DebugError) {
        guard let machine else { return }
        let current = breakpoints.withLock { state in
            if let first = machine.vcpus.first { _ = state.noteChange(seenBy: first, machine) }
            return state.plan
        }
        let none = try BreakpointPlan([])
        let plan = current ?? none
        for (vcpu, action) in zip(machine.vcpus, chosen) {
            let isStep = if case .step? = action { true } else { false }
            let request = plan.request(isStep: isStep)
            if action != nil, request.control & CKVM_GUESTDBG_SINGLESTEP != 0, try special(vcpu).cs.dpl == 3,
                !facts().stopsInRing3
            {
                throw .cannotStepRing3(vcpu.id)
            }
            guard breakpoints.withLock({ $0.applied[vcpu.id] })?.isEqual(to: request) != true else {
                continue
            }
            do throws(Errno) { try vcpu.setGuestDebug(request) } catch {
                throw .call("KVM_SET_GUEST_DEBUG", error)
            }
            breakpoints.withLock { $0.applied[vcpu.id] = request }
        }
    }

    // MARK: running

    package func resume(_ actions: [Int: ResumeAction]) throws(DebugError) {
        let chosen = threads.map { actions[$0] }
        try noting { () throws(DebugError) in try apply(chosen) }
        var canRun = true
        change { state in
            canRun = state.resume(chosen)
            return false
        }
        guard canRun else { throw .nothingToRun }
    }

    package func interrupt() { change { $0.interrupt() } }

    package func takeStop() -> StopReason? {
        var stop: RunState.Stop?
        change { state in
            stop = state.takeStop()
            return false
        }
        return stop.map { StopReason(thread: $0.vcpu + 1, signal: $0.signal, kind: $0.kind) }
    }

    package func detach() {
        begin()
        try? apply(threads.map { _ in nil })
        change { state in
            state.detach()
            return false
        }
    }

    package func kill() { machine?.stop(.interrupted(signal: Int32(DebugSignal.kill.rawValue))) }
}

extension RegisterFile {
    fileprivate func hasSameSpecial(as other: RegisterFile) -> Bool {
        let (one, two) = (special, other.special)
        return one.fs.base == two.fs.base && one.gs.base == two.gs.base && one.cr0 == two.cr0
            && one.cr2 == two.cr2
            && one.cr3 == two.cr3 && one.cr4 == two.cr4 && one.cr8 == two.cr8 && one.efer == two.efer
    }
}
