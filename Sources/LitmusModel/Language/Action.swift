// SPDX-License-Identifier: MIT
public import ConversionModel

/// A byte of a file or a view, or for a vCPU of guest-physical memory.
public struct Place: Sendable, Hashable {
    /// The file or view. For a vCPU ``Name/ram``, or with two aliases ``Name/shared``.
    public var name: Name
    /// Bytes from its start; for a vCPU the guest-physical address.
    public var offset: UInt64

    /// A byte at an offset in bytes.
    public init(_ name: Name = .ram, offset: UInt64) {
        self.name = name
        self.offset = offset
    }

    /// The first byte of a page of 4096 bytes.
    public init(_ name: Name = .ram, page: UInt32) { self.init(name, offset: UInt64(page) * pageSize) }
}

/// A range of bytes. It is not checked, because a test may request any conversion.
public struct Extent: Sendable, Hashable {
    /// The file or view; ``Name/ram`` for guest-physical memory; ``Name/guest`` for that of a conversion.
    public var name: Name
    /// The first byte, counted from the start of the file or view; or a guest-physical address.
    public var offset: UInt64
    /// Number of bytes. It may be 0, and may end beyond 64 bits.
    public var size: UInt64

    /// A range in bytes.
    public init(_ name: Name = .ram, offset: UInt64, size: UInt64) {
        self.name = name
        self.offset = offset
        self.size = size
    }

    /// All bytes of these pages of 4096 bytes.
    public init(_ name: Name = .ram, pages: ClosedRange<UInt32>) {
        let first = UInt64(pages.lowerBound)
        self.init(name, offset: first * pageSize, size: (UInt64(pages.upperBound) - first + 1) * pageSize)
    }

    /// The first and the last page; nil if the range is not whole pages.
    package var pages: (first: UInt64, last: UInt64)? {
        guard let range = PageRange(start: offset, size: size) else { return nil }
        return (range.start / pageSize, range.end / pageSize - 1)
    }
}

/// The action of a step (the table in litmus/README.md).
public indirect enum Action: Sendable, Hashable {
    /// `read`: reads one byte through a view, or as a vCPU.
    case read(Place)
    /// `write`: writes one byte.
    case write(Place, UInt8)
    /// `fill`: writes every byte of a range.
    case fill(Extent, UInt8)
    /// `check`: reads every byte of a range and compares it.
    case check(Extent, UInt8)
    /// `convert`: `KVM_SET_MEMORY_ATTRIBUTES2` on a file, directly or through the monitor's converter, or the
    /// converter on guest-physical pages.
    case convert(Conversion)
    /// `map`: `mmap` of a part of a file, which makes the view `view`.
    case map(Extent, view: Name)
    /// `unmap`: `munmap` of a whole view. Later steps on its name find nothing mapped.
    case unmap(Name)
    /// `mremap`: moves a whole view to another address and changes its size to `pages` pages. The result is
    /// the view `view`; the old one is gone.
    case remap(Name, pages: UInt64, view: Name)
    /// `mprotect` of a part of a view.
    case protect(Extent, Protection)
    /// `mbind` of a part of a view.
    case mbind(Extent, MemoryPolicy, PolicyFlags)
    /// `migrate`: `move_pages` of the page at a place of a view to a NUMA node.
    case migrate(Place, node: UInt32)
    /// `node`: the NUMA node of the page at a place of a view (`move_pages` without a target).
    case node(Place)
    /// `madvise` on a part of a view.
    case advise(Extent, Advice)
    /// `allocate`: `fallocate` with `FALLOC_FL_KEEP_SIZE`.
    case allocate(Extent)
    /// `punch`: `fallocate` with `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
    case punch(Extent)
    /// `hold`: takes references on the pages of a view, under the name `hold`.
    case hold(Extent, by: HoldKind, hold: Name)
    /// `release`: drops the references of a hold.
    case release(Name)
    /// `create`: `KVM_CREATE_GUEST_MEMFD`.
    case create(NewFile)
    /// `close` of a file's descriptor. Its views stay; later steps on its name get `EBADF`.
    case close(Name)
    /// `dup` of a file's descriptor. `file` names the new one.
    case dup(Name, file: Name)
    /// `bind`: `KVM_SET_USER_MEMORY_REGION2`, which creates or changes a memslot.
    case bind(Binding)
    /// `unbind`: the same call with size 0, which deletes the memslot. Without a VM it is the test's.
    case unbind(slot: UInt32, on: VMName?)
    /// `dirty`: `KVM_GET_DIRTY_LOG` of a memslot of at most eight pages, as a byte with one bit for each
    /// page. Without a VM it is the test's.
    case dirty(slot: UInt32, on: VMName?)
    /// `vm_attributes`: `KVM_SET_MEMORY_ATTRIBUTES` on a VM. The range is guest-physical. Without a VM it is
    /// the test's.
    case setAttributes(Extent, attributes: UInt64, flags: UInt64, on: VMName?)
    /// `hypercall`: `KVM_HC_MAP_GPA_RANGE` by a vCPU. Attributes 8 and 0 mean private and shared as in a conversion;
    /// any other word is passed unchanged.
    case hypercall(Extent, attributes: UInt64)
    /// `again`: a vCPU that exited with a fault enters the guest again, and repeats the access.
    case again
    /// `fork`: the monitor forks this child, which has the views that exist now.
    case fork(child: Int)
    /// `prefault`: `KVM_PRE_FAULT_MEMORY` by a vCPU.
    case preFault(Extent)
    /// `clock`: puts KVM's clock at a guest-physical byte (`MSR_KVM_SYSTEM_TIME_NEW`). KVM writes it when the
    /// vCPU next enters.
    case clock(Place)
    /// `syscall`: a system call that a guest_memfd does not support.
    case syscall(Name, FileCall)
    /// `peek`: reads one byte of a view through `/proc/self/mem`.
    case peek(Place)
    /// `zapped`: number of pages that have left the VM's second-stage tables since a vCPU last made an access
    /// (`pages_4k` of `KVM_GET_STATS_FD`).
    case zapped
    /// `present`: number of pages of a part of a view that are in this process's page tables
    /// (`/proc/self/pagemap`).
    case present(Extent)
    /// `extension`: `KVM_CHECK_EXTENSION` of a number on the test's VM.
    case `extension`(UInt32)
    /// `every N of`: the action for each page of a pattern, in ascending order, until one fails. The action is that of
    /// the first page (``every(_:of:_:)``).
    case every(Pattern, Action)
    /// An action that only SNP and TDX VMs have.
    case confidential(ConfidentialAction)
}

