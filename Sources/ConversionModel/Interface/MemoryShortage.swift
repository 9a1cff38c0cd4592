// SPDX-License-Identifier: MIT
/// A system call of a test's step that allocates memory in the kernel.
public enum AllocatingCall: String, CaseIterable, Hashable, Sendable {
    /// `KVM_CREATE_VM`
    case createVM = "KVM_CREATE_VM"
    /// `KVM_CREATE_VCPU`
    case createVCPU = "KVM_CREATE_VCPU"
    /// `KVM_CREATE_GUEST_MEMFD`
    case createFile = "KVM_CREATE_GUEST_MEMFD"
    /// `KVM_SET_USER_MEMORY_REGION2`
    case setMemoryRegion = "KVM_SET_USER_MEMORY_REGION2"
    /// `KVM_SET_MEMORY_ATTRIBUTES` on a VM
    case setVMAttributes = "KVM_SET_MEMORY_ATTRIBUTES"
    /// `KVM_SET_MEMORY_ATTRIBUTES2` on a guest_memfd
    case convert = "KVM_SET_MEMORY_ATTRIBUTES2"
    /// `KVM_RUN`
    case run = "KVM_RUN"
    /// `KVM_PRE_FAULT_MEMORY`
    case preFault = "KVM_PRE_FAULT_MEMORY"
    /// `KVM_GET_DIRTY_LOG`
    case dirtyLog = "KVM_GET_DIRTY_LOG"
    /// `KVM_SET_MSRS`
    case setRegister = "KVM_SET_MSRS"
    /// `PIN_LONGTERM_TEST_START` of gup_test
    case pin = "PIN_LONGTERM_TEST_START"
    /// `mmap`
    case map = "mmap"
    /// `munmap`
    case unmap = "munmap"
    /// `mremap`
    case remap = "mremap"
    /// `mprotect`
    case protect = "mprotect"
    /// `mbind`
    case bindToNode = "mbind"
    /// `move_pages`
    case movePages = "move_pages"
    /// `madvise`
    case advise = "madvise"
    /// `fallocate`
    case allocate = "fallocate"
    /// `fcntl(F_DUPFD_CLOEXEC)`
    case duplicate = "fcntl"
    /// `close`
    case close = "close"
    /// `read` of a guest_memfd
    case read = "read"
    /// `write` to a guest_memfd
    case write = "write"
    /// `ftruncate`
    case truncate = "ftruncate"
    /// `pread` of `/proc/self/mem`
    case readMemoryFile = "pread"
    /// `process_vm_readv`
    case readMemory = "process_vm_readv"
    /// `process_vm_writev`
    case writeMemory = "process_vm_writev"
    /// `vmsplice`
    case splice = "vmsplice"
    /// `io_uring_setup`
    case createRing = "io_uring_setup"
    /// `IORING_REGISTER_BUFFERS`
    case registerBuffer = "IORING_REGISTER_BUFFERS"
    /// `io_setup`
    case createAIO = "io_setup"
    /// `io_submit`
    case submitAIO = "io_submit"
    /// `fork`
    case fork = "fork"
}

/// The ways in which a system call may fail if one of its allocations fails (docs/ABI.md, section 6). It may also succeed.
public struct ShortageRule: Hashable, Sendable {
    /// The effect of a call that returns one of ``ShortageRule/errnos``.
    public enum Effect: Hashable, Sendable {
        /// Nothing: state, references, descriptors and contents are as before.
        case nothing
        /// The pages or mappings before the failed one are done. Repeating the call does the rest.
        case prefix
        /// The guest notices nothing. The vCPU continues when it enters again.
        case entersAgain
    }
    /// The errnos that report the failed allocation.
    public let errnos: [ErrorNumber]
    /// The effect of the call then.
    public let effect: Effect
    /// Whether the call may also return success with a part done, and has to be repeated for the rest.
    public let mayStopEarly: Bool

    init(_ errnos: [ErrorNumber], _ effect: Effect = .nothing, mayStopEarly: Bool = false) {
        self.errnos = errnos
        self.effect = effect
        self.mayStopEarly = mayStopEarly
    }
}

extension AllocatingCall {
    /// The rule of the call.
    public var shortageRule: ShortageRule {
        switch self {
        // EFAULT hides it if error_offset cannot be written.
        case .convert: ShortageRule([.noMemory, .badAddress])
        case .run: ShortageRule([.noMemory], .entersAgain)
        // A loop over pages, which counts a part as success.
        case .preFault: ShortageRule([.noMemory], .prefix, mayStopEarly: true)
        // Loops over pages that end at the first error.
        case .allocate, .advise: ShortageRule([.noMemory], .prefix)
        // Loops over mappings, which a change of a part of them splits or joins.
        case .protect, .bindToNode: ShortageRule([.noMemory], .prefix)
        // A page that cannot be pinned is EFAULT, whatever the reason. The array of pages for more than 16 pages is ENOMEM.
        case .readMemory, .writeMemory: ShortageRule([.badAddress, .noMemory], .prefix)
        case .splice: ShortageRule([.noMemory, .badAddress], .prefix)
        // If only the first pages can be pinned, they are released, and the answer is EFAULT whatever the reason.
        case .registerBuffer: ShortageRule([.noMemory, .badAddress])
        case .readMemoryFile: ShortageRule([.ioError, .noMemory], .prefix)
        // No request is EAGAIN, whatever the reason.
        case .submitAIO: ShortageRule([.resourceTemporarilyUnavailable, .noMemory])
        // It always closes.
        case .close: ShortageRule([])
        case .fork: ShortageRule([.noMemory, .resourceTemporarilyUnavailable])
        default: ShortageRule([.noMemory])
        }
    }
}
