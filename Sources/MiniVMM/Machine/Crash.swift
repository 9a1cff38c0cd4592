// SPDX-License-Identifier: MIT
/// A vCPU's position: the next instruction, and the stack.
public struct VCPUPlace: Sendable, Hashable {
    /// Linear address of the next instruction.
    public let rip: UInt64
    /// Linear address of the top of the stack.
    public let rsp: UInt64

    /// Values from `KVM_GET_REGS`.
    public init(rip: UInt64, rsp: UInt64) {
        self.rip = rip
        self.rsp = rsp
    }
}

/// Why a guest crashed.
public struct Crash: Sendable, Hashable {
    /// The exit that ended the guest.
    public enum Cause: Sendable, Hashable {
        /// An exception, reported by the monitor's handlers in the guest (``Machine``).
        case exception(UnhandledException)
        /// `KVM_EXIT_SHUTDOWN`: an exception that the CPU could not deliver.
        case tripleFault(TripleFault)
        /// `KVM_EXIT_MMIO` where the machine has neither RAM nor a device. `size` in bytes.
        case noDevice(gpa: UInt64, size: UInt32, isWrite: Bool)
        /// `KVM_EXIT_MMIO` in private RAM: KVM emulates an instruction and cannot access the page.
        case unreachableRAM(gpa: UInt64, size: UInt32, isWrite: Bool)
        /// `KVM_EXIT_MEMORY_FAULT` past the end of RAM, which has `ramSize` bytes.
        case outsideRAM(MemoryFault, ramSize: UInt64)
        /// `KVM_EXIT_MEMORY_FAULT` in RAM through the wrong alias, or before a conversion, and the monitor does not convert on
        /// accesses (``FaultPolicy/refuse``).
        case strayAccess(MemoryFault)
        /// `KVM_RUN` is `EIO`: KVM has given up the VM, for example because a TDX guest touched memory that it had not accepted.
        case deadVM
        /// `KVM_EXIT_SYSTEM_EVENT` of this type: an SNP or TDX guest asked to be terminated.
        case terminated(UInt32)
        /// `KVM_EXIT_INTERNAL_ERROR`: KVM could not execute an instruction.
        case emulation
        /// `KVM_EXIT_INTERNAL_ERROR` with another suberror.
        case internalError(UInt32)
        /// In real mode: a vector for which the guest has no handler of its own.
        case firmwareCall(UInt8, ax: UInt16)
        /// The guest's code has crashed the software CPU.
        case softwareCPU(CPUFailure)
    }
    /// Each case is one `KVM_EXIT_*`.
    public let cause: Cause
    /// Nil if the registers could not be read, or were lost.
    public let place: VCPUPlace?

    /// Omit `place` if the registers cannot be read.
    public init(_ cause: Cause, at place: VCPUPlace? = nil) {
        self.cause = cause
        self.place = place
    }
}

/// The knowledge about the exception behind a `KVM_EXIT_SHUTDOWN`.
public enum TripleFault: Sendable, Hashable {
    /// A software CPU knows the exception that it could not deliver.
    case of(UnhandledException)
    /// The CPU was reset before KVM returned, as on AMD: the registers of the guest are lost.
    case reset
    /// KVM reports no exception.
    case unknown
}

/// Why a vCPU has the same memory fault over and over.
public enum FaultLoopReason: Sendable, Hashable {
    /// The VM has one alias: the kernel takes the kind of an access from the page, but does not complete this access.
    case oneAlias
    /// ``FaultPolicy/reenter``: the monitor does not convert.
    case notConverted
    /// The next conversion undoes each conversion: one instruction may be accessing a page through both aliases.
    case undone
}

/// An exit that the monitor does not handle.
public struct UnhandledExit: Sendable, Hashable {
    /// The exit in the `kvm_run` page.
    public enum Kind: Sendable, Hashable {
        /// `KVM_EXIT_FAIL_ENTRY`, with the hardware's reason.
        case failEntry(UInt64)
        /// `KVM_EXIT_SYSTEM_EVENT` of this type.
        case systemEvent(UInt32)
        /// `KVM_EXIT_IO` points to data outside the kvm_run page.
        case ioOutsideRunPage
        /// An exit reason that this monitor does not support.
        case unknown(UInt32)
    }
    /// Each case is one `KVM_EXIT_*`.
    public let kind: Kind
    /// Nil if the registers could not be read.
    public let place: VCPUPlace?

