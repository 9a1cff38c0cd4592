// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

/// Why `KVM_RUN` returned, decoded from the errno and the `kvm_run` page.
public enum Exit: Sendable {
    /// `KVM_EXIT_IO`; the bytes are in the page.
    case io(ckvm_run_io)
    /// `KVM_EXIT_MMIO`: an access to a guest-physical address outside all memslots.
    case mmio(ckvm_run_mmio)
    /// `KVM_EXIT_HYPERCALL`: the guest executed VMCALL or VMMCALL with an enabled number.
    case hypercall(ckvm_run_hypercall)
    /// `KVM_EXIT_MEMORY_FAULT`, with the errno that came with it: `EFAULT` or `EHWPOISON`.
    case memoryFault(MemoryFault, Errno)
    /// `KVM_EXIT_HLT`.
    case halt
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    case shutdown
    /// `EINTR`, or `KVM_EXIT_INTR`: kicked, a signal, or the end of a time slice.
    case interrupted
    /// `KVM_EXIT_FAIL_ENTRY`, with the hardware's reason.
    case failEntry(UInt64)
    /// `KVM_EXIT_INTERNAL_ERROR`, with its suberror.
    case internalError(UInt32)
    /// `KVM_EXIT_SYSTEM_EVENT`, with its type.
    case systemEvent(UInt32)
    /// `KVM_EXIT_DEBUG`: a single step is done, or a breakpoint or watchpoint of `KVM_SET_GUEST_DEBUG` was reached.
    case debug(ckvm_run_debug)
    /// `KVM_RUN` failed with an errno and without exit information.
    case failed(Errno)
    /// An exit reason that this monitor does not support.
    case unsupported(UInt32)
}

extension KVMVCPU {
    /// Runs the vCPU and returns why it stopped. Allocates no memory.
    public func runToExit() -> Exit {
        do {
            try run()
        } catch {
            switch error {
            case .interrupted: return .interrupted
            case .badAddress, .hardwarePoisoned:
                // Linux leaves the previous exit's reason in place if it reports none for an error,
                // so run() clears it first.
                let page = runPage
                if page.exitReason == CKVM_EXIT_MEMORY_FAULT {
                    let fault = page.memoryFault
                    return .memoryFault(
                        MemoryFault(gpa: fault.gpa, size: fault.size, flags: fault.flags), error)
                }
                return .failed(error)
            default: return .failed(error)
            }
        }
        let page = runPage
        return switch page.exitReason {
        case CKVM_EXIT_IO: .io(page.io)
        case CKVM_EXIT_MMIO: .mmio(page.mmio)
        case CKVM_EXIT_HYPERCALL: .hypercall(page.hypercall)
        case CKVM_EXIT_HLT: .halt
        case CKVM_EXIT_SHUTDOWN: .shutdown
        case CKVM_EXIT_INTR: .interrupted
        case CKVM_EXIT_FAIL_ENTRY: .failEntry(page.failEntryReason)
        case CKVM_EXIT_INTERNAL_ERROR: .internalError(page.internalError.suberror)
        case CKVM_EXIT_SYSTEM_EVENT: .systemEvent(page.systemEventType)
        case CKVM_EXIT_DEBUG: .debug(page.debug)
        case let other: .unsupported(other)
        }
    }
}

extension Errno {
    /// `EHWPOISON`: the page has a memory error.
    public static var hardwarePoisoned: Errno { Errno(rawValue: 133) }
}
