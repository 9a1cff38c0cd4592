// SPDX-License-Identifier: MIT
import CKVMShim
import Testing

@testable import Debugger

struct BreakpointPlanTests {
    private func software(_ address: UInt64) -> Breakpoint {
        Breakpoint(kind: .software, address: address, size: 1)
    }

    @Test func softwareBreakpointsGetTheRegistersThatAreLeft() throws {
        let watch = Breakpoint(kind: .write, address: 0x80, size: 8)
        let plan = try BreakpointPlan((1...5).map { software($0) } + [watch])
        #expect(plan.registers == [watch, software(1), software(2), software(3)])
        #expect(plan.inCode == [software(4), software(5)])
        let request = plan.request(isStep: false)
        #expect(request.control == CKVM_GUESTDBG_ENABLE | CKVM_GUESTDBG_USE_SW_BP | CKVM_GUESTDBG_USE_HW_BP)
    }

    @Test func fiveThatNeedARegisterAreTooMany() throws {
        let hardware = (1...5).map { Breakpoint(kind: .hardware, address: $0, size: 1) }
        #expect(try BreakpointPlan(Array(hardware.prefix(4))).registers.count == 4)
        #expect(throws: DebugError.noBreakpointLeft(5)) { try BreakpointPlan(hardware) }
    }

    /// DR7 as the manual has it: G bits, then 4 bits a register for what and how long.
    @Test func registersAreEncoded() throws {
        let all = [
            Breakpoint(kind: .hardware, address: 1, size: 1), Breakpoint(kind: .write, address: 2, size: 2),
            Breakpoint(kind: .access, address: 4, size: 4), Breakpoint(kind: .read, address: 8, size: 8),
        ]
        let request = try BreakpointPlan(all).request(isStep: true)
        #expect(request.debugreg.7 == 0xbf50_04aa)
        #expect(
            request.debugreg.0 == 1 && request.debugreg.1 == 2 && request.debugreg.2 == 4
                && request.debugreg.3 == 8)
        #expect(request.control == CKVM_GUESTDBG_ENABLE | CKVM_GUESTDBG_SINGLESTEP | CKVM_GUESTDBG_USE_HW_BP)
        #expect(try BreakpointPlan([]).request(isStep: false).control == 0)
    }

    /// Without registers that stop the guest, single steps do it, because INT3 may be the guest's then.
    @Test func stepsReplaceRegisters() throws {
        let facts = DebugFacts(stopsAtAddresses: false, watchesData: false)
        let hardware = Breakpoint(kind: .hardware, address: 1, size: 1)
        let write = Breakpoint(kind: .write, address: 8, size: 8)
        let plan = try BreakpointPlan([software(2), hardware, write], facts)
        #expect(plan.registers == [] && plan.inCode == [])
        #expect(plan.compared == [hardware, write, software(2)])
        #expect(
            plan.request(isStep: false).control == CKVM_GUESTDBG_ENABLE | CKVM_GUESTDBG_SINGLESTEP)
        for kind in [Breakpoint.Kind.read, .access] {
            #expect(throws: DebugError.unwatchedReads(16)) {
                try BreakpointPlan([Breakpoint(kind: kind, address: 16, size: 8)], facts)
            }
        }
        #expect(
            try BreakpointPlan([hardware, write], DebugFacts(watchesData: false)).registers == [
                hardware
            ])
    }

    /// The fifth and the sixth breakpoint: one is in memory that the monitor cannot write.
    @Test func stepsReplaceCodeThatCannotBeWritten() throws {
        let plan = try BreakpointPlan((1...6).map { software($0) }) { $0 != 5 }
        #expect(plan.registers == (1...4).map { software($0) })
        #expect(plan.inCode == [software(6)] && plan.compared == [software(5)])
        let control = plan.request(isStep: false).control
        #expect(control & CKVM_GUESTDBG_SINGLESTEP != 0 && control & CKVM_GUESTDBG_USE_SW_BP != 0)
    }

    @Test func aGuestThatNothingStopsGetsNoBreakpoint() throws {
        let facts = DebugFacts(hits: 0)
        for breakpoint in [software(1), Breakpoint(kind: .hardware, address: 1, size: 1)] {
            #expect(throws: DebugError.neverStops(1)) { try BreakpointPlan([breakpoint], facts) }
        }
        #expect(try BreakpointPlan([], facts).compared.isEmpty)
    }

    @Test func factsOfTheTrial() {
        #expect(DebugFacts(hits: 0b1111) == DebugFacts())
        #expect(
            DebugFacts(hits: 0)
                == DebugFacts(stopsAtAddresses: false, watchesData: false, steps: false, stopsInRing3: false))
        // The emulated CPU of the lab.
        #expect(DebugFacts(hits: 0b11_0000) == DebugFacts(stopsAtAddresses: false, watchesData: false))
        // kvm-pvm; then one that watches data in ring 0 alone.
        #expect(DebugFacts(hits: 0b0001) == DebugFacts(watchesData: false, stopsInRing3: false))
        #expect(DebugFacts(hits: 0b0111) == DebugFacts(watchesData: false))
    }

    @Test func watchpointsAreAligned() {
        func isPossible(_ address: UInt64, _ size: UInt64) -> Bool {
            Breakpoint(kind: .write, address: address, size: size).isPossible
        }
        #expect(isPossible(7, 1) && isPossible(6, 2) && isPossible(4, 4) && isPossible(8, 8))
        #expect(
            !isPossible(7, 2) && !isPossible(4, 8) && !isPossible(0, 0) && !isPossible(0, 3)
                && !isPossible(0, .max))
        #expect(software(.max).isPossible)
    }
}

