// SPDX-License-Identifier: MIT
/// The in-place conversion interface as a value: files and their pages, host mappings, references, memslots and
/// VMs, and the result of every call on them.
///
/// A copy is cheap until one of the two changes (copy on write). Two models are equal if no later call can tell
/// them apart. The model makes no system call, takes no lock and has no clock. It is used in two ways:
///
/// * With ``Contents/inside`` the model keeps every byte. A byte that the interface leaves undefined is
///   ``Byte/unknown``.
/// * With ``Contents/outside`` the caller keeps the bytes and runs a CPU on them. ``takeEffects()`` returns what
///   the calls have done to them.
public struct KernelModel: Hashable, Sendable {
    /// Constant during the life of the model.
    public let rules: Rules
    /// Where the bytes of the files are stored.
    public let contents: Contents
    var files = Table<File>()
    var descriptors = Table<Descriptor>()
    var mappings = Table<Mapping>()
    var holds = Table<Hold>()
    var vms = Table<VM>()
    var effects: [Effect] = []

    /// Leaves out the rules: models that are compared usually have the same ones.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(files)
        hasher.combine(mappings)
        hasher.combine(vms)
    }

    /// Where the bytes of the files are stored.
    public enum Contents: Hashable, Sendable {
        /// In the model. Its accesses read and write them, and no effects are recorded.
        case inside
        /// With the caller, who applies the effects of ``KernelModel/takeEffects()``. The bytes in the model are
        /// meaningless.
        case outside
    }

    /// A model without VMs and files.
    public init(_ rules: Rules = Rules(), contents: Contents = .inside) {
        self.rules = rules
        self.contents = contents
    }

    /// Returns the effects of all calls since the last time, in order. Always empty with ``Contents/inside``.
    public mutating func takeEffects() -> [Effect] {
        if effects.isEmpty { return [] }
        defer { effects = [] }
        return effects
    }

    mutating func note(_ effect: Effect) {
        if contents == .outside { effects.append(effect) }
    }

    @inline(__always)
    func plants(_ fault: PlantedFault) -> Bool { rules.faults.contains(fault) }
}

/// The rules that the model follows: version, options and planted faults.
public struct Rules: Hashable, Sendable {
    /// The version of the interface.
    public let abi: ABIProfile
    /// The design that decides whether contents are preserved; nil is the rule of ``abi``.
    public let contentDesign: ContentDesign?
    /// The effect on contents that is promised to callers.
    public let contentPromise: ContentPromise
    /// The effect that conversions really have. It differs from the promise only through planted faults.
    let contentFate: ContentPromise
    /// The rules that are broken on purpose; empty for the correct interface.
    public let faults: PlantedFaults
    /// `kvm.gmem_in_place_conversion`. False models a kernel without the series.
    public let convertsInPlace: Bool
    /// The number of runs of equal state that the attributes of one file can have; a conversion that needs more is
    /// `ENOMEM`.
    public let maximumAttributeRuns: Int
    /// The number of bytes of a file, from 0, that can be mapped and bound, for a caller who keeps the bytes in a
    /// finite address space. Pages past the limit have a state but no contents.
    public let memoryLimit: UInt64

    /// By default Linux 7.4 without limits and faults. With a `contentPromise` of nil it is that of `abi`.
    public init(
        abi: ABIProfile = .linux74, contentDesign: ContentDesign? = nil,
        contentPromise: ContentPromise? = nil,
        faults: PlantedFaults = PlantedFaults(), convertsInPlace: Bool = true,
        maximumAttributeRuns: Int = .max, memoryLimit: UInt64 = .max
    ) {
        self.abi = abi
        self.contentDesign = contentDesign
        self.contentPromise = contentPromise ?? abi.contentPromise
        contentFate = faults.contents(self.contentPromise)
        self.faults = faults
        self.convertsInPlace = convertsInPlace
        self.maximumAttributeRuns = maximumAttributeRuns
        self.memoryLimit = memoryLimit
    }

    /// The error of a call that would map or bind pages past ``memoryLimit``. Linux never returns it for these
    /// calls.
    public static var noBackingMemory: ErrorNumber { .notSupportedOnSocket }

    /// Whether all of these bytes of a file are below ``memoryLimit``.
    func hasMemory(_ fileSize: UInt64, offset: UInt64, length: UInt64) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(length)
        return fileSize <= memoryLimit || !overflow && end <= memoryLimit
    }
}

