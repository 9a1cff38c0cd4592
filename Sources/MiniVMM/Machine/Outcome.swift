// SPDX-License-Identifier: MIT
/// How a machine ended.
public enum Outcome: Sendable {
    /// The guest wrote its exit status to port 0xF4.
    case exited(UInt8)
    /// Every vCPU executed HLT; nothing can wake them.
    case halted
    /// The user ended the guest from the terminal (Ctrl-A x).
    case quit
    /// The guest did something after which it cannot run on.
    case crashed(vcpu: Int, Crash)
    /// The same memory fault occurred over and over.
    case faultLoop(vcpu: Int, MemoryFault, faults: Int, rip: UInt64, FaultLoopReason)
    /// The time limit was reached.
    case timeLimit(Duration)
    /// A signal asked the monitor to stop.
    case interrupted(signal: Int32)
    /// The monitor or the host failed.
    case failed(MachineError)
}

extension Outcome {
    /// The exit status of a command that ran the guest: the guest's own up to 123; 124 time limit; 125 the
    /// monitor or the host failed; 126 the guest crashed or looped; 127 it halted; 128 + signal, and 130 for
    /// Ctrl-A x; 4 if this backend cannot have the machine, so that the guest never ran.
    public var exitStatus: Int32 {
        switch self {
        case .exited(let status): Int32(min(status, 123))
        case .halted: 127
        case .quit: 130
        case .crashed, .faultLoop: 126
        case .timeLimit: 124
        case .interrupted(let signal): 128 + signal
        case .failed(.unsupported): 4
        case .failed: 125
        }
    }

    /// One word for programs.
    public var kind: String {
        switch self {
        case .exited: "exited"
        case .halted: "halted"
        case .quit: "quit"
        case .crashed: "crashed"
        case .faultLoop: "fault-loop"
        case .timeLimit: "time-limit"
        case .interrupted: "interrupted"
        case .failed(.unsupported): "unsupported"
        case .failed: "failed"
        }
    }
}

extension Outcome {
    /// The outcome of a machine whose software CPU failed.
    static func of(_ failure: CPUFailure, vcpu: Int) -> Outcome {
        failure.isOfGuest
            ? .crashed(vcpu: vcpu, Crash(.softwareCPU(failure))) : .failed(.softwareCPU(vcpu: vcpu, failure))
    }
}

extension Outcome: CustomStringConvertible {
    /// One line for people; ``kind`` is for programs.
    public var description: String {
        switch self {
        case .exited(let status):
            status <= 123
                ? "the guest ended with status \(status)"
                : "the guest ended with status \(status), reported as 123 because higher statuses are reserved"
        case .halted: "every vCPU executed HLT, and nothing can wake it; the guest wrote no exit status"
        case .quit: "ended from the terminal"
        case .crashed(let vcpu, let why): "vCPU \(vcpu) crashed: \(why)"
        case .faultLoop(let vcpu, let fault, let faults, let rip, let why):
            "vCPU \(vcpu) makes no progress: \(faults) memory faults in a row, the last at \(hex(fault.gpa)) "
                + "(the access wants \(fault.wants.rawValue)), RIP \(hex(rip)): \(why)"
        case .timeLimit(let limit): "the time limit of \(limit.secondsText) s was reached"
        case .interrupted(let signal): "interrupted by signal \(signal)"
        case .failed(let error): error.description
        }
    }
}

/// Counts of events while a machine ran.
public struct RunStatistics: Sendable, Equatable {
    /// Returns of `KVM_RUN`, including kicks and ends of time slices.
    public var exits: UInt64 = 0
    /// `KVM_EXIT_IO`, including calls by port.
    public var portExits: UInt64 = 0
    /// Guest calls, by instruction and by port.
    public var hypercalls: UInt64 = 0
    /// `KVM_EXIT_MEMORY_FAULT`, including races.
    public var memoryFaults: UInt64 = 0
    /// Memory faults that only ran into a conversion in progress, and were retried.
    public var raceFaults: UInt64 = 0
    /// Successful conversions that the guest requested, by call or by access.
    public var conversions: UInt64 = 0
    /// Conversions that the guest requested, by call or by access, and that failed, wholly or in part.
    public var failedConversions: UInt64 = 0
    /// `EAGAIN` answers to `KVM_SET_MEMORY_ATTRIBUTES2`.
    public var busyAnswers: UInt64 = 0

    /// All counts are 0.
    public init() {}

    mutating func add(_ other: RunStatistics) {
        exits += other.exits
        portExits += other.portExits
        hypercalls += other.hypercalls
        memoryFaults += other.memoryFaults
        raceFaults += other.raceFaults
        conversions += other.conversions
        failedConversions += other.failedConversions
        busyAnswers += other.busyAnswers
    }
}