struct RunStateTests {
    private typealias Stop = RunState.Stop
    private func trap(_ vcpu: Int, _ kind: StopReason.Kind = .plain) -> Stop {
        Stop(vcpu: vcpu, signal: .trap, kind: kind)
    }

    /// Enters all vCPUs, each on its own thread.
    private func running(_ vcpus: Int) -> Driven {
        let state = Driven(vcpus: vcpus)
        _ = state.interrupt()
        _ = state.takeStop()
        #expect(state.resume(Array(repeating: .run, count: vcpus)))
        for vcpu in 0..<vcpus { #expect(state.enter(vcpu, key: vcpu, skips: false) == .enter) }
        return state
    }

    @Test func nothingRunsBeforeItIsResumed() {
        let state = Driven(vcpus: 1)
        #expect(state.enter(0, key: 0, skips: false) == nil && state.hasStopped)
        #expect(state.resume([.run]) && state.enter(0, key: 0, skips: false) == .enter && !state.hasStopped)
    }

    @Test func theStopIsReportedWhenAllHaveStopped() {
        let state = running(2)
        #expect(state.add(trap(1, .hardwareBreakpoint)))
        #expect(state.takeStop() == nil)
        #expect(state.enter(1, key: 1, skips: false) == nil && state.takeStop() == nil)
        #expect(state.enter(0, key: 0, skips: false) == nil)
        #expect(state.takeStop() == trap(1, .hardwareBreakpoint) && state.takeStop() == nil)
    }

    /// A second vCPU at a watchpoint is reported when the guest is resumed, without running; one at a breakpoint comes there
    /// again.
    @Test func laterStopsAreKeptIfTheyWouldBeLost() {
        let state = running(3)
        #expect(state.add(trap(0, .softwareBreakpoint)))
        #expect(!state.add(trap(1, .watchpoint(.write, 8))) && !state.add(trap(2, .softwareBreakpoint)))
        for vcpu in 0..<3 { #expect(state.enter(vcpu, key: vcpu, skips: false) == nil) }
        #expect(state.takeStop() == trap(0, .softwareBreakpoint))
        #expect(state.resume([.run, .run, .run]) && state.enter(0, key: 0, skips: false) == nil)
        #expect(state.takeStop() == trap(1, .watchpoint(.write, 8)))
        #expect(state.resume([.run, .run, .run]) && state.takeStop() == nil)
        #expect(state.enter(0, key: 0, skips: false) == .enter)
    }

    @Test func aThreadWithoutAnActionStays() {
        let state = Driven(vcpus: 2)
        #expect(state.resume([nil, .step]))
        #expect(state.enter(0, key: 0, skips: false) == nil && state.enter(0, key: 0, skips: true) == .skip)
        #expect(state.enter(1, key: 1, skips: false) == .enter && state.action(of: 0) == nil)
    }

    @Test func aGuestThatHasHaltedCannotBeResumedAlone() {
        let state = running(2)
        #expect(!state.halt(0))
        state.leave(0)
        #expect(state.interrupt())
        #expect(state.enter(1, key: 1, skips: false) == nil && state.takeStop()?.signal == .interrupt)
        #expect(!state.resume([.run, nil]) && state.resume([.run, .run]))
    }

    /// If the only vCPU that may run halts, the others must not wait for ever.
    @Test func haltingStopsTheGuestIfNothingElseMayRun() {
        let state = Driven(vcpus: 2)
        #expect(state.resume([.run, nil]) && state.enter(0, key: 0, skips: false) == .enter)
        #expect(state.halt(0))
        state.leave(0)
        #expect(state.takeStop() == trap(0))
    }

    @Test func aCrashEndsTheGuestOnlyAfterItsReport() {
        let state = running(2)
        let crash = Stop(vcpu: 0, signal: .segmentationFault, kind: .plain, endsGuest: true)
        #expect(state.add(crash))
        state.leave(0)
        #expect(!state.mayEnd(0) && state.enter(1, key: 1, skips: false) == nil)
        #expect(state.takeStop() == crash && !state.mayEnd(0))
        #expect(state.resume([.run, .run]) && state.mayEnd(0) && !state.mayEnd(1))
    }

    @Test func detachingLetsEverythingGoOn() {
        let state = running(1)
        #expect(state.interrupt())
        #expect(state.enter(0, key: 0, skips: false) == nil)
        state.detach()
        #expect(state.enter(0, key: 0, skips: false) == .enter && !state.add(trap(0)) && state.mayEnd(0))
        // The next debugger stops it again.
        #expect(state.interrupt() && state.enter(0, key: 0, skips: false) == nil && state.takeStop() != nil)
    }

    @Test func theEndWinsOverEverything() {
        let state = running(1)
        state.end()
        #expect(state.enter(0, key: 0, skips: false) == .end && state.mayEnd(0))
        state.detach()
        #expect(state.enter(0, key: 0, skips: false) == .end && !state.interrupt())
        #expect(state.resume([.run]) && !state.interrupt() && !state.add(trap(0)) && state.mayEnd(0))
        #expect(state.enter(0, key: 0, skips: false) == .end)
    }
}

/// A state whose changes can stand in `#expect`.
private final class Driven {
    private var state: RunState

    init(vcpus: Int) { state = RunState(vcpus: vcpus) }

    var hasStopped: Bool { state.hasStopped }
    func resume(_ actions: [ResumeAction?]) -> Bool { state.resume(actions) }
    func interrupt() -> Bool { state.interrupt() }
    func takeStop() -> RunState.Stop? { state.takeStop() }
    func enter(_ vcpu: Int, key: Int, skips: Bool) -> RunState.Entry? {
        state.enter(vcpu, key: key, skips: skips)
    }
    func add(_ stop: RunState.Stop) -> Bool { state.add(stop) }
    func halt(_ vcpu: Int) -> Bool { state.halt(vcpu) }
    func action(of vcpu: Int) -> ResumeAction? { state.action(of: vcpu) }
    func leave(_ key: Int) { state.leave(key) }
    func mayEnd(_ vcpu: Int) -> Bool { state.mayEnd(vcpu) }
    func detach() { state.detach() }
    func end() { state.end() }
}