/// The argument of `KVM_SET_MEMORY_ATTRIBUTES2`, word by word, and how the request is made.
public struct Conversion: Sendable, Hashable {
    /// `struct`: the memory that the struct is in.
    public enum Structure: String, Sendable, CaseIterable {
        /// The default: readable and writable memory.
        case writable
        /// `struct readonly`: memory that the kernel can read but not write.
        case readOnly = "readonly"
        /// `struct unmapped`: an address at which nothing is mapped.
        case unmapped
        /// `struct cut`: the second half of the struct is not mapped.
        case cut
    }
    /// `reserved N = VALUE`: a reserved word of the struct.
    public struct Word: Sendable, Hashable {
        /// 0 to 10.
        public var index: Int
        /// The 64-bit value; every word that a test does not name is 0.
        public var value: UInt64

        /// A reserved word.
        public init(index: Int, value: UInt64) {
            self.index = index
            self.value = value
        }
    }
    /// `offset` and `size` of the struct, and the file on which the call is made. A range of ``Name/guest`` may lie in
    /// several files, and only the monitor's converter accepts it: then ``contents`` is not nil, and nothing else of
    /// the struct is set.
    public var extent: Extent
    /// `attributes` of the struct: ``Attributes/private``, 0 for shared, or any other word.
    public var attributes: UInt64
    /// The content policy for the monitor's converter. Nil makes the bare call.
    public var contents: ContentPolicy?
    /// How the monitor's converter works; it must be the default if ``contents`` is nil.
    public var monitor = MonitorPolicy()
    /// `flags` of the struct.
    public var flags: UInt64
    /// Reserved words that are not 0.
    public var reserved: [Word]
    /// `error_offset` of the struct on input.
    public var errorOffset: UInt64
    /// The memory that the struct is in.
    public var structure: Structure

    /// A conversion with any attributes word.
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

    /// A conversion to private or shared.
    public init(_ extent: Extent, to state: PageState, contents: ContentPolicy? = nil) {
        self.init(extent, attributes: Attributes.word(state), contents: contents)
    }
}

/// The monitor's response to a memory fault of a vCPU's access: it converts the page that the exit names to the state that
/// the access needs, and enters again, like `run --on-fault convert`.
///
/// With one alias no access asks for another state. A fault then means a conversion in progress, and the vCPU enters
/// again without a conversion.
public struct FaultConversion: Sendable, Hashable {
    /// `preserve`, `zero` or `unspecified`: the content policy for the page.
    public var contents: ContentPolicy
    /// How the monitor's converter works.
    public var monitor: MonitorPolicy

