// SPDX-License-Identifier: MIT
public import SystemPackage

/// Why a vCPU that is a program could not go on: what stands behind a `KVM_EXIT_INTERNAL_ERROR` of such a kernel.
public struct CPUFailure: Error, Sendable, Hashable {
    /// What the program, or its process, did.
    public enum Reason: Sendable, Hashable {
        /// It could not execute the instruction; the engine's own error number, or -1 where it aborted.
        case instruction(error: Int32)
        /// Its process was ended by a signal.
        case signal(Int32)
        /// Its process called exit with this status.
        case exited(status: Int32)
        /// It used so many seconds of processor time without executing an instruction, and was ended.
        case hung(seconds: Int)
        /// It did not react to ``KVMVCPU/kick()``, and was ended.
        case unresponsive
        /// It answered what no CPU answers, and was ended.
        case nonsense
        /// The host would not start its process.
        case notLaunched(Errno)
        /// Its process exited with this status before it could execute anything.
        case notStarted(status: Int32)
    }

    /// ``isOfGuest`` says whether the guest or the host is to blame for it.
    public var reason: Reason
    /// Of the instruction that was begun last, linear.
    public var rip: UInt64
    /// The guest's bytes at ``rip``, as many as can be read, at most 15.
    public var code: [UInt8]

    /// `code` may be empty if the guest's memory at `rip` cannot be read.
    public init(_ reason: Reason, rip: UInt64, code: [UInt8]) {
        self.reason = reason
        self.rip = rip
        self.code = code
    }

    /// Whether the guest's code is the cause, as far as can be told. A process that never started, or that somebody
    /// killed (`SIGKILL`: the kernel when it is out of memory), is the host's affair.
    public var isOfGuest: Bool { hostErrno == nil }

    /// What the host has no more of, as an errno; nil where the guest's code is the cause.
    public var hostErrno: Errno? {
        switch reason {
        case .notLaunched(let errno): errno
        case .notStarted, .signal(9): .noMemory
        default: nil
        }
    }
}

extension CPUFailure: CustomStringConvertible {
    /// For people: the cause, and the guest's RIP and bytes if the CPU had started.
    public var description: String {
        switch reason {
        case .notLaunched(let errno):
            "the software CPU could not start: \(errno) (\(errno.name)) for its process"
        case .notStarted(let status):
            "the software CPU could not start: its process exited with status \(status). It takes 1.1 GiB of "
                + "address space; a limit on that (ulimit -v) may be too low"
        default: "the software CPU failed at RIP \(hex(rip)): \(why); \(bytes)"
        }
    }

    private var why: String {
        switch reason {
        case .instruction(let error):
            "it cannot execute the instruction" + (error == -1 ? "" : " (the engine's error \(error))")
        case .signal(let number): "its process was ended by signal \(number)"
        case .exited(let status): "its process exited with status \(status)"
        case .hung(let seconds): "it used \(seconds) s of processor time without executing an instruction"
        case .unresponsive: "it did not stop when it was told to"
        case .nonsense: "it gave an answer that no CPU gives"
        case .notLaunched, .notStarted: "its process did not start"
        }
    }

    private var bytes: String {
        code.isEmpty
            ? "the guest has no memory there"
            : "the guest's bytes there are "
                + code.map { byte in
                    (byte < 16 ? "0" : "") + String(byte, radix: 16)
                }.joined(separator: " ")
    }
}

/// A vCPU that is a program, and may fail as one.
public protocol SoftwareVCPU: KVMVCPU {
    /// What stands behind the last `KVM_EXIT_INTERNAL_ERROR`; nil while the CPU goes on.
    var failure: CPUFailure? { get }
}
