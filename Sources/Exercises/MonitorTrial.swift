// SPDX-License-Identifier: MIT
public import ConversionModel
import LitmusModel

/// A monitor's converter written in Swift, in the cases of exercise 8 ("A monitor that loses nothing").
///
/// The converter is a function. It gets a request of the guest and a ``Kernel``, and makes calls until the request is
/// carried out as far as it can be. The trial runs it on the model in every case and looks at every page, from both sides.
public struct MonitorTrial: Sendable {
    /// A request of the guest.
    public struct Request: Sendable, Equatable {
        /// Guest pages of 4096 bytes.
        public let pages: Range<Int>
        /// The state that the guest asks for.
        public let target: PageState
    }

    /// How the kernel answers a call.
    public enum Answer: Sendable, Equatable {
        /// Every page has the state.
        case done
        /// The guest page that is in use (`EAGAIN` with its error_offset). Nothing has changed.
        case inUse(page: Int)
        /// Any other errno. Nothing has changed.
        case refused(errno: Int32)
    }

    /// The kernel, as the converter sees it.
    public struct Kernel: Sendable {
        fileprivate var oracle: Oracle
        /// The guest pages of each memory. A call is for pages of one memory.
        public let memories: [Range<Int>]
        /// The calls so far, for people.
        public private(set) var calls: [String] = []

        fileprivate init(_ oracle: Oracle, _ memories: [Range<Int>]) {
            self.oracle = oracle
            self.memories = memories
        }

        /// The number of calls after which the kernel answers `EIO` only.
        public static let mostCalls = 1000

        /// One call of `KVM_SET_MEMORY_ATTRIBUTES2`.
        ///
        /// - Parameters:
        ///   - pages: pages of one memory. Others, or none, are refused with `EINVAL` (22).
        ///   - target: the state that they get.
        ///   - preserving: whether the request says that contents must be preserved. If not, a kernel may overwrite them.
        /// - Returns: the answer.
        public mutating func convert(_ pages: Range<Int>, to target: PageState, preserving: Bool) -> Answer {
            guard calls.count < Self.mostCalls else { return .refused(errno: 5) }
            guard !pages.isEmpty, let place = memories.firstIndex(where: { $0.contains(pages.lowerBound) }),
                pages.upperBound <= memories[place].upperBound
            else { return .refused(errno: 22) }
            let base = memories[place].lowerBound
            let first = pages.lowerBound - base
            let last = pages.upperBound - 1 - base
            let text =
                "host convert \(place == 0 ? "" : "other:")\(first)..\(last) \(target.rawValue) "
                + (preserving ? "preserve" : "unspecified")
            let answer = perform(text, base)
            calls.append("\(text) => \(answer.text)")
            return answer
        }

        private mutating func perform(_ line: String, _ base: Int) -> Answer {
            var text = TestText(["test \"a call\"", "memory 8 pages shared", "memory other 8 pages shared"])
            text.add(line)
            guard let step = try? text.parsed().steps.first, let seen = try? oracle.perform(step).model else {
                return .refused(errno: 5)
            }
            return switch seen {
            case .ok: .done
            case .errno(11, let offset?): .inUse(page: base + Int(clamping: offset / 4096))
            case .errno(let number, _): .refused(errno: number)
            default: .refused(errno: 5)
            }
        }
    }

    /// What a trial has found.
    public struct Result: Sendable, Equatable {
        /// The number of cases that hold.
        public let passed: Int
        /// The number of all cases.
        public let cases: Int
        /// The first case that does not hold, its calls, and what the check saw then, one line each. Empty if all hold.
        public let refutation: [String]

        /// Whether the converter is right.
        public var isRight: Bool { passed == cases }
    }

    private let suite: CaseSuite
    private let shape: CaseSuite.Shape

    /// The trial of a problem.
    ///
    /// - Parameter seed: the seed of the problem, as in `minivmm exercise 8 --seed`.
    public init(seed: UInt64) { (shape, suite) = CaseSuite.monitorCases(seed) }

    /// Runs a converter in every case.
    ///
    /// - Parameters:
    ///   - faults: rules that the kernel breaks. By default none.
    ///   - convert: the converter. It is called for each request of the guest, and again when the host has ended its uses.
    /// - Returns: the result.
    public func check(
        planting faults: [PlantedFault] = [], _ convert: (Request, inout Kernel) -> Void
    ) -> Result {
        var passed = 0
        var refutation: [String] = []
        for item in suite.cases {
            let found = run(item, faults, convert)
            if found.isEmpty { passed += 1 } else if refutation.isEmpty { refutation = found }
        }
        return Result(passed: passed, cases: suite.cases.count, refutation: refutation)
    }

    /// - Returns: the lines of a refutation; empty if the case holds.
    private func run(
        _ item: CaseSuite.Case, _ faults: [PlantedFault], _ convert: (Request, inout Kernel) -> Void
    ) -> [String] {
        var text = TestText([])
        /// For each request the number of steps before it.
        var requests: [(before: Int, Request)] = []
        var steps = 0
        for line in item.lines {
            switch line {
            case .given(let given):
                text.add(given)
                if given.isStep { steps += 1 }
            case .words(let before, _, let after):
                text.add(before + " preserve" + after)
                steps += 1
            case .answer(let place):
                let all = Request(pages: 0..<shape.pages, target: .private)
                let some = Request(pages: Range(shape.shared), target: .shared)
                requests.append((steps, place == 2 ? some : all))
            }
        }
        var model = item.kernel
        model.faults = faults
        guard let test = try? text.parsed(), let oracle = try? Oracle(test, on: model) else {
            return ["the model cannot create the machine of the case"]
        }
        var kernel = Kernel(oracle, [0..<shape.first, shape.first..<shape.pages])
        for (index, step) in test.steps.enumerated() {
            if let (before, request) = requests.first, before == index {
                convert(request, &kernel)
                requests.removeFirst()
            }
            guard let seen = try? kernel.oracle.perform(step) else {
                return refutation(item, kernel, "`\(step.text)` is impossible")
            }
            guard step.isMet(by: seen) else {
                return refutation(
                    item, kernel,
                    "`\(step.text)` => \(seen.model.description), expected: \(step.answer ?? "ok")")
            }
        }
        return []
    }

    private func refutation(_ item: CaseSuite.Case, _ kernel: Kernel, _ last: String) -> [String] {
        ["it does not hold if \(item.name)"] + kernel.calls + [last]
    }
}

extension MonitorTrial.Answer {
    /// For people.
    fileprivate var text: String {
        switch self {
        case .done: "done"
        case .inUse(let page): "guest page \(page) is in use"
        case .refused(let number): "errno \(number)"
        }
    }
}

extension Step {
    /// Whether an answer of the model is expected, with contents that are certain.
    fileprivate func isMet(by seen: Oracle.Answers) -> Bool {
        guard !seen.isAnyByte else { return false }
        switch expectation {
        case .anyOf(let outcomes): return outcomes.contains { $0.means(seen.model) }
        case .named: return true
        case .unspecified:
            if case .value = seen.model { return true }
            return seen.model == .ok
        }
    }
}

extension String {
    /// Whether a line of a test is a step: its first word names an actor.
    fileprivate var isStep: Bool { utf8.starts(with: "host ".utf8) || utf8.starts(with: "vcpu".utf8) }
}