    /// A policy for memory faults.
    public init(_ contents: ContentPolicy, monitor: MonitorPolicy = MonitorPolicy()) {
        self.contents = contents
        self.monitor = monitor
    }

    /// Whether the conversion is a single call of the kernel.
    package var isOneCall: Bool { contents != .zero && monitor == MonitorPolicy() }
}

/// How the monitor's converter handles a request of a test.
public struct MonitorPolicy: Sendable, Hashable {
    /// `bisect`: whether it converts around pages in use.
    public var bisects = false
    /// `attempts N`: the number of calls for one piece before it gives up, 1 to ``mostAttempts``.
    public var attempts = 1
    /// `chunk N`: the number of pages of the largest call; nil is ``Converter/defaultChunk``.
    public var chunk: UInt64?

    /// The largest number of attempts of a test.
    public static let mostAttempts = 100

    /// No bisecting, one attempt, and the default chunk.
    public init() {}

    /// The backoff between attempts is too short to matter to a test.
    package var retry: RetryPolicy {
        RetryPolicy(
            attempts: attempts, firstBackoff: .microseconds(1), longestBackoff: .microseconds(100),
            deadline: .seconds(10),
            inUse: bisects ? .bisect : .fail)
    }
}

/// The attributes word of `KVM_SET_MEMORY_ATTRIBUTES2`.
public enum Attributes {
    /// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
    public static let `private`: UInt64 = 1 << 3

    /// The attributes word that asks for a state: ``private``, or 0 for shared.
    public static func word(_ state: PageState) -> UInt64 { state == .private ? Self.private : 0 }

    /// The state that a word requests; nil if it requests none.
    package static func state(_ word: UInt64) -> PageState? {
        PageState.allCases.first { self.word($0) == word }
    }
}

/// `on NAME`: one of the VMs of a test. A VM is created when a step first needs it.
public enum VMName: String, Sendable, CaseIterable {
    /// A software-protected VM.
    case protected
    /// Another software-protected VM.
    case second
    /// A default VM, which has no private memory.
    case `default`
    /// An SNP VM. Only the model has one.
    case snp
    /// A TDX VM. Only the model has one.
    case tdx

    package var type: VMType {
        switch self {
        case .protected, .second: .softwareProtected
        case .default: .default
        case .snp: .snp
        case .tdx: .tdx
        }
    }
}

/// The argument of `KVM_CREATE_GUEST_MEMFD`.
public struct NewFile: Sendable, Hashable {
    /// The name of the new file.
    public var name: Name
    /// Bytes; not checked.
    public var size: UInt64
    /// `GUEST_MEMFD_FLAG_*`: 1 is `MMAP`, 2 is `INIT_SHARED`.
    public var flags: UInt64
    /// The VM that creates it; nil is the test's.
    public var vm: VMName?
    /// `preserve`: requests that contents are preserved, in the design in which creation decides
    /// (``ContentDesign/creationFlag``).
    public var preserves: Bool

    /// A file to be created.
    public init(_ name: Name, size: UInt64, flags: UInt64, vm: VMName? = nil, preserves: Bool = false) {
        self.preserves = preserves
        self.name = name
        self.size = size
        self.flags = flags
        self.vm = vm
    }
}

/// The argument of `KVM_SET_USER_MEMORY_REGION2`, with a size other than 0.
public struct Binding: Sendable, Hashable {
    /// The number of the memslot.
    public var slot: UInt32
    /// `guest_memfd`, `guest_memfd_offset` and `memory_size`.
    public var extent: Extent
    /// `guest_phys_addr`, bytes.
    public var gpa: UInt64
    /// `KVM_MEM_*`: ``guestMemfd`` is 4. Without it the slot maps `userspace_addr`, where 1 is a dirty log
    /// and 2 read-only.
    public var flags: UInt32
    /// `userspace_addr`: a place in a view. Nil is the same place in the view with the file's name.
    public var address: Place?
    /// The VM of the memslot; nil is the test's.
    public var vm: VMName?

    /// `KVM_MEM_GUEST_MEMFD`.
    public static let guestMemfd: UInt32 = 1 << 2
    /// The size up to which a slot's bytes need no mapping, because nothing is ever mapped below mmap_min_addr.
    package static let mostUnmapped: UInt64 = 1 << 16

    /// A memslot to be created or changed.
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
