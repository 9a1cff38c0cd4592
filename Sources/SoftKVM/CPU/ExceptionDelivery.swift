// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Exceptions and INT n are delivered through the guest's own table: the IDT of 64-bit mode here, that of protected mode and the
// vector table of real mode in LegacyHandlers.swift. The engine only reports them. An exception that cannot be delivered, not even
// as a double fault, ends the run with KVM_EXIT_SHUTDOWN.
extension SoftVCPU {
    /// #GP(0).
    func generalProtection() -> Step { raise(CPUException(CPUException.generalProtection)) }
    /// #UD.
    func invalidOpcode() -> Step { raise(CPUException(CPUException.invalidOpcode)) }

    /// Delivers an exception or a software interrupt that the engine has reported.
    ///
    /// The engine takes a second #DE or #GP for a double fault, and a third one for a triple fault, because it never learns that
    /// the first was delivered here. Delivery never happens in the engine, so such a report is the exception itself. The engine
    /// reports no error code. It is 0 here, which is wrong for a selector that cannot be loaded.
    func raiseFromEngine(_ number: UInt32) -> Step {
        let code = codeAtRIP()
        if let length = Self.softwareInterrupt(code, number) { return interrupt(number, length) }
        guard number != CPUException.doubleFault else {
            return raise(
                CPUException(
                    Self.isDivision(code) ? CPUException.divideError : CPUException.generalProtection))
        }
        return number < 32 ? raise(CPUException(UInt8(number))) : generalProtection()
    }

    /// INT n, INT3, INTO and INT1. Returns the length of the instruction, or nil if the exception has another cause.
    private static func softwareInterrupt(_ code: [UInt8], _ number: UInt32) -> UInt64? {
        switch (code.first, number) {
        case (0xcc, 3), (0xce, 4), (0xf1, 1): 1
        case (0xcd, _) where code.count > 1 && number == code[1]: 2
        default: nil
        }
    }

