// SPDX-License-Identifier: MIT
public import SystemPackage

/// Why a vCPU that is a program failed. It is the cause of a `KVM_EXIT_INTERNAL_ERROR` of such a backend.
public struct CPUFailure: Error, Sendable, Hashable {
    /// The failure of the CPU program or of its process.
    public enum Reason: Sendable, Hashable {
        /// It could not execute the instruction; the engine's own error number, or -1 if it aborted.
        case instruction(error: Int32)
        /// A signal ended its process.
        case signal(Int32)
        /// Its process called exit with this status.
        case exited(status: Int32)
        /// It used this many seconds of processor time without executing an instruction, and was killed.
        case hung(seconds: Int)
        /// It did not react to ``KVMVCPU/kick()``, and was killed.
        case unresponsive
        /// It gave an answer that no CPU can give, and was killed.
        case nonsense
        /// The host could not start its process.
        case notLaunched(Errno)
        /// Its process exited with this status before executing anything.
        case notStarted(status: Int32)
    }

    /// The kind of failure; ``isOfGuest`` tells whether the guest or the host caused it.
    public var reason: Reason
    /// The linear address of the instruction that was begun last.
    public var rip: UInt64
    /// The guest's bytes at ``rip``, as many as can be read, at most 15.
    public var code: [UInt8]

    /// `code` may be empty if the guest's memory at `rip` cannot be read.
    public init(_ reason: Reason, rip: UInt64, code: [UInt8]) {
        self.reason = reason
        self.rip = rip
        self.code = code
    }

    /// Whether the guest's code is the cause, as far as can be told. A process that never started, or that was killed
    /// from outside (`SIGKILL`: by the kernel when it is out of memory), is the host's fault.
    public var isOfGuest: Bool { hostErrno == nil }

    /// The errno for the resource that the host lacks; nil if the guest's code is the cause.
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
            "the software CPU could not start its process: \(errno) (\(errno.name))"
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
        case .unresponsive: "it did not stop when asked to"
        case .nonsense: "it gave an invalid answer"
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

/// A vCPU that is a program and may fail as one.
public protocol SoftwareVCPU: KVMVCPU {
    /// The cause of the last `KVM_EXIT_INTERNAL_ERROR`; nil while the CPU works.
    var failure: CPUFailure? { get }
    /// The cause of the last `KVM_EXIT_SHUTDOWN`: the exception that the guest could not handle.
    var unhandled: UnhandledException? { get }
}
