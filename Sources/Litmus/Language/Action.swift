// SPDX-License-Identifier: MIT
public import MiniVMM

/// A byte: of a file, of a view, or for a vCPU of guest-physical memory.
public struct Place: Sendable, Hashable {
    /// The file or view; a vCPU has none but ``Name/ram``.
    public var name: Name
    /// Bytes from its start.
    public var offset: UInt64

    public init(_ name: Name = .ram, offset: UInt64) {
        self.name = name
        self.offset = offset
    }

    public init(_ name: Name = .ram, page: UInt32) { self.init(name, offset: UInt64(page) * pageSize) }
}

/// A run of bytes, not checked: a conversion may be asked for any.
public struct Extent: Sendable, Hashable {
    public var name: Name
    /// Bytes.
    public var offset: UInt64
    public var size: UInt64

    public init(_ name: Name = .ram, offset: UInt64, size: UInt64) {
        self.name = name
        self.offset = offset
        self.size = size
    }

    public init(_ name: Name = .ram, pages: ClosedRange<UInt32>) {
        let first = UInt64(pages.lowerBound)
        self.init(name, offset: first * pageSize, size: (UInt64(pages.upperBound) - first + 1) * pageSize)
    }

    /// First page and last page, where it is made of whole ones.
    var pages: (first: UInt64, last: UInt64)? {
        guard let range = PageRange(start: offset, size: size) else { return nil }
        return (range.start / pageSize, range.end / pageSize - 1)
    }
}

/// What an actor does.
public enum Action: Sendable, Hashable {
    /// One byte, through a view.
    case read(Place)
    case write(Place, UInt8)
    /// Writes every byte.
    case fill(Extent, UInt8)
    /// Reads every byte and compares.
    case check(Extent, UInt8)
    /// `KVM_SET_MEMORY_ATTRIBUTES2` on a file.
    case convert(Conversion)
    /// `mmap` of a part of a file, which makes a view.
    case map(Extent, view: Name)
    /// `munmap` of all of a view. The name stays: a step on it finds nothing mapped.
    case unmap(Name)
    /// `mremap` of all of a view to another address, with so many pages. Another view is there then, and the old one is gone.
    case remap(Name, pages: UInt64, view: Name)
    /// `mprotect` of a part of a view.
    case protect(Extent, Protection)
    /// `mbind` of a part of a view.
    case mbind(Extent, MemoryPolicy, PolicyFlags)
    /// `move_pages` of the page at a place of a view to a NUMA node, or only to say on which it is.
    case migrate(Place, node: UInt32)
    case node(Place)
    /// `madvise` on a part of a view.
    case advise(Extent, Advice)
    /// `fallocate` with `KEEP_SIZE`, and `PUNCH_HOLE` for `punch`.
    case allocate(Extent)
    case punch(Extent)
    /// Somebody takes references on the pages of a view.
    case hold(Extent, by: HoldKind, hold: Name)
    case release(Name)
    /// `KVM_CREATE_GUEST_MEMFD`.
    case create(NewFile)
    /// `close` of a file's descriptor. Its views stay, and so does the name, of a descriptor that is closed.
    case close(Name)
    /// `dup` of a file's descriptor.
    case dup(Name, file: Name)
    /// `KVM_SET_USER_MEMORY_REGION2`: makes a memslot, or tries to change one.
    case bind(Binding)
    /// The same with size 0: deletes one.
    case unbind(slot: UInt32, on: VMName?)
    /// `KVM_GET_DIRTY_LOG` of a slot, its first eight pages.
    case dirty(slot: UInt32, on: VMName?)
    /// `KVM_SET_MEMORY_ATTRIBUTES` on a VM; the extent is guest-physical.
    case setAttributes(Extent, attributes: UInt64, flags: UInt64, on: VMName?)
    /// `KVM_HC_MAP_GPA_RANGE` by a vCPU; the attributes as a conversion has them.
    case hypercall(Extent, attributes: UInt64)
    /// A vCPU enters the guest again, and makes the access that it left before.
    case again
    /// A child is forked from the monitor.
    case fork(child: Int)
    /// `KVM_PRE_FAULT_MEMORY` by a vCPU.
    case preFault(Extent)
    /// KVM's clock is to be at a guest-physical byte (`MSR_KVM_SYSTEM_TIME_NEW`).
    case clock(Place)
    /// A system call that a guest_memfd does not do.
    case syscall(Name, FileCall)
    /// A byte of a view through `/proc/self/mem`.
    case peek(Place)
    /// How many pages have gone out of the VM's second-stage tables since a vCPU last made an access (`pages_4k` of
    /// `KVM_GET_STATS_FD`).
    case zapped
    /// How many pages of a part of a view are in this process's page tables (`/proc/self/pagemap`).
    case present(Extent)
    /// `KVM_CHECK_EXTENSION` of a number on the VM.
    case `extension`(UInt32)
}