    /// Omit `place` if the registers cannot be read.
    public init(_ kind: Kind, at place: VCPUPlace? = nil) {
        self.kind = kind
        self.place = place
    }
}

// MARK: text

extension VCPUPlace: CustomStringConvertible {
    /// Both in hexadecimal: `RIP 0x100000, RSP 0x44000`.
    public var description: String { "RIP \(hex(rip)), RSP \(hex(rsp))" }
}

extension Crash: CustomStringConvertible {
    /// The cause in words, with RIP and RSP if they are known.
    public var description: String { cause.description + (place.map { " (\($0))" } ?? "") }
}

extension Crash.Cause: CustomStringConvertible {
    /// The cause, without the vCPU and its registers.
    public var description: String {
        switch self {
        case .exception(let unhandled): unhandled.exception.description
        case .tripleFault(.of(let unhandled)): "triple fault: \(unhandled.exception)"
        case .tripleFault(.reset): "triple fault; the CPU was reset, so its registers are lost"
        case .tripleFault(.unknown): "triple fault (an exception without a handler)"
        case .noDevice(let gpa, let size, let isWrite):
            "\(isWrite ? "wrote" : "read") \(size) bytes at \(hex(gpa)), where the machine has neither RAM nor a device"
        case .unreachableRAM(let gpa, let size, let isWrite):
            "\(isWrite ? "wrote" : "read") \(size) bytes at \(hex(gpa)), private RAM that KVM cannot access"
        case .outsideRAM(let fault, let size):
            "accessed \(fault.wants.rawValue) memory at \(hex(fault.gpa)), but RAM ends at \(hex(size))"
        case .strayAccess(let fault):
            "accessed \(hex(fault.gpa)) as \(fault.wants.rawValue) memory, which it is not"
        case .deadVM: "KVM has given up the VM (KVM_RUN: EIO)"
        case .terminated(let type): "asked to be terminated (KVM_EXIT_SYSTEM_EVENT of type \(type))"
        case .emulation: "KVM could not execute an instruction (KVM_EXIT_INTERNAL_ERROR, emulation)"
        case .internalError(let suberror): "KVM_EXIT_INTERNAL_ERROR, suberror \(suberror)"
        case .firmwareCall(let vector, let ax): Self.firmwareCall(vector, ax)
        case .softwareCPU(let failure): failure.description
        }
    }
}

extension Crash.Cause {
    private static func firmwareCall(_ vector: UInt8, _ ax: UInt16) -> String {
        let exceptions: [UInt8: String] = [
            0: "#DE", 1: "#DB", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 12: "#SS",
            13: "#GP",
        ]
        if let name = exceptions[vector] {
            return "raised exception \(vector) (\(name)) in real mode and has no handler of its own for it"
        }
        let call = hex(UInt64(vector)) + " with AX \(hex(UInt64(ax)))"
        return "called interrupt \(call), but the machine has no BIOS"
    }
}

extension FaultLoopReason: CustomStringConvertible {
    /// Why the vCPU makes no progress, in words.
    public var description: String {
        switch self {
        case .oneAlias:
            "with one alias an access never asks for a conversion, but the kernel does not complete this one"
        case .notConverted: "the monitor was asked to re-enter the guest without converting"
        case .undone:
            "the next conversion undoes each one; one instruction may be accessing a page through both aliases"
        }
    }
}

extension UnhandledExit: CustomStringConvertible {
    /// The exit in words, with RIP and RSP if they are known.
    public var description: String { kind.description + (place.map { " (\($0))" } ?? "") }
}

extension UnhandledExit.Kind: CustomStringConvertible {
    /// The exit in words, without the vCPU and its registers.
    public var description: String {
        switch self {
        case .failEntry(let reason): "the CPU refused to enter the guest, reason \(hex(reason))"
        case .systemEvent(let type): "KVM_EXIT_SYSTEM_EVENT of type \(type)"
        case .ioOutsideRunPage: "KVM_EXIT_IO points to data outside the kvm_run page"
        case .unknown(let reason): "exit reason \(reason), which this monitor does not support"
        }
    }
}
