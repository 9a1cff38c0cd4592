// SPDX-License-Identifier: MIT
public import ConversionModel

/// A litmus test: a machine, the steps of its actors, and the answers that a kernel must give
/// (litmus/README.md).
///
/// Programs can build, change and compare tests. ``text`` writes a test and ``Source/init(parsing:)`` reads
/// it; each reverses the other for every test whose ``firstProblem()`` is nil.
public struct LitmusTest: Sendable, Hashable {
    /// `test`: what the test shows, in one sentence of 1 to 200 bytes of printable ASCII without quotes and
    /// backslashes.
    public var name: String
    /// `hazard`: rows of the hazard table that the test is about. At most 64.
    public var hazards: [Hazard]
    /// `needs`: what a backend must support; otherwise the test is skipped on it. At most 64.
    public var needs: [Need]
    /// `kernel`: how the kernel is configured. SoftKVM is configured so; on a real kernel the test may be skipped.
    public var settings: KernelSettings
    /// `vm`: the type of the test's VM, which steps use unless they name another one.
    public var vm: VMType
    /// `aliases two`: the VM has a shared bit, so that a vCPU accesses each page through a private alias or a shared
    /// alias.
    public var hasTwoAliases: Bool
    /// `memory`: guest_memfds that exist when the test begins. At most 64, with different names.
    public var memory: [Memory]
    /// The steps and parallel blocks in the order of the text. At least one step.
    public var body: [Entry] { didSet { listed = StepList(body) } }
    private var listed: StepList

    /// A test. It is not checked: see ``firstProblem()``.
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
        listed = StepList(body)
    }

    /// All steps in the order of the text, including those of parallel blocks. Each change of ``body`` lists them once,
    /// because a run of a test asks for them a dozen times.
    public var steps: [Step] { listed.steps }

    /// Whether a vCPU reaches each page through a private alias or a shared one: always on SNP and TDX.
    package var guestHasTwoAliases: Bool { hasTwoAliases || vm.isConfidential }
}

/// The steps of a body. They follow from it, so they take no part in comparisons of tests.
private struct StepList: Sendable, Hashable {
    let steps: [Step]

    init(_ body: [Entry]) {
        var steps: [Step] = []
        steps.reserveCapacity(body.count)
        for entry in body {
            switch entry {
            case .step(let step): steps.append(step)
            case .parallel(let block): steps += block.steps
            }
        }
        self.steps = steps
    }

    static func == (a: StepList, b: StepList) -> Bool { true }
    func hash(into hasher: inout Hasher) {}
}

/// A row of a hazard table: `A6` or `H22` of docs/ABI.md, or `V16` of docs/CONFIDENTIAL.md.
public struct Hazard: Sendable, Hashable {
    /// The letter of a row, which says where the hazard exists.
    public enum Table: String, Sendable, CaseIterable {
        /// `A`: in Linux 7.4.
        case applied = "A"
        /// `H`: only in posted versions of the interface.
        case historic = "H"
        /// `V`: in SNP, TDX, pKVM or CCA guests and their monitors.
        case vendor = "V"
    }
    /// The letter.
    public var table: Table
    /// The number after the letter.
    public var number: UInt16

    /// A row of a table, which need not exist.
    public init(_ table: Table = .applied, number: UInt16) {
        self.table = table
        self.number = number
    }
}

/// A feature that a backend must support for the test to be meaningful. It is tried on a scratch VM.
public enum Need: Sendable, Hashable {
    /// `in-place`: the kernel itself answers `KVM_SET_MEMORY_ATTRIBUTES2`, on every VM type.
    case inPlace
    /// `preservation`: contents survive conversions in both directions.
    case preservation
    /// `references`: a page with extra references cannot become private.
    case references
    /// `holder KIND`: this way of taking references on pages is available.
    case holder(HoldKind)
    /// `nodes N`: the machine has at least N NUMA nodes with memory, up to 64.
    case nodes(UInt32)

    package static let mostNodes: UInt32 = 64
}

/// The `kernel` lines of a test.
///
/// ``SoftKVM`` is configured so. A real kernel can only match ``isInPlaceOff``; with any other setting, or if it does
/// not match, the test is skipped on it.
public struct KernelSettings: Sendable, Hashable {
    /// `kernel in-place off`: `kvm.gmem_in_place_conversion=0`, or a kernel without the series.
    public var isInPlaceOff = false
    /// `kernel runs N`: the attributes of a file may have at most N runs of equal state; a conversion that
    /// needs more is `ENOMEM`. Nil is no limit.
    public var attributeRuns: Int?
    /// `kernel design NAME`: where the fate of contents is decided. Nil leaves it to the interface's version.
    public var design: ContentDesign?
    /// `kernel keeps to-private` or `to-shared`: the only direction in which conversions preserve contents.
    /// Nil leaves it to the interface's version.
    public var keptDirection: PageState?

    /// No setting.
    public init() {}

    /// Whether nothing is set.
    public var isEmpty: Bool { self == KernelSettings() }
}

/// A `memory` line: a guest_memfd with the flag `MMAP` that exists when the test begins, with a view of all
/// of it under the same name.
///
/// The first one is bound to slot 0 of the test's VM at guest-physical 0, each further one to the next slot
/// and address.
public struct Memory: Sendable, Hashable {
    /// The name of the file and of its view; ``Name/ram`` if the line has none.
    public var name: Name
    /// Pages of 4096 bytes: 1 to ``LitmusTest/mostPages``.
    public var pages: UInt64
    /// The initial state of its pages; shared sets the flag `INIT_SHARED`.
    public var initial: PageState
    /// `unbound`: whether it is not bound to a memslot.
    public var isUnbound: Bool