/// The argument of `KVM_SET_MEMORY_ATTRIBUTES2`, word by word.
public struct Conversion: Sendable, Hashable {
    /// Where the struct is.
    public enum Structure: String, Sendable, CaseIterable {
        case writable
        case readOnly = "readonly"
        case unmapped
        /// Its second half is not mapped.
        case cut
    }
    public struct Word: Sendable, Hashable {
        /// 0 to 10.
        public var index: Int
        public var value: UInt64

        public init(index: Int, value: UInt64) {
            self.index = index
            self.value = value
        }
    }
    public var extent: Extent
    public var attributes: UInt64
    /// What is to become of the contents, where the monitor is asked; nil is the bare call.
    public var contents: ContentPolicy?
    /// How the monitor goes about it, where it is asked.
    public var monitor = MonitorPolicy()
    public var flags: UInt64
    public var reserved: [Word]
    /// `error_offset` on input.
    public var errorOffset: UInt64
    public var structure: Structure

    public init(
        _ extent: Extent, attributes: UInt64, contents: ContentPolicy? = nil, flags: UInt64 = 0,
        reserved: [Word] = [], errorOffset: UInt64 = 0, structure: Structure = .writable
    ) {
        self.extent = extent
        self.attributes = attributes
        self.contents = contents
        self.flags = flags
        self.reserved = reserved
        self.errorOffset = errorOffset
        self.structure = structure
    }

    public init(_ extent: Extent, to state: PageState, contents: ContentPolicy? = nil) {
        self.init(extent, attributes: Attributes.word(state), contents: contents)
    }
}

/// How the monitor's converter goes about a request of a test: by default in one call, once.
public struct MonitorPolicy: Sendable, Hashable {
    /// `bisect`: it converts around pages in use.
    public var bisects = false
    /// `attempts N`: calls for one piece before it gives up.
    public var attempts = 1
    /// `chunk N`: pages of the largest call; nil is ``Converter/defaultChunk``.
    public var chunk: UInt64?

    /// Most attempts that a test can ask for.
    public static let mostAttempts = 100

    public init() {}

    /// Between attempts no time passes that a test would notice.
    var retry: RetryPolicy {
        RetryPolicy(
            attempts: attempts, firstBackoff: .microseconds(1), longestBackoff: .microseconds(100),
            deadline: .seconds(10),
            inUse: bisects ? .bisect : .fail)
    }
}

/// The attributes word.
public enum Attributes {
    /// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
    public static let `private`: UInt64 = 1 << 3

    public static func word(_ state: PageState) -> UInt64 { state == .private ? Self.private : 0 }

    /// The state that a word means, nil if it means none.
    static func state(_ word: UInt64) -> PageState? { PageState.allCases.first { self.word($0) == word } }
}

/// One of the VMs of a test.
public enum VMName: String, Sendable, CaseIterable {
    /// A software-protected VM, and a second one.
    case protected
    case second
    /// A default VM.
    case `default`

    var type: VMType { self == .default ? .default : .softwareProtected }
}

/// The argument of `KVM_CREATE_GUEST_MEMFD`.
public struct NewFile: Sendable, Hashable {
    public var name: Name
    /// Bytes.
    public var size: UInt64
    public var flags: UInt64
    /// The VM it is made on; nil is the test's.
    public var vm: VMName?
    /// Its contents are to be preserved, where a kernel can be told so at creation (``ContentDesign/creationFlag``).
    public var preserves: Bool

    public init(_ name: Name, size: UInt64, flags: UInt64, vm: VMName? = nil, preserves: Bool = false) {
        self.preserves = preserves
        self.name = name
        self.size = size
        self.flags = flags
        self.vm = vm
    }
}

/// The argument of `KVM_SET_USER_MEMORY_REGION2`, with a size that is not 0.
public struct Binding: Sendable, Hashable {
    public var slot: UInt32
    /// `guest_memfd`, `guest_memfd_offset` and `memory_size`.
    public var extent: Extent
    /// `guest_phys_addr`, bytes.
    public var gpa: UInt64
    /// `KVM_MEM_GUEST_MEMFD` is 4.
    public var flags: UInt32
    /// `userspace_addr`: a place in a view. Nil is the same place in the view with the file's name.
    public var address: Place?
    public var vm: VMName?

    public static let guestMemfd: UInt32 = 1 << 2

    public init(
        slot: UInt32, to extent: Extent, gpa: UInt64, flags: UInt32 = guestMemfd, address: Place? = nil,
        vm: VMName? = nil
    ) {
        self.slot = slot
        self.extent = extent
        self.gpa = gpa
        self.flags = flags
        self.address = address
        self.vm = vm
    }
}
