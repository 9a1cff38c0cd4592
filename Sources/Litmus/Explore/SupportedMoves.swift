// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// The moves that a backend supports, determined by trying each.
struct SupportedMoves {
    /// Machines other than a software-protected VM with one alias.
    enum Machine: CaseIterable, Sendable {
        case `default`
        case twoAliases
        /// Attributes with few runs: a conversion that needs more is `ENOMEM`.
        case fewRuns
        /// SNP and TDX, which only the model has.
        case snp, tdx

        /// A test with such a machine.
        fileprivate var example: LitmusTest {
            var test = LitmusTest(name: "machine", memory: [Memory(pages: 1, initial: .shared)])
            switch self {
            case .default:
                test.vm = .default
                // An adapter uses VMs of the kernel below, which converts nothing.
                test.needs = [.inPlace]
            case .twoAliases: test.hasTwoAliases = true
            case .fewRuns: test.settings.attributeRuns = 1
            case .snp: test.vm = .snp
            case .tdx: test.vm = .tdx
            }
            test.body = [.step(Step(.host(0), .read(Place(page: 0))))]
            return test
        }
        /// The name for people.
        var name: String {
            switch self {
            case .default: "vm default"
            case .twoAliases: "aliases two"
            case .fewRuns: "kernel runs"
            case .snp: "vm snp"
            case .tdx: "vm tdx"
            }
        }
    }

    private(set) var moves: [Move] = []
    /// The moves of a VM with two aliases.
    private(set) var aliasMoves: [Move] = []
    private(set) var machines: Set<Machine> = []
    /// The moves of an SNP or TDX VM; empty if the backend has none.
    private(set) var confidentialMoves: [Move] = []
    /// Whether a page's bytes after a conversion are defined, and therefore what a concurrent reader may see.
    let knowsContents: Bool
    /// The moves that are not supported, with the reason.
    private(set) var leftOut: [(move: String, reason: String)] = []

    /// The resource that the host ran out of while the moves were tried.
    private(set) var hostFailure: HostFailure?

    private let predictor: Predictor
    private let runner: Runner
    private let excluded: Set<String>
    private let announcer: Announcer?

    /// - Parameters:
    ///   - promise: the content promise of the backend's VMs.
    ///   - excluded: names of moves and machines that are not tried.
    init(
        _ promise: ContentPromise, _ predictor: Predictor, _ runner: Runner, excluded: Set<String> = [],
        announcer: Announcer? = nil
    ) {
        self.excluded = excluded
        self.announcer = announcer
        self.predictor = predictor
        self.runner = runner
        knowsContents = promise.isKnown
        for machine in Machine.allCases where !isExcluded(machine.name) { add(machine) }
        for move in Move.allCases where move != .confidential && !isExcluded(move.name) {
            if [.ask, .askForGuest, .convertOnFault].contains(move),
                [promise.toPrivate, promise.toShared].contains(.byFlag)
            {
                leftOut.append(
                    (move.name, "each call sets the content policy, which Linux 7.4 does not support"))
            } else {
                add(move)
            }
        }
        if !machines.isDisjoint(with: [.snp, .tdx]) {
            confidentialMoves = moves.filter(\.isOfConfidentialVM) + [.confidential]
        }
    }

    /// The moves of a VM of this kind.
    func moves(of test: LitmusTest) -> [Move] {
        if test.vm.isConfidential { return confidentialMoves }
        return test.hasTwoAliases ? aliasMoves : moves
    }

    /// Whether the caller excluded a move or machine. If not, the tests that follow are announced as its probes.
    private mutating func isExcluded(_ name: String) -> Bool {
        guard !excluded.contains(name) else {
            leftOut.append((name, "excluded by the caller"))
            return true
        }
        announcer?.announces(.probe(step: name))
        return false
    }

    private mutating func add(_ machine: Machine) {
        guard let source = try? Source(machine.example) else { return }
        switch runner.run(source) {
        case .skipped(let reason): leftOut.append((machine.name, reason))
        case .hostFailed(let failure): hostFailure = hostFailure ?? failure
        case .passed, .failed: machines.insert(machine)
        }
    }

    private mutating func add(_ move: Move) {
        guard var test = Self.example(of: move) else { return }
        if let reason = absence(of: test) { return leftOut.append((move.name, reason)) }
        moves.append(move)
        if test.hasTwoAliases { return aliasMoves.append(move) }
        guard machines.contains(.twoAliases) else { return }
        test.hasTwoAliases = true
        if let reason = absence(of: test) {
            leftOut.append(("\(move.name) with aliases two", reason))
        } else {
            aliasMoves.append(move)
        }
    }

    /// Why the backend cannot judge a test; nil if it can.
    private mutating func absence(of test: LitmusTest) -> String? {
        var test = test
        // Without reference counts a hold has no effect.
        let holds = test.steps.contains { if case .hold = $0.action { true } else { false } }
        if holds { test.needs.append(.references) }
        let needsCPU = test.steps.contains { if case .vcpu = $0.actor { true } else { false } }
        if needsCPU, case .missing(let message) = SoftKVM(predictor.configuration).engineStatus {
            return "the model has no CPU here: \(message)"
        }
        guard let prediction = predictor.predict(test) else { return nil }
        guard let source = try? Source(prediction.test) else { return nil }
        switch runner.run(source) {
        case .skipped(let reason): return reason
        case .hostFailed(let failure):
            hostFailure = hostFailure ?? failure
            return failure.description
        case .passed, .failed: return nil
        }
    }

    // MARK: examples

    /// A short test with such a step.
    private static func example(of move: Move) -> LitmusTest? {
        if move == .again { return implicit }
        if move == .convertOnFault { return converting }
        for seed in 0..<64 as Range<UInt64> {
            var draft = Draft(seed: seed)
            // The objects that the step may need.
            if let before = move.subject?.step(in: &draft) { draft.append(before) }
            guard let step = move.step(in: &draft) else { continue }
            draft.append(step)
            return draft.test
        }
        return nil
    }

    /// A vCPU reads a page of the other state, which is converted for it.
    private static let converting: LitmusTest = {
        var test = LitmusTest(
            name: "converting", hasTwoAliases: true, memory: [Memory(pages: 1, initial: .private)])
        let read = Step(.vcpu(0), .read(Place(.shared, page: 0)), onFault: FaultConversion(.unspecified))
        test.body = [.step(read)]
        return test
    }()

    /// A vCPU stops at a page of the other state, and completes its access after the page is converted.
    private static let implicit: LitmusTest = {
        var test = LitmusTest(
            name: "again", hasTwoAliases: true, memory: [Memory(pages: 1, initial: .private)])
        let conversion = Conversion(Extent(pages: 0...0), to: .shared)
        test.body = [
            .step(Step(.vcpu(0), .read(Place(.shared, page: 0)))),
            .step(Step(.host(0), .convert(conversion))),
            .step(Step(.vcpu(0), .again)),
        ]
        return test
    }()
}

extension ContentPromise {
    /// Whether the bytes of a page after a bare conversion are defined.
    fileprivate var isKnown: Bool { [toPrivate, toShared].allSatisfy { $0 == .preserved || $0 == .lost } }
}