    /// DIV and IDIV: F6 and F7 with /6 and /7.
    private static func isDivision(_ code: [UInt8]) -> Bool {
        let prefixes: Set<UInt8> = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3]
        var rest = code.drop { prefixes.contains($0) }
        if let rex = rest.first, rex & 0xf0 == 0x40 { rest = rest.dropFirst() }
        guard let opcode = rest.first, opcode & 0xfe == 0xf6, let operand = rest.dropFirst().first else {
            return false
        }
        return operand >> 3 & 6 == 6
    }

    /// A software interrupt returns to the next instruction and has no error code. Without a gate it is #GP with the gate's
    /// selector.
    private func interrupt(_ number: UInt32, _ length: UInt64) -> Step {
        let event = Event(
            vector: UInt64(number), next: registersNow.rip &+ length, code: nil, isSoftware: true)
        do throws(DeliveryFailure) {
            try enterHandler(event)
            return .proceed
        } catch {
            guard case .exception(let exception) = error else {
                let table = number << 3 | Event.isInterruptTable
                return raise(CPUException(CPUException.generalProtection, errorCode: table))
            }
            return raise(exception)
        }
    }

    /// Enters the guest's handler of an exception. If that raises another exception, its handler is entered, or the one of a
    /// double fault. The run ends if that one cannot be entered either.
    func raise(_ first: CPUException) -> Step {
        var exception = first
        while true {
            if let address = exception.address { special.cr2 = address }
            do throws(DeliveryFailure) {
                try enterHandler(
                    Event(
                        vector: UInt64(exception.vector), next: registersNow.rip, code: exception.errorCode,
                        isSoftware: false))
                return .proceed
            } catch {
                guard case .exception(let second) = error, let next = exception.followed(by: second) else {
                    return shutdown(first)
                }
                exception = next
            }
        }
    }

    /// What is delivered: an exception, or INT n.
    struct Event {
        let vector: UInt64
        /// RIP in the frame.
        let next: UInt64
        /// The error code, for a vector with one.
        let code: UInt32?
        /// INT n, which a gate may refuse.
        let isSoftware: Bool

        /// RFLAGS in the frame, for those at the event. RF is set for a fault, so that a breakpoint at its instruction does not stop
        /// the guest again.
        func flags(_ now: UInt64) -> UInt64 {
            // #DB may be a trap, #OF is one, and nothing goes on after #DF and #MC.
            let isFault = !isSoftware && ![1, 4, 8, 18].contains(vector)
            return now | (isFault ? 1 << 16 : 0)
        }

        /// Bit 0 of the error code of an exception that the delivery raises.
        var external: UInt32 { isSoftware ? 0 : 1 }
        /// Bit 1 of an error code: its selector is the number of a gate.
        static let isInterruptTable: UInt32 = 2
        /// The failure of the event's gate.
        func refused(_ exception: UInt8) -> DeliveryFailure {
            let gate = UInt32(truncatingIfNeeded: vector) << 3 | Self.isInterruptTable
            return .exception(CPUException(exception, errorCode: gate | external))
        }
    }

    /// - Throws: with nothing changed but the stack's memory.
    private func enterHandler(_ event: Event) throws(DeliveryFailure) {
        storeSpecial()
        if special.cr0 & 1 == 0 { return try enterRealModeHandler(event) }
        guard special.isLongModeActive else { return try enterProtectedModeHandler(event) }
        let gate = try gate(event)
        try enter(gate, handlerContext(gate.selector, isLong: true, external: event.external), event)
    }

    /// An interrupt or trap gate of the IDT.
    private struct Gate {
        let handler: UInt64
        let selector: UInt16
        /// The number of the stack in the TSS; 0 for the current one, or that of the handler's ring.
        let stack: UInt64
        let isInterruptGate: Bool
    }

    private func gate(_ event: Event) throws(DeliveryFailure) -> Gate {
        let offset = event.vector * 16
        guard offset + 15 <= UInt64(special.idt.limit) else {
            throw event.refused(CPUException.generalProtection)
        }
        let low = try readNumber(special.idt.base &+ offset, 8)
        let high = try readNumber(special.idt.base &+ offset &+ 8, 8)
        let (isPresent, type, privilege) = (low >> 47 & 1 == 1, low >> 40 & 0x1f, Int(low >> 45 & 3))
        guard type == 0xe || type == 0xf, !event.isSoftware || privilege >= currentRing else {
            throw event.refused(CPUException.generalProtection)
        }
        guard isPresent else { throw event.refused(CPUException.segmentNotPresent) }
        return Gate(
            handler: low & 0xffff | (low >> 48) << 16 | high << 32,
            selector: UInt16(truncatingIfNeeded: low >> 16), stack: low >> 32 & 7,
            isInterruptGate: type == 0xe)
    }

    /// Pushes a frame of 64-bit mode. The stack is one of the seven in the TSS if the gate says so, or that of an inner ring,
    /// or the current one.
    private func enter(
        _ gate: Gate, _ handler: HandlerContext, _ event: Event
    ) throws(DeliveryFailure) {
        let canonical = Int64(bitPattern: gate.handler) >> 47
        guard canonical == 0 || canonical == -1 else {
            throw .exception(CPUException(CPUException.generalProtection, errorCode: event.external))
        }
        let isInner = handler.ring < currentRing
        var top = registersNow.rsp
        if gate.stack > 0 {
            // IST1 is at offset 36 of a 64-bit TSS, and RSP0 at offset 4.
            top = try readTaskState(28 + gate.stack * 8, 8, external: event.external)
        } else if isInner {
            top = try readTaskState(4 + UInt64(handler.ring) * 8, 8, external: event.external)
        }
        top &= ~0xf
        var frame = [
            UInt64(special.ss.selector), registersNow.rsp, event.flags(registersNow.rflags),
            UInt64(special.cs.selector), event.next,
        ]
        if let code = event.code { frame.append(UInt64(code)) }
        for word in frame {
            top &-= 8
            try push(word, 8, at: top, ring: handler.ring)
        }
        registersNow.rsp = top
        registersNow.rip = gate.handler
        // IF stays for a trap gate; TF, NT and RF are cleared by both.
        registersNow.rflags &= ~(gate.isInterruptGate ? 0x1_4300 : 0x1_4100)
        special.cs = handler.code
        if isInner {
            special.ss = ckvm_segment()
            special.ss.selector = UInt16(truncatingIfNeeded: handler.ring)
            special.ss.dpl = UInt8(truncatingIfNeeded: handler.ring)
        }
        specialChanged = true
    }
}

extension CPUException {
    private enum Severity { case benign, contributory, page }

    private var severity: Severity {
        switch vector {
        case Self.pageFault, Self.virtualization: .page
        case Self.divideError, Self.invalidTaskState, Self.segmentNotPresent, Self.stackFault,
            Self.generalProtection, 21, Self.vmmCommunication, 30:
            .contributory
        default: .benign
        }
    }

    /// The exception that is delivered if the delivery of this one raises `second` (Intel SDM volume 3, table 7-5). Nil for a
    /// triple fault.
    fileprivate func followed(by second: CPUException) -> CPUException? {
        guard vector != Self.doubleFault else { return nil }
        return switch (severity, second.severity) {
        case (.benign, _), (_, .benign), (.contributory, .page): second
        case (.contributory, .contributory), (.page, _): CPUException(Self.doubleFault)
        }
    }
}
