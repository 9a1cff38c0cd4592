// SPDX-License-Identifier: MIT
public import MiniVMM

/// A litmus test: what the machine is, and what its actors do to its memory, in which order, with which answers.
///
/// A value first: it can be built, changed and compared by programs. ``text`` and ``Source/init(parsing:)`` are its
/// written form, and each undoes the other for every test that ``firstProblem()`` has nothing to say about.
public struct LitmusTest: Sendable, Hashable {
    /// What it shows, in a sentence: printable ASCII without quotes and backslashes.
    public var name: String
    public var hazards: [Hazard]
    public var needs: [Need]
    /// What the kernel is to be; only the software kernel can be told.
    public var settings: KernelSettings
    /// The type of the VM that steps mean when they name none.
    public var vm: VMType
    /// `aliases two`: the VM has a shared bit, so that an access of a vCPU is private or shared by its address.
    public var hasTwoAliases: Bool
    public var memory: [Memory]
    public var body: [Entry]

    public init(
        name: String, hazards: [Hazard] = [], needs: [Need] = [], settings: KernelSettings = KernelSettings(),
        vm: VMType = .softwareProtected,
        hasTwoAliases: Bool = false, memory: [Memory] = [], body: [Entry] = []
    ) {
        self.name = name
        self.hazards = hazards
        self.needs = needs
        self.settings = settings
        self.vm = vm
        self.hasTwoAliases = hasTwoAliases
        self.memory = memory
        self.body = body
    }

    /// All steps in the order of the text, those of parallel blocks too.
    public var steps: [Step] {
        body.flatMap { entry -> [Step] in
            switch entry {
            case .step(let step): [step]
            case .parallel(let block): block.steps
            }
        }
    }
}

/// A row of the hazard table: `A6`, or `H22` for one that only earlier versions of the interface have.
public struct Hazard: Sendable, Hashable {
    public var isHistoric: Bool
    public var number: UInt16

    public init(isHistoric: Bool = false, number: UInt16) {
        self.isHistoric = isHistoric
        self.number = number
    }
}

/// What a kernel must have for the test to mean anything.
public enum Need: Sendable, Hashable {
    /// `in-place`: the kernel itself answers `KVM_SET_MEMORY_ATTRIBUTES2`, on every VM type.
    case inPlace
    /// `preservation`: contents survive conversions in both directions.
    case preservation
    /// `references`: a page that somebody holds cannot become private.
    case references
    /// `holder KIND`: that user of pages can be had.
    case holder(HoldKind)
    /// `nodes N`: the machine has so many NUMA nodes with memory.
    case nodes(UInt32)
}

/// What the kernel of a test is to be (`kernel` lines). ``SoftKVM`` is made so; of a real one the first is asked, and the
/// others mean that it cannot say anything about the test.
public struct KernelSettings: Sendable, Hashable {
    /// `kernel in-place off`: `kvm.gmem_in_place_conversion=0`, or a kernel without the series.
    public var isInPlaceOff = false
    /// `kernel runs N`: runs of equal state that the attributes of a file may have; beyond that it is `ENOMEM`.
    public var attributeRuns: Int?
    /// `kernel design NAME`: where it is decided what becomes of contents.
    public var design: ContentDesign?
    /// `kernel keeps to-private` or `to-shared`: the one direction in which the memory can keep contents at all.
    public var keptDirection: PageState?

    public init() {}

    public var isEmpty: Bool { self == KernelSettings() }
}

/// A guest_memfd that is there when the test begins, `MMAP` set, with a view of all of it under the same name.
///
/// It is bound to a memslot of the test's VM: the first to slot 0 at guest-physical 0, each next to the next number
/// and the next free address.
public struct Memory: Sendable, Hashable {
    public var name: Name
    public var pages: UInt64
    public var initial: PageState
    /// No memslot.
    public var isUnbound: Bool

    public init(name: Name = .ram, pages: UInt64, initial: PageState, isUnbound: Bool = false) {
        self.name = name
        self.pages = pages
        self.initial = initial
        self.isUnbound = isUnbound
    }
}

/// A line of the body, or a block of lines.
public enum Entry: Sendable, Hashable {
    case step(Step)
    case parallel(Parallel)

    var isBlock: Bool { if case .parallel = self { true } else { false } }
}

/// Steps that run at once: those of one actor in their order, those of different actors in any.
public struct Parallel: Sendable, Hashable {
    public var steps: [Step]
    public var clauses: [Clause]

    public init(steps: [Step], clauses: [Clause] = []) {
        self.steps = steps
        self.clauses = clauses
    }
}

/// What is said about the outcomes of a parallel block.
public struct Clause: Sendable, Hashable {
    public enum Kind: String, Sendable, CaseIterable {
        /// May be seen. Where there is one such clause, nothing else may be.
        case allowed
        /// Has to be seen in some run.
        case required
        /// Must be seen in none.
        case forbidden
    }
    public struct Condition: Sendable, Hashable {
        /// The result that a step of the block has named.
        public var result: Name
        public var outcome: StepOutcome

        public init(result: Name, outcome: StepOutcome) {
            self.result = result
            self.outcome = outcome
        }
    }
    public var kind: Kind
    /// All of them together.
    public var conditions: [Condition]

    public init(_ kind: Kind, _ conditions: [Condition]) {
        self.kind = kind
        self.conditions = conditions
    }
}

/// Who acts.
public enum Role: Sendable, Hashable {
    /// A thread of the monitor: `host`, `host1`, …
    case host(Int)
    case vcpu(Int)
    /// A process that was forked from the monitor: `child`, `child1`, …
    case child(Int)

    /// Numbers are below this.
    public static let limit = 16
}

/// One actor, one action, and what must come of it.
public struct Step: Sendable, Hashable {
    public var role: Role
    public var action: Action
    public var expectation: Expectation

    public init(_ role: Role, _ action: Action, _ expectation: Expectation = .unspecified) {
        self.role = role
        self.action = action
        self.expectation = expectation
    }
}

/// What stands behind `=>`.
public enum Expectation: Sendable, Hashable {
    /// Nothing: the step must succeed.
    case unspecified
    /// One of these.
    case anyOf([StepOutcome])
    /// The result has a name, which the clauses of the block judge.
    case named(Name)
}

/// What can come of a step.
public enum StepOutcome: Sendable, Hashable {
    case ok
    /// A system call's errno (its raw value, 1 to 4095), and for a conversion `error_offset` where it was written.
    case errno(Int32, at: UInt64? = nil)
    /// What was read.
    case value(UInt8)
    /// The access got no page; with the first such byte where it was an access to many.
    case sigbus(at: UInt64? = nil)
    /// The first byte that is not what it should be.
    case differs(at: UInt64)
    /// A vCPU left with `KVM_EXIT_MEMORY_FAULT`, wanting the page to be this; with its guest-physical address.
    case fault(PageState, at: UInt64? = nil)
    /// A vCPU left with `KVM_EXIT_MMIO`.
    case mmio
}
