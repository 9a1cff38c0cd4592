// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// Takes the report of an ``ExceptionTable``'s handlers, which takes up to 17 exits. Belongs to the thread that runs the vCPU.
struct ExceptionReport {
    private enum Phase {
        case none
        /// A handler was entered with these registers.
        case entered(vector: UInt8, ckvm_regs)
        case framed(Frame, code: [UInt8])
    }
    private var phase = Phase.none
    /// The last page fault after which the instruction was executed again: RIP and CR2.
    var retried: (rip: UInt64, address: UInt64)?

    /// The state of the vCPU when it raised an exception.
    struct Frame {
        let exception: CPUException
        /// With RIP, RSP and RFLAGS of the interrupted code.
        let registers: ckvm_regs
        /// The ring of the interrupted code.
        let ring: UInt64
    }

    enum Step {
        /// Not from a handler.
        case unrelated
        /// The handler goes on.
        case more
        /// The frame has been read; the bytes of the instruction follow.
        case frame(Frame)
        case complete(Frame, code: [UInt8])
        /// The handlers cannot read the frame, because an exception was raised in them.
        case lost
    }

    /// The length of the longest instruction.
    private static let longestInstruction = 15

    /// An OUT to ``ExceptionTable/port``.
    ///
    /// - Parameters:
    ///   - registers: of the vCPU; changed for the handler.
    ///   - byte: the byte written.
    ///   - table: the handlers.
    mutating func take(_ registers: inout ckvm_regs, _ byte: UInt8, from table: ExceptionTable) -> Step {
        switch (table.place(registers.rip), phase) {
        case (nil, _): return .unrelated
        case (.entry(let vector), .none):
            phase = .entered(vector: vector, registers)
            return .more
        // The instruction's bytes cannot be read any further.
        case (.entry, .framed(let frame, let code)):
            phase = .none
            return .complete(frame, code: code)
        case (.entry, .entered):
            phase = .none
            return .lost
        case (.frame, .entered(let vector, let before)):
            let frame = Self.frame(vector, before, registers)
            phase = .framed(frame, code: [])
            registers.rbx = frame.registers.rip
            return .frame(frame)
        case (.byte, .framed(let frame, var code)):
            code.append(byte)
            phase = .framed(frame, code: code)
            guard code.count == Self.longestInstruction else { return .more }
            phase = .none
            return .complete(frame, code: code)
        // The guest has jumped into a handler.
        case (.frame, _), (.byte, _): return .unrelated
        }
    }

    /// Forgets the exception, because its instruction is executed again.
    mutating func forget() { phase = .none }

    private static func frame(_ vector: UInt8, _ before: ckvm_regs, _ now: ckvm_regs) -> Frame {
        let words = [now.rax, now.rbx, now.rcx, now.rdx, now.rsi]
        let rest = CPUException.hasErrorCode(vector) ? Array(words.dropFirst()) : words
        var registers = before
        registers.rip = rest[0]
        registers.rflags = rest[2]
        registers.rsp = rest[3]
        let exception = CPUException(
            vector, errorCode: UInt32(truncatingIfNeeded: now.rax), address: now.r8)
        return Frame(exception: exception, registers: registers, ring: rest[1] & 3)
    }
}

extension GuestExitHandler {
    /// KVM_EXIT_SHUTDOWN.
    func tripleFault() -> Pause {
        if let unhandled = (vcpu as? any SoftwareVCPU)?.unhandled {
            return crash(.tripleFault(.of(unhandled)))
        }
        // A CPU that was reset is in real mode at F000:FFF0, with its base far above.
        guard let special = try? vcpu.specialRegisters(), special.cr0 & 1 == 0,
            special.cs.base == 0xffff_0000
        else { return crash(.tripleFault(.unknown)) }
        return end(.crashed(vcpu: vcpu.id, Crash(.tripleFault(.reset))))
    }

    /// A write to the port of the exception handlers.
    ///
    /// - Returns: nil if it does not come from a handler; `yielded` if the handler goes on.
    mutating func exception(_ byte: UInt8, _ table: ExceptionTable) -> Pause? {
        guard var registers = try? vcpu.registers() else { return nil }
        switch report.take(&registers, byte, from: table) {
        case .unrelated: return nil
        case .more: return machine.isStopping ? .stopped : .yielded
        case .lost: return crash(.tripleFault(.unknown))
        case .frame(let frame):
            if let pause = executeAgain(frame) { return pause }
            do throws(Errno) { try vcpu.setRegisters(registers) } catch {
                return complete(frame, code: [])
            }
            return .yielded
        case .complete(let frame, let code): return complete(frame, code: code)
        }
    }

    private func complete(_ frame: ExceptionReport.Frame, code: [UInt8]) -> Pause {
        let (exception, registers) = (frame.exception, frame.registers)
        trace?.record(.exception(exception, rip: registers.rip), by: actor)
        // A debugger sees the state at the exception.
        do { try vcpu.setRegisters(registers) } catch {}
        return end(
            .crashed(
                vcpu: vcpu.id,
                Crash(
                    .exception(
                        UnhandledException(
                            exception, code: code, registers,
                            pageTables: (try? vcpu.specialRegisters().cr3) ?? 0)),
                    at: VCPUPlace(rip: registers.rip, rsp: registers.rsp))))
    }

    /// Resolves a page fault that the guest did not cause: on an adapter that carves memslots, a page table behind the wrong
    /// alias, or missing while memslots change, is a page fault of the guest.
    ///
    /// - Returns: `yielded` if the instruction is executed again, nil if the guest caused the exception.
    private mutating func executeAgain(_ frame: ExceptionReport.Frame) -> Pause? {
        guard let address = frame.exception.address, frame.ring == 0, let trap = vcpu as? any PageFaultingVCPU
        else { return nil }
        if let fault = trap.memoryFault(walkingTo: address) {
            if let pause = memoryFault(fault, .badAddress) { return pause }
        } else {
            // Memslots may have changed. The same fault a second time is the guest's.
            if let last = report.retried, last == (frame.registers.rip, address) { return nil }
            report.retried = (frame.registers.rip, address)
        }
        do throws(Errno) { try vcpu.setRegisters(frame.registers) } catch { return nil }
        report.forget()
        return .yielded
    }
}
