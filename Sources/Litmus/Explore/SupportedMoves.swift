// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// What tests are made of on a kernel, found out by trying.
struct SupportedMoves {
    /// Machines beside a software-protected VM with one alias.
    enum Machine: CaseIterable, Sendable {
        case `default`
        case twoAliases
        /// Attributes that can have few runs: without more memory it is `ENOMEM`.
        case fewRuns

        /// A test with such a machine.
        fileprivate var example: LitmusTest {
            var test = LitmusTest(name: "machine", memory: [Memory(pages: 1, initial: .shared)])
            switch self {
            case .default:
                test.vm = .default
                // Adapters have the kernel's own below, which converts nothing.
                test.needs = [.inPlace]
            case .twoAliases: test.hasTwoAliases = true
            case .fewRuns: test.settings.attributeRuns = 1
            }
            test.body = [.step(Step(.host(0), .read(Place(page: 0))))]
            return test
        }
        /// As people read it.
        fileprivate var name: String {
            switch self {
            case .default: "vm default"
            case .twoAliases: "aliases two"
            case .fewRuns: "kernel runs"
            }
        }
    }

    private(set) var moves: [Move] = []
    /// Those of a VM with two aliases.
    private(set) var aliasMoves: [Move] = []
    private(set) var machines: Set<Machine> = []
    /// Which bytes a page has after a conversion can be said, and so what who reads meanwhile may see.
    let knowsContents: Bool
    /// What the kernel cannot do, with its reason.
    private(set) var leftOut: [(move: String, reason: String)] = []

    /// The resource that the host ran out of while moves were tried.
    private(set) var hostFailure: HostFailure?

    private let predictor: Predictor
    private let runner: Runner

    /// - Parameter promise: what the kernel's VMs say becomes of contents.
    init(_ promise: ContentPromise, _ predictor: Predictor, _ runner: Runner) {
        self.predictor = predictor
        self.runner = runner
        knowsContents = promise.isKnown
        for machine in Machine.allCases { add(machine) }
        for move in Move.allCases {
            if [.ask, .askForGuest, .convertOnFault].contains(move),
                [promise.toPrivate, promise.toShared].contains(.byFlag)
            {
                leftOut.append(
                    (move.name, "each call says what becomes of contents, and in Linux 7.4 none does"))
            } else {
                add(move)
            }
        }
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

    /// Why the kernel can say nothing about a test; nil if it can.
    private mutating func absence(of test: LitmusTest) -> String? {
        var test = test
        // A hold means nothing where no references are counted.
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

    /// A short test in which there is such a step.
    private static func example(of move: Move) -> LitmusTest? {
        if move == .again { return implicit }
        if move == .convertOnFault { return converting }
        for seed in 0..<64 as Range<UInt64> {
            var draft = Draft(seed: seed)
            // What it could be about.
            if let before = move.subject?.step(in: &draft) { draft.append(before) }
            guard let step = move.step(in: &draft) else { continue }
            draft.append(step)
            return draft.test
        }
        return nil
    }

    /// A vCPU reads a page of the other kind, which is converted for it.
    private static let converting: LitmusTest = {
        var test = LitmusTest(
            name: "converting", hasTwoAliases: true, memory: [Memory(pages: 1, initial: .private)])
        let read = Step(.vcpu(0), .read(Place(.shared, page: 0)), onFault: FaultConversion(.unspecified))
        test.body = [.step(read)]
        return test
    }()

    /// A vCPU stands before a page of the other kind, and makes its access once the page is converted.
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
    /// Which bytes a page has after a bare conversion can be said.
    fileprivate var isKnown: Bool { [toPrivate, toShared].allSatisfy { $0 == .preserved || $0 == .lost } }
}