    /// A memory, by default bound and named ``Name/ram``.
    public init(name: Name = .ram, pages: UInt64, initial: PageState, isUnbound: Bool = false) {
        self.name = name
        self.pages = pages
        self.initial = initial
        self.isUnbound = isUnbound
    }
}

/// A step, or a parallel block, in the body of a test.
public enum Entry: Sendable, Hashable {
    /// A step that begins when everything before it has ended.
    case step(Step)
    /// A block between `parallel` and `end`.
    case parallel(Parallel)

    package var isBlock: Bool { if case .parallel = self { true } else { false } }
}

/// A parallel block. The steps of one actor run in their order, those of different actors in any order.
public struct Parallel: Sendable, Hashable {
    /// The steps in the order of the text.
    public var steps: [Step]
    /// `preempted`: the schedule of the block on a kernel that can be swept. Nil is none.
    public var preemption: Preemption?
    /// The clauses that judge the outcomes of the block.
    public var clauses: [Clause]

    /// A block of these steps and clauses, by default without a schedule.
    public init(steps: [Step], preemption: Preemption? = nil, clauses: [Clause] = []) {
        self.steps = steps
        self.preemption = preemption
        self.clauses = clauses
    }

    /// The actors in the order of their first steps.
    package var actors: [Actor] {
        steps.map { $0.actor }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }
}

/// A clause about the outcomes of a parallel block.
public struct Clause: Sendable, Hashable {
    /// The word that begins the clause.
    public enum Kind: String, Sendable, CaseIterable {
        /// `allowed`: the outcome may occur. If a block has such a clause, only `allowed` and `required`
        /// outcomes may occur.
        case allowed
        /// `required`: the outcome must occur in some run.
        case required
        /// `forbidden`: the outcome must not occur in any run.
        case forbidden
    }
    /// `NAME = outcome`: a step of the block ended this way.
    public struct Condition: Sendable, Hashable {
        /// The name that a step of the block gives its result.
        public var result: Name
        /// The outcome of that step. `SIGBUS` and `fault` without a place match any place.
        public var outcome: StepOutcome

        /// A condition on a result.
        public init(result: Name, outcome: StepOutcome) {
            self.result = result
            self.outcome = outcome
        }
    }
    /// Whether the outcome is allowed, required or forbidden.
    public var kind: Kind
    /// The conditions, all of which must hold in the same run.
    public var conditions: [Condition]

    /// A clause of at least one condition.
    public init(_ kind: Kind, _ conditions: [Condition]) {
        self.kind = kind
        self.conditions = conditions
    }
}

extension Actor {
    /// Actors are numbered from 0 up to, but not including, this.
    public static let limit = 16
}

/// One actor, one action, and the expected outcome.
public struct Step: Sendable, Hashable {
    /// The actor.
    public var actor: Actor
    /// The action of the actor.
    public var action: Action
    /// `converting`: what the monitor does when this access of a vCPU exits with a memory fault. If nil, the fault is
    /// the outcome.
    public var onFault: FaultConversion?
    /// The expected outcome.
    public var expectation: Expectation

    /// A step, which by default must succeed.
    public init(
        _ actor: Actor, _ action: Action, _ expectation: Expectation = .unspecified,
        onFault: FaultConversion? = nil
    ) {
        self.actor = actor
        self.action = action
        self.onFault = onFault
        self.expectation = expectation
    }
}

/// The expectation after `=>`.
public enum Expectation: Sendable, Hashable {
    /// Nothing: the step must succeed.
    case unspecified
    /// The step must end with one of these outcomes, 1 to 16.
    case anyOf([StepOutcome])
    /// The result has this name, and the clauses of the parallel block judge it.
    case named(Name)
}

/// How a step can end.
public enum StepOutcome: Sendable, Hashable {
    /// `ok`: it succeeded. A conversion has not changed `error_offset`.
    case ok
    /// `EAGAIN at 2`: a system call failed with this errno, 1 to 4095. `at`, in bytes, is what a conversion
    /// wrote to `error_offset`, or for a vCPU and a conversion of ``Name/guest`` the guest-physical address
    /// of the page. Nil if there is none.
    case errno(Int32, at: UInt64? = nil)
    /// `0x41`: the byte that was read. Steps that return a number give at most 255.
    case value(UInt8)
    /// `SIGBUS`: the access got no page. `at` is the first such byte of the view; nil for an access to one
    /// byte, and in an expectation for any place.
    case sigbus(at: UInt64? = nil)
    /// `differs at`: the first byte, counted from the start of the view, that `check` found to be different.
    case differs(at: UInt64)
    /// `fault private`: a vCPU exited with `KVM_EXIT_MEMORY_FAULT`, and needs the page in this state. `at` is its
    /// guest-physical address; nil in an expectation matches any address.
    case fault(PageState, at: UInt64? = nil)
    /// `mmio`: a vCPU exited with `KVM_EXIT_MMIO`: no memslot has the address, or the memslot is read-only.
    case mmio
    /// `garbage`: the byte that was read had been written with another key. It is not the one that was written.
    case garbage
    /// `RETRY at 2`: what an instruction or request of an SNP or TDX guest has answered. `at` is a guest-physical
    /// address, bytes; nil if there is none.
    case status(ArchitectureStatus, at: UInt64? = nil)
}
