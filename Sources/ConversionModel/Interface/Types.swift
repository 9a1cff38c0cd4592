// SPDX-License-Identifier: MIT
// Arguments and results of KVM's calls, and of the system calls on a guest_memfd.

/// The argument of `KVM_CREATE_VM`.
public enum VMType: UInt, Sendable {
    /// `KVM_X86_DEFAULT_VM`: no private memory.
    case `default` = 0
    /// `KVM_X86_SW_PROTECTED_VM`: private memory without hardware protection.
    case softwareProtected = 1
    /// `KVM_X86_SNP_VM`: AMD SEV-SNP. The model follows the public documents (docs/CONFIDENTIAL.md).
    case snp = 4
    /// `KVM_X86_TDX_VM`: Intel TDX. The model follows the public documents (docs/CONFIDENTIAL.md).
    case tdx = 5

    /// Whether a VM of this type can have private memory.
    public var hasPrivateMemory: Bool { self != .default }
    /// Whether private memory is encrypted with a key of the VM, and the guest has a part in each conversion.
    public var isConfidential: Bool { self == .snp || self == .tdx }
}

/// `GUEST_MEMFD_FLAG_*`.
public struct GuestMemfdFlags: OptionSet, Hashable, Sendable {
    /// `flags` of `struct kvm_create_guest_memfd`.
    public let rawValue: UInt64
    /// Unknown bits are kept, so that the call can reject them.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The host may mmap the file.
    public static var mmap: GuestMemfdFlags { GuestMemfdFlags(rawValue: 1 << 0) }
    /// Pages start shared. Without the flag they start private.
    public static var initShared: GuestMemfdFlags { GuestMemfdFlags(rawValue: 1 << 1) }

    /// The state of the pages of a new file.
    public var initialState: PageState { contains(.initShared) ? .shared : .private }
}

/// `KVM_MEMORY_ATTRIBUTE_*`.
public enum MemoryAttributes {
    /// `KVM_MEMORY_ATTRIBUTE_PRIVATE`
    public static var `private`: UInt64 { 1 << 3 }
}

/// `flags` of `KVM_SET_MEMORY_ATTRIBUTES2` in versions 3 to 5: the content policy. At most one mode can be set.
/// Without one, allocated pages are overwritten with noise.
public struct ContentMode: OptionSet, Hashable, Sendable {
    /// `flags` of `struct kvm_memory_attributes2`.
    public let rawValue: UInt64
    /// Unknown bits are kept, so that the call can reject them.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The pages read as zeros afterwards. Offered only for conversions to shared; otherwise `EOPNOTSUPP`.
    public static var zero: ContentMode { ContentMode(rawValue: 1 << 0) }
    /// Contents are preserved. A software-protected VM offers this in both directions.
    public static var preserve: ContentMode { ContentMode(rawValue: 1 << 1) }
}

/// The effect of a conversion on contents, in each direction.
public struct ContentPromise: Hashable, Sendable {
    /// The effect of a conversion in one direction on the bytes of a page.
    public enum Fate: String, Sendable {
        /// The bytes stay the same, guaranteed by the ABI for this VM type.
        case preserved
        /// No guarantee: the result depends on firmware or on the page's history.
        case undefined
        /// Private and shared memory are separate, so a conversion leaves the bytes behind in the memory that goes
        /// out of use.
        case lost
        /// Each call decides. Versions 3 to 5 of the series preserve the bytes with ``ContentMode/preserve`` and
        /// overwrite them with noise without a flag.
        case byFlag

        /// Whether a caller can have the contents preserved.
        public var canPreserve: Bool { self == .preserved || self == .byFlag }
    }
    /// Conversions from shared to private.
    public let toPrivate: Fate
    /// Conversions from private to shared.
    public let toShared: Fate

    /// Whether the host can zero pages that become private. On SNP and TDX it cannot: the guest finds what its own key
    /// makes of the host's zeros, or the TDX module zeroes the page when the guest accepts it.
    public let zeroesPrivate: Bool

    /// The two directions are separate because SNP and TDX may treat them differently.
    public init(toPrivate: Fate, toShared: Fate, zeroesPrivate: Bool = true) {
        self.toPrivate = toPrivate
        self.toShared = toShared
        self.zeroesPrivate = zeroesPrivate
    }

