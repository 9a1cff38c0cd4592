// SPDX-License-Identifier: MIT
import CKVMShim
import GuestPayloads
import MiniVMM
import SystemPackage

/// The monitor of the guest that does the steps of vCPUs, for one step: it hands out the orders and takes the answer.
///
/// Belongs to the thread that runs the vCPU.
struct AgentRun: ExitHandler {
    enum End {
        case done(StepOutcome)
        /// The access was not made; the guest has gone on all the same.
        case unfinished(StepOutcome)
        /// The vCPU stands before the access. What has stopped it is a memory fault, or something else.
        case stuck(StepOutcome, isAtFault: Bool)
        case failed(Stop)
    }

    private let vcpu: any KVMVCPU
    private let number: Int
    private var orders: ArraySlice<UInt32>
    /// A memory fault may be a conversion met on the way, so the vCPU enters again, as any monitor would.
    private let isRacing: Bool
    private let deadline: TestDeadline
    /// What the monitor does for a hypercall.
    private let monitor: ((MapRequest) throws(Stop) -> Agent.Answer)?
    /// What it does on a memory fault; nil leaves the vCPU where it is.
    private let onFault: Agent.FaultHandler?
    private var faults = 0
    private var isMMIO = false
    /// The page that the answer to a hypercall was about.
    private var named: UInt64?

    /// Memory faults after which an access is given up, of a racing vCPU or with conversions that do not
    /// help. A conversion that it meets on its way can be one.
    private static let mostFaults = 10_000

    init(
        _ vcpu: any KVMVCPU, _ number: Int, _ orders: [UInt32], isRacing: Bool, _ deadline: TestDeadline,
        onFault: Agent.FaultHandler?, _ monitor: ((MapRequest) throws(Stop) -> Agent.Answer)?
    ) {
        self.vcpu = vcpu
        self.number = number
        self.orders = orders[...]
        self.isRacing = isRacing
        self.deadline = deadline
        self.monitor = monitor
        self.onFault = onFault
    }

    func left(_ exit: Exit) -> End? { nil }

    mutating func port(_ io: ckvm_run_io, _ bytes: UnsafeMutableRawBufferPointer) -> End? {
        switch (io.port, Int(io.size), bytes.count) {
        case (LitmusAgent.orderPort, 4, 4):
            guard let order = orders.popFirst() else { return unexpected(.io(io)) }
            unsafe bytes.storeBytes(of: order, as: UInt32.self)
            return nil
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
        guard let request = MapRequest(call) else { return (.failed(.invalidArgument), nil) }
        do throws(Stop) {
            guard let (errno, page) = try monitor(request) else { return (.done, nil) }
            named = page
            return (.failed(errno), nil)
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

    /// A time slice that ends is no exit; the agent is done after three that are.
    func interrupted() -> End? {
        deadline.isOver
            ? .failed(.broken("time is over, and vcpu\(number) has not come to an end")) : nil
    }

    func halted() -> End { unexpected(.halt) }
    func steppedOver(rip: UInt64) {}

    func cannotContinue(_ obstacle: ExitObstacle) -> End? {
        switch obstacle {
        case .runFailed(.notSupported): .failed(.skip("vCPUs cannot run here: this kernel has no CPU"))
        // KVM asks for another try.
        case .runFailed(.resourceTemporarilyUnavailable): nil
        case .runFailed(let errno): stuck(.errno(errno.rawValue))
        case .registers(let call, let errno):
            .failed(.broken("the call of vcpu\(number) could not be answered (\(call): \(errno.name))"))
        case .ioOutsideRunPage: .failed(.broken("vcpu\(number): KVM_EXIT_IO names data outside of kvm_run"))
        case .shutdown: unexpected(.shutdown)
        case .internalError(let suberror): unexpected(.internalError(suberror))
        case .failEntry(let reason): unexpected(.failEntry(reason))
        case .systemEvent(let type): unexpected(.systemEvent(type))
        case .unknownExit(let reason): unexpected(.unsupported(reason))
        }
    }

    /// A step comes to what stops it first.
    private func stuck(_ outcome: StepOutcome, isAtFault: Bool = false) -> End {
        .stuck(isMMIO ? .mmio : outcome, isAtFault: isAtFault && !isMMIO)
    }

    /// An exit that no step comes to. A CPU that is a program may have failed, by the host or by the guest's code.
    private func unexpected(_ exit: Exit) -> End {
        guard let failure = (vcpu as? any SoftwareVCPU)?.failure else {
            return .failed(.broken("vcpu\(number) left with \(exit)"))
        }
        let what = "vcpu\(number): \(failure)"
        return .failed(failure.hostErrno.map { .host(HostFailure(what, $0)) } ?? .broken(what))
    }
}
