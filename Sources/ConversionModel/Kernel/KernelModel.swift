// SPDX-License-Identifier: MIT
/// The in-place conversion interface of a kernel as a value: files and their pages, host mappings, references, memslots and
/// VMs, and what every call on them answers.
///
/// A copy costs nothing until one of the two changes, and two models are equal when no later call could tell them apart.
/// The model makes no system call, takes no lock and knows no clock. It is used in two ways:
///
/// * With ``Contents/inside`` it knows every byte, and a byte that the interface leaves undefined is ``Byte/unknown``.
/// * With ``Contents/outside`` somebody else keeps the bytes and runs a CPU on them, and ``takeEffects()`` says what a call
///   has done to them.
public struct KernelModel: Hashable, Sendable {
    /// They do not change during the life of the model.
    public let rules: Rules
    /// Where the bytes of the files are.
    public let contents: Contents
    var files = Table<File>()
    var descriptors = Table<Descriptor>()
    var mappings = Table<Mapping>()
    var holds = Table<Hold>()
    var vms = Table<VM>()
    var effects: [Effect] = []

    /// The rules of models that are compared are the same, as a rule.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(files)
        hasher.combine(mappings)
        hasher.combine(vms)
    }

    /// Where the bytes of the files are stored.
    public enum Contents: Hashable, Sendable {
        /// The model. Its accesses read and write them, and it records no effects.
        case inside
        /// The caller, who applies what ``KernelModel/takeEffects()`` returns. The bytes in the model mean
        /// nothing.
        case outside
    }

    /// A kernel without VMs and files.
    public init(_ rules: Rules = Rules(), contents: Contents = .inside) {
        self.rules = rules
        self.contents = contents
    }

    /// Returns the effects of the calls since the last time, in order. Always empty with ``Contents/inside``.
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

/// The rules that a kernel follows: its version, its options and its planted faults.
public struct Rules: Hashable, Sendable {
    /// The version of the interface.
    public let abi: ABIProfile
    /// Where it is decided what becomes of contents; nil is what ``abi`` says.
    public let contentDesign: ContentDesign?
    /// What the kernel says that conversions do to contents.
    public let contentPromise: ContentPromise
    /// What they do.
    let contentFate: ContentPromise
    /// The rules that the kernel breaks on purpose; empty for a correct kernel.
    public let faults: PlantedFaults
    /// `kvm.gmem_in_place_conversion`; false is a kernel without the series.
    public let convertsInPlace: Bool
    /// Runs of equal state that one file's attributes may have before a conversion that needs more is `ENOMEM`.
    public let maximumAttributeRuns: Int
    /// Bytes of a file that have memory behind them, for a program that keeps the bytes: its address space is finite. Pages
    /// behind that have a state and nothing else, and nobody can map or bind them.
    public let mostMemory: UInt64

    /// By default Linux 7.4 without limits and faults. A `contentPromise` of nil is what `abi` promises.
    public init(
        abi: ABIProfile = .linux74, contentDesign: ContentDesign? = nil,
        contentPromise: ContentPromise? = nil,
        faults: PlantedFaults = PlantedFaults(), convertsInPlace: Bool = true,
        maximumAttributeRuns: Int = .max, mostMemory: UInt64 = .max
    ) {
        self.abi = abi
        self.contentDesign = contentDesign
        self.contentPromise = contentPromise ?? abi.contentPromise
        contentFate = faults.contents(self.contentPromise)
        self.faults = faults
        self.convertsInPlace = convertsInPlace
        self.maximumAttributeRuns = maximumAttributeRuns
        self.mostMemory = mostMemory
    }

    /// What a call is refused with that would map or bind pages without memory. No kernel answers so.
    public static var noMemoryBehind: ErrorNumber { .notSupportedOnSocket }

    /// Whether there is memory behind all of these bytes of a file, as far as they are in it.
    func hasMemory(_ fileSize: UInt64, offset: UInt64, length: UInt64) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(length)
        return fileSize <= mostMemory || !overflow && end <= mostMemory
    }
}

/// What a call does to bytes that are ``KernelModel/Contents/outside``, and to second-stage tables.
public enum Effect: Hashable, Sendable {
    /// The pages of the range read as zeros from now on.
    case discarded(FileID, PageRange)
    /// All bytes of the range are overwritten.
    case overwritten(FileID, PageRange, Overwrite)
    /// A page leaves its file; the hold keeps its bytes as they are now.
    case detached(HoldID, FileID, page: UInt64)
    /// Nothing refers to the file any more.
    case removed(FileID)
    /// Guest-physical pages have left the second-stage tables of a VM. With `keepsAccess` they may stay reachable: no access
    /// of this VM can be of the wrong kind.
    case zapped(VMID, PageRange, keepsAccess: Bool)
    /// The bytes of guest-physical pages have changed: code that was translated from them is stale.
    case codeChanged(VMID, PageRange)

    /// The bytes that take the place of the old ones.
    public enum Overwrite: Hashable, Sendable {
        /// What per-VM attributes and `ZERO` leave.
        case zeros
        /// Bytes that nobody may depend on: ``Byte/unknown`` with ``KernelModel/Contents/inside``.
        case noise
    }
}

/// The inode of a guest_memfd. As for the numbers below: valid in the model that gave it, until what it names is forgotten.
public struct FileID: Hashable, Comparable, Sendable {
    let index: Int32
    /// A new file gets the lowest free number, so the order is not that of creation once a file was removed.
    public static func < (a: FileID, b: FileID) -> Bool { a.index < b.index }
}
/// A descriptor of a guest_memfd.
public struct DescriptorID: Hashable, Sendable {
    let index: Int32
    /// The number itself, for a process whose descriptors are the model's.
    public var rawValue: Int32 { index }
}
/// A host mapping of a file.
public struct MappingID: Hashable, Sendable { let index: Int32 }
/// References that somebody on the host has on pages.
public struct HoldID: Hashable, Sendable { let index: Int32 }
/// A VM.
public struct VMID: Hashable, Sendable { let index: Int32 }

/// What a place of a ``Table`` holds while it is free.
protocol TableElement: Hashable, Sendable {
    static var vacant: Self { get }
}

/// Elements by number. A new one gets the lowest number that is free, as a file descriptor does, so that equal states
/// have equal numbers.
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

    /// Numbers of all elements, ascending.
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

    /// The element must be there: numbers come from ``insert(_:)`` and are used until ``remove(_:)``.
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