    /// Linux 7.4 on a software-protected VM.
    public static var preserved: ContentPromise {
        ContentPromise(toPrivate: .preserved, toShared: .preserved)
    }
    /// RFC v1 and v2, and every VM type for which the interface guarantees nothing.
    public static var undefined: ContentPromise {
        ContentPromise(toPrivate: .undefined, toShared: .undefined)
    }
    /// SNP and TDX: contents follow keys, and no monitor can promise anything about private pages.
    public static var encrypted: ContentPromise {
        ContentPromise(toPrivate: .undefined, toShared: .undefined, zeroesPrivate: false)
    }
    /// Per-VM attributes (docs/ABI.md, section 4).
    public static var lost: ContentPromise { ContentPromise(toPrivate: .lost, toShared: .lost) }
    /// RFC v4 and v5, in which ``ContentMode`` decides.
    public static var byFlag: ContentPromise { ContentPromise(toPrivate: .byFlag, toShared: .byFlag) }

    /// Whether a caller can have contents preserved in both directions.
    public var canPreserve: Bool { toPrivate.canPreserve && toShared.canPreserve }

    /// The effect on contents in one direction.
    public func fate(to state: PageState) -> Fate { state == .private ? toPrivate : toShared }
}

/// `KVM_EXIT_MEMORY_FAULT`.
public struct MemoryFault: Hashable, Sendable {
    /// Guest-physical address of the page, without the shared bit.
    public let gpa: UInt64
    /// Bytes.
    public let size: UInt64
    /// `KVM_MEMORY_EXIT_FLAG_*`, all 64 bits as reported.
    public let flags: UInt64

    /// `KVM_MEMORY_EXIT_FLAG_PRIVATE`
    public static var privateFlag: UInt64 { 1 << 3 }

    /// KVM reports whole pages: `gpa` is page aligned and `size` is 4096.
    public init(gpa: UInt64, size: UInt64, flags: UInt64) {
        self.gpa = gpa
        self.size = size
        self.flags = flags
    }

    /// The state of the page that the access needs.
    public var wants: PageState { flags & Self.privateFlag != 0 ? .private : .shared }
    /// Flag bits that the ABI does not define.
    public var unknownFlags: UInt64 { flags & ~Self.privateFlag }
}

/// `MADV_*`.
public enum Advice: String, Sendable, CaseIterable {
    /// `MADV_DONTNEED`: unmaps the pages from this mapping. They stay in the file.
    case dontNeed = "dontneed"
    /// `MADV_REMOVE`: the same as `FALLOC_FL_PUNCH_HOLE`.
    case remove
    /// `MADV_POPULATE_READ`: faults the pages in as a read would.
    case populateRead = "populate_read"
    /// `MADV_POPULATE_WRITE`: faults the pages in as a write would.
    case populateWrite = "populate_write"
    /// `MADV_COLLAPSE`: asks for huge pages, which is `EINVAL` on a guest_memfd.
    case collapse
    /// `MADV_HWPOISON`: injects a memory failure in the first page. The call returns `EBUSY`, but the page is taken
    /// out of use all the same.
    case hwPoison = "hwpoison"
    /// `MADV_SOFT_OFFLINE`: asks the kernel to move the contents to another page and retire this one, which is
    /// `EBUSY` on a guest_memfd.
    case softOffline = "soft_offline"
}

/// Ways in which the host takes references on pages, or pins them.
public enum HoldKind: String, CaseIterable, Sendable {
    /// Pages in a pipe, until it is drained (`vmsplice(2)`).
    case vmsplice
    /// A fixed buffer of io_uring: a long-term pin until the buffer is unregistered (`IORING_REGISTER_BUFFERS`).
    case ioUring = "io_uring"
    /// An `O_DIRECT` write that the device has not completed. It cannot be cancelled: a release waits until it
    /// completes.
    case directIO = "o_direct"
    /// A long-term pin by the kernel's test device (`PIN_LONGTERM_TEST_START`, CONFIG_GUP_TEST).
    case gupTest = "gup_test"
}

/// A system call that a guest_memfd does not support. Its memory is accessible only through mmap and by guests.
public enum FileCall: String, Sendable, CaseIterable {
    /// `read` of one byte.
    case read
    /// `write` of one byte.
    case write
    /// `ftruncate` to one page.
    case truncate
    /// `mmap` with `MAP_PRIVATE`.
    case mapPrivate = "map_private"
    /// `fallocate` without `FALLOC_FL_KEEP_SIZE`.
    case grow
}

/// The protection of a mapped page (`PROT_*`).
public enum Protection: String, Sendable, CaseIterable {
    /// `PROT_NONE`
    case none
    /// `PROT_READ`
    case read
    /// `PROT_READ | PROT_WRITE`
    case readWrite = "read_write"

    /// Whether a read succeeds; if not, it raises SIGSEGV.
    public var isReadable: Bool { self != .none }
    /// Whether a write succeeds; if not, it raises SIGSEGV.
    public var isWritable: Bool { self == .readWrite }
}

