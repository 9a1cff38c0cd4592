// SPDX-License-Identifier: MIT
import CKVMShim
import GuestPayloads
import MiniVMM
import SystemPackage

/// The monitor of ``Agent`` for one step: it takes the answer.
///
/// Belongs to the thread that runs the vCPU.
struct AgentRun: ExitHandler {
    enum End {
        case done(StepOutcome)
        /// The access was not made, but the guest continued (MMIO).
        case unfinished(StepOutcome)
        /// The access was stopped by a memory fault or by something else.
        case stuck(StepOutcome, isAtFault: Bool)
        case failed(Stop)
    }

    private let vcpu: any KVMVCPU
    private let number: Int
    /// Whether the vCPU enters again after a memory fault, because a concurrent conversion can cause one.
    private let isRacing: Bool
    private let deadline: TestDeadline
    /// Carries out a hypercall.
    private let monitor: ((MapRequest) throws(Stop) -> GuestAnswer)?
    /// Handles a memory fault; nil leaves the vCPU stopped.
    private let onFault: Agent.FaultHandler?
    /// How often the vCPU enters again after `ENOMEM`. One failed allocation is the reason for one.
    private var entriesWithoutMemory: Int
    private var faults = 0
    private var isMMIO = false
    /// The page that the answer to a hypercall names.
    private var named: UInt64?

    /// The number of memory faults after which an access is given up. Concurrent conversions and conversions without an
    /// effect can cause many.
    private static let mostFaults = 10_000

    init(
        _ vcpu: any KVMVCPU, _ number: Int, isRacing: Bool,
        entersAgainWithoutMemory: Bool, _ deadline: TestDeadline,
        onFault: Agent.FaultHandler?, _ monitor: ((MapRequest) throws(Stop) -> GuestAnswer)?
    ) {
        self.vcpu = vcpu
        self.number = number
        self.isRacing = isRacing
        entriesWithoutMemory = entersAgainWithoutMemory ? 1 : 0
        self.deadline = deadline
        self.monitor = monitor
        self.onFault = onFault
    }

    func left(_ exit: Exit) -> End? { nil }

    mutating func port(_ io: ckvm_run_io, _ bytes: UnsafeMutableRawBufferPointer) -> End? {
        switch (io.port, Int(io.size), bytes.count) {
        case (LitmusAgent.bytePort, 1, 1):
            return isMMIO ? .unfinished(.mmio) : .done(.value(unsafe bytes[0]))
        case (LitmusAgent.answerPort, 4, 4):
            let word = unsafe bytes.loadUnaligned(as: Int32.self)
            return isMMIO ? .unfinished(.mmio) : .done(word == 0 ? .ok : .errno(0 &- word, at: named))
        default: return unexpected(.io(io))
        }
    }

    mutating func call(_ call: GuestCall, byInstruction: Bool) -> (answer: GuestCall.Answer, end: End?) {
        guard call.number == CKVM_HC_MAP_GPA_RANGE, let monitor else { return (.failed(.noFunction), nil) }
        guard let request = MapRequest(call.arguments) else { return (.failed(.invalidArgument), nil) }
        do throws(Stop) {
            guard let (errno, page) = try monitor(request) else { return (.done, nil) }
            named = page
            return (.failed(Errno(errno)), nil)
        } catch {
            return (.failed(.ioError), .failed(error))
        }
    }

    mutating func memoryFault(_ fault: MemoryFault, _ errno: Errno) -> End? {
        faults += 1
        let entersAgain = errno == .badAddress && faults < Self.mostFaults && !deadline.isOver
        if entersAgain, let onFault {
            do throws(Stop) {
                switch try onFault(fault) {
                case .entersAgain: return nil
                case .isFailed(let errno, let page):
                    return stuck(.errno(errno.rawValue, at: page), isAtFault: true)
                }
            } catch {
                return .failed(error)
            }
        } else if entersAgain, isRacing {
            return nil
        }
        return errno == .hardwarePoisoned
            ? stuck(.errno(errno.rawValue, at: fault.gpa))
            : stuck(.fault(fault.wants, at: fault.gpa), isAtFault: true)
    }

    mutating func mmio(_ access: ckvm_run_mmio) -> End? {
        isMMIO = true
        return nil
    }

    /// The end of a time slice is not an exit. The agent completes a step within three slices.
    func interrupted() -> End? {
        deadline.isOver
            ? .failed(.broken("timed out while vcpu\(number) was running")) : nil
    }

    func halted() -> End { unexpected(.halt) }
    func steppedOver(rip: UInt64) {}

    mutating func cannotContinue(_ obstacle: ExitObstacle) -> End? {
        if case .runFailed(.noMemory) = obstacle, entriesWithoutMemory > 0 {
            entriesWithoutMemory -= 1
            return nil
        }
        return switch obstacle {
        case .runFailed(.notSupported): .failed(.skip("vCPUs cannot run: this backend has no CPU"))
        // KVM asks for a retry.
        case .runFailed(.resourceTemporarilyUnavailable): nil
        case .runFailed(let errno): stuck(.errno(errno.rawValue))
        case .registers(let call, let errno):
            .failed(.broken("the call of vcpu\(number) cannot be answered (\(call): \(errno.name))"))
        case .ioOutsideRunPage: .failed(.broken("vcpu\(number): KVM_EXIT_IO names data outside of kvm_run"))
        case .shutdown: unexpected(.shutdown)
        case .internalError(let suberror): unexpected(.internalError(suberror))
        case .failEntry(let reason): unexpected(.failEntry(reason))
        case .systemEvent(let type): unexpected(.systemEvent(type))
        case .unknownExit(let reason): unexpected(.unsupported(reason))
        }
    }

    /// A step ends with the first outcome that stops it, which may be an earlier MMIO access.
    private func stuck(_ outcome: StepOutcome, isAtFault: Bool = false) -> End {
        .stuck(isMMIO ? .mmio : outcome, isAtFault: isAtFault && !isMMIO)
    }

    /// An exit that no step causes. With a software CPU, the host or the guest's code may have failed.
    private func unexpected(_ exit: Exit) -> End {
        guard let failure = (vcpu as? any SoftwareVCPU)?.failure else {
            return .failed(.broken("vcpu\(number) exited with \(exit)"))
        }
        let what = "vcpu\(number): \(failure)"
        return .failed(failure.hostErrno.map { .host(HostFailure(what, $0)) } ?? .broken(what))
    }
}