/// The effects of a call on bytes that the caller keeps (``KernelModel/Contents/outside``), and on second-stage tables.
public enum Effect: Hashable, Sendable {
    /// The pages of the range read as zeros from now on.
    case discarded(FileID, PageRange)
    /// All bytes of the range are overwritten.
    case overwritten(FileID, PageRange, Overwrite)
    /// SNP: the pages now belong to the host, who finds the guest's plaintext encrypted.
    case encrypted(FileID, PageRange)
    /// SNP: the pages now belong to the guest, which finds what its key makes of the host's bytes.
    case decrypted(FileID, PageRange)
    /// A page is removed from its file. The hold keeps its current bytes.
    case detached(HoldID, FileID, page: UInt64)
    /// The last reference to the file is gone.
    case removed(FileID)
    /// Guest-physical pages were removed from the second-stage tables of a VM. With `keepsAccess` the CPU may keep
    /// its translations, because no access of this VM can mismatch the state of the page.
    case zapped(VMID, PageRange, keepsAccess: Bool)
    /// The bytes of guest-physical pages have changed: code that was translated from them is stale.
    case codeChanged(VMID, PageRange)
    /// SNP and TDX: how far the guest has taken these private pages now, by guest-physical address.
    case guestPages(VMID, PageRange, GuestPageState)

    /// The bytes that take the place of the old ones.
    public enum Overwrite: Hashable, Sendable {
        /// Used by per-VM attributes and `ZERO`.
        case zeros
        /// Undefined bytes: ``Byte/unknown`` with ``KernelModel/Contents/inside``.
        case noise
    }
}

/// The inode of a guest_memfd. Like all identifiers below, valid only in the model that returned it, until the
/// object is forgotten.
public struct FileID: Hashable, Comparable, Sendable {
    let index: Int32
    /// Not the order of creation: a new file gets the lowest free number.
    public static func < (a: FileID, b: FileID) -> Bool { a.index < b.index }
}
/// A descriptor of a guest_memfd.
public struct DescriptorID: Hashable, Sendable {
    let index: Int32
    /// The file descriptor number, for a process whose descriptors are those of the model.
    public var rawValue: Int32 { index }
}
/// A host mapping of a file.
public struct MappingID: Hashable, Sendable { let index: Int32 }
/// References of a holder on the host to pages.
public struct HoldID: Hashable, Sendable { let index: Int32 }
/// A VM.
public struct VMID: Hashable, Sendable { let index: Int32 }

/// An element of a ``Table``. `vacant` fills a free place.
protocol TableElement: Hashable, Sendable {
    static var vacant: Self { get }
}

/// Elements by number. As with file descriptors, a new one gets the lowest free number, so that equal states have
/// equal numbers.
struct Table<Element: TableElement>: Hashable, Sendable {
    private var elements: ContiguousArray<Element> = []
    private var isUsed: ContiguousArray<Bool> = []

    mutating func insert(_ element: Element) -> Int32 {
        if let free = isUsed.firstIndex(of: false) {
            elements[free] = element
            isUsed[free] = true
            return Int32(truncatingIfNeeded: free)
        }
        elements.append(element)
        isUsed.append(true)
        return Int32(truncatingIfNeeded: elements.count - 1)
    }

    mutating func remove(_ number: Int32) {
        elements[Int(number)] = .vacant
        isUsed[Int(number)] = false
        while isUsed.last == false {
            elements.removeLast()
            isUsed.removeLast()
        }
    }

    /// The numbers of all elements, ascending.
    var numbers: Numbers { Numbers(isUsed: isUsed) }

    struct Numbers: Sequence, IteratorProtocol {
        let isUsed: ContiguousArray<Bool>
        var place = 0

        init(isUsed: ContiguousArray<Bool>) { self.isUsed = isUsed }

        mutating func next() -> Int32? {
            while place < isUsed.count {
                defer { place += 1 }
                if isUsed[place] { return Int32(truncatingIfNeeded: place) }
            }
            return nil
        }
    }

    /// The element must exist: a number is valid from ``insert(_:)`` to ``remove(_:)``.
    subscript(number: Int32) -> Element {
        _read { yield elements[Int(number)] }
        _modify { yield &elements[Int(number)] }
    }
}

extension KernelModel {
    subscript(file: FileID) -> File {
        _read { yield files[file.index] }
        _modify { yield &files[file.index] }
    }
    subscript(mapping: MappingID) -> Mapping {
        _read { yield mappings[mapping.index] }
        _modify { yield &mappings[mapping.index] }
    }
    subscript(hold: HoldID) -> Hold {
        _read { yield holds[hold.index] }
        _modify { yield &holds[hold.index] }
    }
    subscript(vm: VMID) -> VM {
        _read { yield vms[vm.index] }
        _modify { yield &vms[vm.index] }
    }
}
