public import MiniVMM
import SystemPackage

/// Runs tests on a kernel, step by step in the order of the text.
///
/// The host's threads are one here: what they do one after the other is the same from any thread of a process.
public struct Runner: Sendable {
    private let kernel: any KVMInterface

    public init(_ kernel: any KVMInterface) { self.kernel = kernel }

    public func run(_ source: Source) -> Verdict {
        if let reason = source.test.unsupported { return .skipped(reason) }
        for need in source.test.needs {
            if let reason = Needs(kernel, source.test.vm).absence(of: need) { return .skipped(reason) }
        }
        let world: World
        do throws(Stop) {
            world = try World(kernel, source.test)
        } catch {
            return verdict(error, nil, nil, source)
        }
        defer { world.close() }
        for (index, step) in source.test.steps.enumerated() {
            do throws(Stop) {
                let seen = try world.perform(step)
                if step.accepts(seen) { continue }
                return .failed(
                    Failure(
                        step: index, line: source.places[index].line, text: "\(step.role) \(step.action)",
                        expected: step.expected, seen: seen.description, pages: world.pages(around: step)))
            } catch {
                return verdict(error, step, index, source)
            }
        }
        return .passed
    }

    private func verdict(_ stop: Stop, _ step: Step?, _ index: Int?, _ source: Source) -> Verdict {
        switch stop {
        case .skip(let reason): .skipped(reason)
        case .broken(let reason):
            .failed(
                Failure(
                    step: index, line: index.map { source.places[$0].line },
                    text: step.map { "\($0.role) \($0.action)" } ?? "the machine is made",
                    expected: step?.expected ?? "ok", seen: reason, pages: []))
        }
    }
}

/// Why a test does not go on.
enum Stop: Error {
    /// What it needs is not here.
    case skip(String)
    /// What it says cannot be done, because an earlier step ended otherwise, or at all.
    case broken(String)
}

/// What came of a step.
struct Observation: CustomStringConvertible {
    var outcome: StepOutcome
    /// What no outcome has words for, and what must never be.
    var oddity: String?

    init(_ outcome: StepOutcome, oddity: String? = nil) {
        self.outcome = outcome
        self.oddity = oddity
    }

    var description: String { "\(outcome)" + (oddity.map { ", and \($0)" } ?? "") }
}

extension Step {
    fileprivate func accepts(_ seen: Observation) -> Bool {
        guard seen.oddity == nil else { return false }
        switch (expectation, seen.outcome) {
        case (.unsaid, .value), (.unsaid, .ok), (.named, _): return true
        case (.unsaid, _): return false
        case (.anyOf(let outcomes), let seen): return outcomes.contains { $0.covers(seen) }
        }
    }

    fileprivate var expected: String {
        switch expectation {
        case .unsaid, .named: "success"
        case .anyOf(let outcomes): outcomes.map(\.description).joined(separator: " or ")
        }
    }
}

extension StepOutcome {
    /// `SIGBUS` without a place is one anywhere; all else is meant to the letter.
    fileprivate func covers(_ seen: StepOutcome) -> Bool {
        if case (.sigbus(nil), .sigbus) = (self, seen) { return true }
        return self == seen
    }
}

extension LitmusTest {
    /// What this runner cannot do; a test that asks for it is skipped, whole.
    fileprivate var unsupported: String? {
        for entry in body {
            guard case .step(let step) = entry else { return "parallel blocks are not run yet" }
            switch (step.role, step.action) {
            case (.vcpu, .hypercall): return "hypercalls are not run yet"
            case (.child, _), (_, .fork): return "forked children are not run yet"
            case (_, .convert(let conversion)):
                if conversion.contents == .zero { return "conversions with contents zero are not run yet" }
                if conversion.structure != .writable {
                    return "a struct that is \(conversion.structure.rawValue) is not run yet"
                }
            default: break
            }
        }
        return nil
    }
}