/// The NUMA policy that decides from which node a page is allocated (`MPOL_*`).
public enum MemoryPolicy: Sendable, Hashable {
    /// `MPOL_DEFAULT`: no policy for this range.
    case standard
    /// `MPOL_LOCAL`: the node of the CPU that touches the page first.
    case local
    /// `MPOL_BIND` with one node.
    case bind(UInt32)
    /// `MPOL_PREFERRED` with one node. The model, which never runs out of memory, treats it as ``bind(_:)``.
    case preferred(UInt32)
}

/// Flags of `mbind` for pages that are already allocated (`MPOL_MF_*`).
public struct PolicyFlags: OptionSet, Sendable, Hashable {
    /// `flags` of `mbind(2)`.
    public let rawValue: UInt32
    /// Bits other than ``strict`` and ``move`` have no effect in the model.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `EIO` if a page is on another node.
    public static var strict: PolicyFlags { PolicyFlags(rawValue: 1 << 0) }
    /// Move pages to the node of the policy.
    public static var move: PolicyFlags { PolicyFlags(rawValue: 1 << 1) }
}

/// Where the struct of a call is stored, if not in ordinary memory: tests how a call handles a struct that it
/// cannot read or write back.
public enum ArgumentMemory: Sendable, CaseIterable {
    /// Read-only memory.
    case readOnly
    /// Unmapped memory.
    case unmapped
    /// Only the first half of the struct is mapped.
    case cut

    /// Whether the kernel can read all 128 bytes of the struct.
    public var isReadable: Bool { self == .readOnly }
}

/// `struct kvm_memory_attributes2`.
public struct ConversionCall: Hashable, Sendable {
    /// Byte offset in the file.
    public var offset: UInt64
    /// Bytes, a multiple of ``pageSize``.
    public var size: UInt64
    /// `KVM_MEMORY_ATTRIBUTE_*`
    public var attributes: UInt64
    /// 0 in Linux 7.4; a ``ContentMode`` in RFC v3 to v5.
    public var flags: UInt64
    /// Output: byte offset of the page that `EAGAIN` or `ENOMEM` refers to.
    public var errorOffset: UInt64
    /// Whether all eleven reserved words are zero.
    public var isReservedZero: Bool

    /// The defaults are valid in every version.
    public init(
        offset: UInt64, size: UInt64, attributes: UInt64, flags: UInt64 = 0, errorOffset: UInt64 = 0,
        isReservedZero: Bool = true
    ) {
        self.offset = offset
        self.size = size
        self.attributes = attributes
        self.flags = flags
        self.errorOffset = errorOffset
        self.isReservedZero = isReservedZero
    }

    /// The requested state.
    public var target: PageState { attributes & MemoryAttributes.private == 0 ? .shared : .private }
}

/// `struct kvm_userspace_memory_region2`, without padding.
public struct UserspaceMemoryRegion: Hashable, Sendable {
    /// Below ``KernelModel/slotLimit``. The model has one address space, so the upper 16 bits are 0.
    public var slot: UInt32
    /// `KVM_MEM_*`
    public var flags: UInt32
    /// Bytes, page aligned, without the shared bit.
    public var guestPhysicalAddress: UInt64
    /// Bytes; 0 deletes the slot.
    public var memorySize: UInt64
    /// Host address, page aligned. With a guest_memfd, only KVM's own accesses use it.
    public var userspaceAddress: UInt64
    /// Byte offset in the guest_memfd. Unused without ``guestMemfd``.
    public var guestMemfdOffset: UInt64

    /// `KVM_MEM_LOG_DIRTY_PAGES`
    public static var logDirtyPages: UInt32 { 1 << 0 }
    /// `KVM_MEM_READONLY`
    public static var readOnly: UInt32 { 1 << 1 }
    /// `KVM_MEM_GUEST_MEMFD`
    public static var guestMemfd: UInt32 { 1 << 2 }

    /// The descriptor of the guest_memfd is a separate argument of
    /// ``KernelModel/setMemoryRegion(_:_:guestMemfd:)``.
    public init(
        slot: UInt32, flags: UInt32, guestPhysicalAddress: UInt64, memorySize: UInt64,
        userspaceAddress: UInt64 = 0, guestMemfdOffset: UInt64 = 0
    ) {
        self.slot = slot
        self.flags = flags
        self.guestPhysicalAddress = guestPhysicalAddress
        self.memorySize = memorySize
        self.userspaceAddress = userspaceAddress
        self.guestMemfdOffset = guestMemfdOffset
    }
}
