// SPDX-License-Identifier: MIT
import CKVMShim
package import SystemPackage

/// Handles the exits of one vCPU, which ``ExitLoop`` decodes.
///
/// If a method returns an `End`, the loop ends with it; nil enters the guest again.
package protocol ExitHandler {
    associatedtype End

    /// `KVM_RUN` has returned. Called before anything else, for handlers that count or observe.
    mutating func left(_ exit: Exit) -> End?
    /// A port access. `bytes` are the transfers in order, `io.size` bytes each; for an IN the handler fills them.
    mutating func port(_ io: ckvm_run_io, _ bytes: UnsafeMutableRawBufferPointer) -> End?
    /// A guest call, by instruction or by port 0xe8.
    mutating func call(_ call: GuestCall, byInstruction: Bool) -> (answer: GuestCall.Answer, end: End?)
    mutating func memoryFault(_ fault: MemoryFault, _ errno: Errno) -> End?
    /// `KVM_EXIT_MMIO`. Nil completes the access; a read gets what is in the `kvm_run` page.
    mutating func mmio(_ access: ckvm_run_mmio) -> End?
    /// The time slice is over, or another thread kicked the vCPU.
    mutating func interrupted() -> End?
    mutating func halted() -> End
    /// The loop has stepped over a call instruction that the CPU could not step over.
    mutating func steppedOver(rip: UInt64)
    mutating func cannotContinue(_ obstacle: ExitObstacle) -> End?
    /// `KVM_EXIT_DEBUG`.
    mutating func debugged() -> End?
}

extension ExitHandler {
    /// An exit that nobody has asked for.
    package mutating func debugged() -> End? { cannotContinue(.unknownExit(CKVM_EXIT_DEBUG)) }
}

/// An exit that a well-behaved guest does not cause, or a failed call of the loop.
package enum ExitObstacle {
    case shutdown
    /// `KVM_EXIT_INTERNAL_ERROR`, with its suberror.
    case internalError(UInt32)
    case failEntry(UInt64)
    case systemEvent(UInt32)
    case unknownExit(UInt32)
    /// `KVM_EXIT_IO` points to data outside the `kvm_run` page.
    case ioOutsideRunPage
    /// `KVM_RUN` failed with an errno and without exit information.
    case runFailed(Errno)
    /// The registers could not be read or written for a call.
    case registers(call: String, Errno)
}

/// Decodes the exits of one vCPU, answers its calls, and steps over an instruction if the CPU cannot. Shared by the
/// monitor's run loop and the guest of the litmus tests.
///
/// Belongs to the thread that runs the vCPU. An exit allocates no memory here and takes no lock.
package struct ExitLoop {
    private let vcpu: any KVMVCPU
    private let page: RunPage
    /// RIP of the hypercall, if that was the last exit.
    private var callInProgress: UInt64?

    /// The port for guest calls, which use the registers of a hypercall.
    package static let callPort: UInt16 = 0xe8
    /// The length of VMMCALL and of VMCALL.
    private static let callLength: UInt64 = 3

    package init(_ vcpu: any KVMVCPU) {
        self.vcpu = vcpu
        page = vcpu.runPage
    }

    /// Runs the vCPU until the handler ends it.
    package mutating func run<Handler: ExitHandler>(_ handler: inout Handler) -> Handler.End {
        while true {
            let exit = vcpu.runToExit()
            if let end = handler.left(exit) { return end }
            if let end = handle(exit, &handler) { return end }
        }
    }

    private mutating func handle<Handler: ExitHandler>(
        _ exit: Exit, _ handler: inout Handler
    ) -> Handler.End? {
        let call = callInProgress
        callInProgress = nil
        switch exit {
        case .io(let io):
            if io.port == Self.callPort, io.direction == CKVM_EXIT_IO_OUT, io.size == 4, io.count == 1 {
                return callByPort(&handler)
            }
            var end: Handler.End?
            let inside: Void? = unsafe page.withIOData(io) { bytes in end = unsafe handler.port(io, bytes) }
            return inside == nil ? handler.cannotContinue(.ioOutsideRunPage) : end
        case .hypercall(let hypercall):
            let asked = GuestCall(
                number: hypercall.nr, arguments: (hypercall.args.0, hypercall.args.1, hypercall.args.2))
            let (answer, end) = handler.call(asked, byInstruction: true)
            var reply = hypercall
            reply.ret = UInt64(bitPattern: answer.result)
            page.hypercall = reply
            callInProgress = try? vcpu.registers().rip
            return end
        case .memoryFault(let fault, let errno): return handler.memoryFault(fault, errno)
        case .mmio(let access): return handler.mmio(access)
        case .interrupted: return handler.interrupted()
        case .debug: return handler.debugged()
        case .halt: return handler.halted()
        case .shutdown: return handler.cannotContinue(.shutdown)
        case .internalError(let suberror):
            if suberror == CKVM_INTERNAL_ERROR_EMULATION, let call, stepOver(call) {
                handler.steppedOver(rip: call)
                return nil
            }
            return handler.cannotContinue(.internalError(suberror))
        case .failEntry(let reason): return handler.cannotContinue(.failEntry(reason))
        case .systemEvent(let type): return handler.cannotContinue(.systemEvent(type))
        case .unsupported(let reason): return handler.cannotContinue(.unknownExit(reason))
        case .failed(let errno): return handler.cannotContinue(.runFailed(errno))
        }
    }

    private func callByPort<Handler: ExitHandler>(_ handler: inout Handler) -> Handler.End? {
        var call = "KVM_GET_REGS"
        do throws(Errno) {
            var registers = try vcpu.registers()
            let asked = GuestCall(
                number: registers.rax & 0xffff_ffff,
                arguments: (registers.rbx, registers.rcx, registers.rdx))
            let (answer, end) = handler.call(asked, byInstruction: false)
            registers.rax = UInt64(bitPattern: answer.result)
            if let word = answer.word { registers.rcx = word }
            call = "KVM_SET_REGS"
            try vcpu.setRegisters(registers)
            return end
        } catch {
            return handler.cannotContinue(.registers(call: call, error))
        }
    }

    /// On a CPU that does not save the next RIP (CPUID 0x8000000a EDX bit 3; mostly emulated ones), KVM reads the
    /// instruction to find its end. It cannot if the code is private: then the answer is in RAX, but RIP
    /// is still at the call.
    private func stepOver(_ call: UInt64) -> Bool {
        guard var registers = try? vcpu.registers(), registers.rip == call else { return false }
        registers.rip = call &+ Self.callLength
        do throws(Errno) { try vcpu.setRegisters(registers) } catch { return false }
        return true
    }
}
