// SPDX-License-Identifier: MIT
public import SystemPackage

/// A failure of the monitor or the host, not of the guest.
public enum MachineError: Error, Sendable {
    /// The configuration is impossible.
    case configuration(ConfigurationError)
    /// This backend cannot have such a machine; another one may.
    case unsupported(Lack, BackendIdentity)
    /// The image cannot be booted.
    case image(ImageError)
    /// A system call failed: its uAPI name, the errno, what was attempted, what may help.
    case backend(call: String, errno: Errno, attempted: String, hint: String?)
    /// A conversion that the machine itself needed failed.
    case conversion(ConversionError)
    /// `KVM_EXIT_MEMORY_FAULT` with `EHWPOISON`: the host's memory failed.
    case poisoned(vcpu: Int, gpa: UInt64)
    /// `KVM_EXIT_MEMORY_FAULT` with flag bits that are not in the ABI.
    case unknownFaultFlags(vcpu: Int, MemoryFault)
    /// `KVM_RUN` failed with `EFAULT` and without an address.
    case unexplainedFault(vcpu: Int, rip: UInt64?)
    /// `KVM_RUN` failed with `EINVAL`, because the monitor answered a request of an SNP or TDX guest with this `hypercall.ret`.
    case wrongAnswer(vcpu: Int, Int64)
    /// The process of a software CPU could not start, or was killed from outside.
    case softwareCPU(vcpu: Int, CPUFailure)
    /// An exit that the monitor does not handle.
    case unhandledExit(vcpu: Int, UnhandledExit)
    /// The ``Cancellation`` ended the building of the machine; it has the reason.
    case cancelled
}

extension MachineError: CustomStringConvertible {
    /// One line for people: what failed, why, and if possible what may help.
    public var description: String {
        switch self {
        case .configuration(let error): return error.description
        case .unsupported(let lack, let backend): return "\(backend) \(lack)"
        case .image(let error): return error.description
        case .backend(let call, let errno, let attempted, let hint):
            return "\(call): \(errno) (\(errno.name)) on \(attempted)" + (hint.map { ": \($0)" } ?? "")
        case .conversion(let error): return error.description
        case .poisoned(let vcpu, let gpa):
            return "vCPU \(vcpu): the host's memory behind guest address \(hex(gpa)) has failed (EHWPOISON)"
        case .unknownFaultFlags(let vcpu, let fault):
            return
                "vCPU \(vcpu): the memory fault at \(hex(fault.gpa)) has flags \(hex(fault.flags)), of which this "
                + "monitor does not support \(hex(fault.unknownFlags)): the kernel is newer than the monitor"
        case .unexplainedFault(let vcpu, let rip):
            return "vCPU \(vcpu): KVM_RUN failed with EFAULT and without an address"
                + (rip.map { ", at RIP \(hex($0))" } ?? "")
                + ": the kernel could not access the memory of a memslot"
        case .wrongAnswer(let vcpu, let ret):
            return
                "vCPU \(vcpu): KVM_RUN failed with EINVAL: the monitor answered the guest's request with hypercall.ret \(ret), and KVM "
                + "accepts 0, EAGAIN (11) and EINVAL (22): correct the monitor (hazard V30)"
        case .softwareCPU(let vcpu, let failure): return "vCPU \(vcpu): \(failure)"
        case .unhandledExit(let vcpu, let exit): return "vCPU \(vcpu): \(exit)"
        case .cancelled: return "cancelled before the guest ran"
        }
    }
}

/// A number in the usual form of an address.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

/// Makes a system call; a failure includes what was attempted.
func calling<R>(
    _ call: String, _ attempted: @autoclosure () -> String, _ body: () throws(Errno) -> R
) throws(MachineError) -> R {
    do throws(Errno) {
        return try body()
    } catch {
        throw .backend(call: call, errno: error, attempted: attempted(), hint: nil)
    }
}
