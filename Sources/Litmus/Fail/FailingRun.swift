// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import MiniVMM
import SystemPackage

/// Runs of a test on new machines, in which one allocation fails. The steps of parallel blocks are performed in the order of
/// the text. Used by the thread that runs the test.
struct FailingRun {
    private let source: Source
    private let facts: BackendFacts
    private let deadline: TestDeadline
    private let failing: any AllocationFailing
    /// The test's steps, and then ``LitmusTest/closingSteps``.
    private let steps: [Step]
    private let answers: ModelAnswers
    /// Whether the model permits the outcome of each step if no allocation fails. The other steps are not judged by it.
    private var isModelled: [Bool]

    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ failing: any AllocationFailing
    ) {
        self.source = source
        self.facts = facts
        self.deadline = deadline
        self.failing = failing
        steps = source.test.steps + source.test.closingSteps
        answers = ModelAnswers(source.test, steps)
        isModelled = answers.usual.map { $0 != nil }
    }

    /// The continuation of a run after a step that has reported the failure.
    enum Sequel {
        /// The step is repeated, and succeeds.
        case repeated
        /// The rest of the test, as if the step had not been there. The answers of the model for it.
        case onward([Oracle.Answers?])
    }

    /// A run with a failed allocation.
    struct Attempt {
        let injection: Injection
        /// How the step ended; nil if a call that prepares it failed.
        var outcome: StepOutcome?
        /// Whether the outcome says that the step has failed.
        var isReported = false
        /// Whether the rest of the test can be judged without the step.
        var canGoOnward = false
        /// The first deviation.
        var failure: Failure?
    }

    /// A run without a failure.
    enum Measurement {
        /// The number of allocations that each step makes.
        case made([Int])
        case failed(Failure)
    }

    // MARK: runs

    /// Runs the test without a failure, and counts.
    ///
    /// - Parameter watcher: called before and after each of the test's own steps.
    mutating func measure(_ watcher: (@Sendable (RunEvent) -> Void)?) throws(Stop) -> Measurement {
        // These facts are found out on scratch VMs, which are no part of a step.
        if steps.contains(where: \.isOfVCPU) {
            _ = try? facts.supportedCPUID()
            _ = facts.hypercallMethod
        }
        var counts: [Int] = []
        let before = LiveVMs.count()
        let world = try begin()
        defer { world.close() }
        for (index, step) in steps.enumerated() {
            if isClosing(index), answers.usual[index] == nil { continue }
            if step.isOfVCPU { _ = try world.guest() }
            if !isClosing(index) { watcher?(.began(.step(index))) }
            let (result, injection) = failing.failing(FailurePoint.most) { perform(index, step, world) }
            let seen = try result.get()
            if !isClosing(index) {
                watcher?(.ended(.step(index), .outcome(of: step, seen)))
                if case .unused(let made) = injection { counts.append(made) } else { counts.append(0) }
                if let failure = source.judge(seen, index, step, world.pages) { return .failed(failure) }
            }
            isModelled[index] = answers.usual[index]?.contains(seen.outcome) == true
        }
        world.close()
        return LiveVMs.hasGrown(since: before) ? .failed(.leakedVM) : .made(counts)
    }

    /// The rest of the test without a step, to be judged by the model.
    func onward(without step: Int) -> Sequel { .onward(answers.without(step)) }

    /// Runs the test with one allocation of one step failing.
    func attempt(_ point: FailurePoint, _ sequel: Sequel) throws(Stop) -> Attempt {
        let before = LiveVMs.count()
        let world = try begin()
        defer { world.close() }
        var attempt = Attempt(injection: .unused(made: 0))
        for (index, step) in steps.enumerated() {
            if index == point.step {
                attempt = try fail(point, step, sequel, world)
                guard case .failed = attempt.injection else { return attempt }
            } else if attempt.isReported, case .onward(let answers) = sequel {
                attempt.failure = try judge(index, step, by: answers[index], world)
            } else {
                attempt.failure = try take(index, step, world)
            }
            if attempt.failure != nil { break }
        }
        world.close()
        if attempt.failure == nil, LiveVMs.hasGrown(since: before) { attempt.failure = .leakedVM }
        if case .failed(let call, let result) = attempt.injection {
            let isRepeated = if case .repeated = sequel { attempt.isReported } else { false }
            attempt.failure?.injected = InjectedFailure(
                point: point, step: steps[point.step].text, call: call,
                errno: result < 0 ? Int32(clamping: -result) : nil, isRepeated: isRepeated)
        }
        return attempt
    }

    private func begin() throws(Stop) -> World {
        try World(facts, source.test, deadline, entersAgainWithoutMemory: true)
    }

    private func isClosing(_ index: Int) -> Bool { index >= source.test.steps.count }

    private func perform(_ index: Int, _ step: Step, _ world: World) -> Result<Observation, Stop> {
        do throws(Stop) {
            guard !isClosing(index) else { return .success(try world.perform(step)) }
            return .success(try source.attempt(index, step) { () throws(Stop) in try world.perform(step) })
        } catch {
            return .failure(error)
        }
    }

    // MARK: steps

    /// Performs a step that must end as if nothing had failed.
    ///
    /// - Returns: its deviation.
    private func take(_ index: Int, _ step: Step, _ world: World) throws(Stop) -> Failure? {
        if isClosing(index), !isModelled[index] { return nil }
        let seen = try perform(index, step, world).get()
        return isUsual(index, step, seen) ? nil : failure(index, step, seen, world)
    }

    private func isUsual(_ index: Int, _ step: Step, _ seen: Observation) -> Bool {
        guard seen.oddity == nil else { return false }
        // A named result accepts anything. That a conversion has no memory is not usual.
        if step.result != nil, seen.outcome.isFailedAllocation,
            answers.usual[index]?.others.contains(seen.outcome) == true
        {
            return false
        }
        if isModelled[index], answers.usual[index]?.contains(seen.outcome) == false { return false }
        return isClosing(index) || step.accepts(seen)
    }

    private func failure(_ index: Int, _ step: Step, _ seen: Observation, _ world: World) -> Failure {
        // The test may expect more than the model permits, or nothing.
        let isTheModels = isClosing(index) || step.accepts(seen)
        return failure(index, step, seen, isTheModels ? answers.usual[index] : nil, world)
    }

    /// - Parameter answers: what the model expects; nil for the test's expectation.
    private func failure(
        _ index: Int, _ step: Step, _ seen: Observation, _ answers: Oracle.Answers?, _ world: World
    ) -> Failure {
        var step = step
        if let answers { step.expectation = .anyOf([answers.model] + answers.others) }
        return Failure(
            .step(step, seen: seen.outcome, oddity: seen.oddity), step: isClosing(index) ? nil : index,
            line: isClosing(index) ? nil : source.places[index].line, pages: world.pages(around: step))
    }

    /// Performs a step of the rest of a test, a step of which is missing.
    ///
    /// - Parameter answers: nil if the step needs an object that does not exist without the missing one.
    private func judge(
        _ index: Int, _ step: Step, by answers: Oracle.Answers?, _ world: World
    ) throws(Stop) -> Failure? {
        guard let answers, isModelled[index] else { return nil }
        let seen: Observation
        do throws(Stop) { seen = try perform(index, step, world).get() } catch {
            if case .skip = error { return nil }
            throw error
        }
        return seen.oddity == nil && answers.contains(seen.outcome)
            ? nil : failure(index, step, seen, answers, world)
    }

    /// Performs the step with the failure, and repeats it if it has to be.
    private func fail(
        _ point: FailurePoint, _ step: Step, _ sequel: Sequel, _ world: World
    ) throws(Stop) -> Attempt {
        let index = point.step
        // The guest's program belongs to the runner, not to the test.
        if step.isOfVCPU { _ = try world.guest() }
        let descriptor = failing.lowestDescriptor()
        let (result, injection) = failing.failing(point.nth) { perform(index, step, world) }
        var attempt = Attempt(injection: injection)
        guard case .failed(let name, let value) = injection else { return attempt }
        let rule = AllocatingCall(rawValue: name)?.shortageRule
        let isReportedByCall = rule?.errnos.contains { $0.rawValue == -value } == true
        switch result {
        case .success(let seen) where isUsual(index, step, seen):
            attempt.outcome = seen.outcome
            if rule?.mayStopEarly != true { return attempt }
        case .success(let seen):
            attempt.outcome = seen.outcome
            guard let rule, isReportedByCall, step.reports(seen, rule, answers.usual[index]) else {
                attempt.failure = failure(index, step, seen, world)
                return attempt
            }
            attempt.isReported = true
            let isWhole = rule.effect == .nothing && step.isOneCall
            attempt.canGoOnward = isWhole && isModelled[index]
            if isWhole, failing.lowestDescriptor() != descriptor {
                attempt.failure = Failure(
                    .step(step, seen: seen.outcome, oddity: "it left a descriptor open"), step: index,
                    line: point.line)
                return attempt
            }
            if case .onward = sequel { return attempt }
        case .failure(let stop):
            guard isReportedByCall else {
                attempt.failure = Failure(
                    .impossible(step, reason: Oracle.Problem(stop).description), step: index, line: point.line
                )
                return attempt
            }
            attempt.isReported = true
        }
        attempt.failure = try take(index, step, world)
        return attempt
    }
}

/// The answers of the model to the steps of a test. A run with a failed allocation is judged by them, so that the model works
/// once for each step and not in each run.
private struct ModelAnswers {
    private let steps: [Step]
    /// The answers if no allocation fails; nil where the model cannot perform the step.
    let usual: [Oracle.Answers?]
    /// The model before each step; nil where it has none.
    private let before: [Oracle?]

    init(_ test: LitmusTest, _ steps: [Step]) {
        self.steps = steps
        var oracle = try? Oracle(test)
        var (usual, before): ([Oracle.Answers?], [Oracle?]) = ([], [])
        for step in steps {
            before.append(oracle)
            usual.append(Self.perform(step, &oracle))
        }
        (self.usual, self.before) = (usual, before)
    }

    /// The answers if this step is missing, for all steps; nil for it and those before it.
    func without(_ missing: Int) -> [Oracle.Answers?] {
        var oracle = before[missing]
        return steps.enumerated().map { $0 <= missing ? nil : Self.perform($1, &oracle) }
    }

    private static func perform(_ step: Step, _ oracle: inout Oracle?) -> Oracle.Answers? {
        // A step that cannot be performed may have been done in part.
        var copy = oracle
        guard let answers = try? copy?.perform(step) else { return nil }
        oracle = copy
        return answers
    }
}

extension StepOutcome {
    fileprivate var isFailedAllocation: Bool {
        switch self {
        case .errno(Errno.noMemory.rawValue, _), .errno(Errno.badAddress.rawValue, _): true
        default: false
        }
    }
}

extension Step {
    fileprivate var isOfVCPU: Bool { if case .vcpu = actor { true } else { false } }

    /// Whether the outcome is that of a failed allocation.
    fileprivate func reports(_ seen: Observation, _ rule: ShortageRule, _ answers: Oracle.Answers?) -> Bool {
        guard seen.oddity == nil else { return false }
        switch seen.outcome {
        case .errno(let number, let place):
            guard rule.errnos.contains(ErrorNumber(rawValue: number)) else { return false }
            if case .convert = action, isOneCall, let answers { return answers.contains(seen.outcome) }
            guard let place, let extent = action.extent else { return true }
            return extent.offset <= place && place - extent.offset < extent.size
        // An access through a system call reports SIGBUS for any page that it does not get.
        case .sigbus: return action.isAccess && rule.errnos.contains(.badAddress)
        default: return false
        }
    }

    /// Whether the step is a single system call that does all or nothing.
    fileprivate var isOneCall: Bool {
        switch action {
        case .convert(let conversion): conversion.contents == nil
        case .create, .bind, .unbind, .map, .unmap, .remap, .protect, .mbind, .dup, .setAttributes, .dirty:
            true
        case .hold(_, let kind, _): kind == .ioUring || kind == .gupTest
        default: false
        }
    }
}

extension LitmusTest {
    /// Steps after the test that show leaked references, lost contents and wrong states: holds are released, and each small
    /// file is converted to private, to shared, and read.
    var closingSteps: [Step] {
        var (steps, files): ([Step], [(Name, UInt64)]) = ([], memory.map { ($0.name, $0.pages) })
        for step in self.steps {
            switch step.action {
            case .hold(_, _, let name): steps.append(Step(.host(0), .release(name)))
            case .create(let new) where new.size % pageSize == 0:
                files.append((new.name, new.size / pageSize))
            default: break
            }
        }
        for (name, pages) in files where (1...16).contains(pages) {
            let all = Extent(name, offset: 0, size: pages * pageSize)
            for state in [PageState.private, .shared] {
                steps.append(Step(.host(0), .convert(Conversion(all, to: state))))
            }
            for page in 0..<min(pages, 4) {
                steps.append(Step(.host(0), .read(Place(name, offset: page * pageSize))))
            }
        }
        return steps
    }
}

/// The VMs of this process that exist in the kernel, by their directories in debugfs. One that outlives its descriptors was
/// leaked, with its memory.
private enum LiveVMs {
    static func count() -> Int? {
        guard let directory = unsafe opendir("/sys/kernel/debug/kvm") else { return nil }
        defer { unsafe closedir(directory) }
        let prefix = Array("\(getpid())-".utf8)
        var count = 0
        while let entry = unsafe readdir(directory) {
            let isOwn = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { name in
                unsafe name.prefix(prefix.count).elementsEqual(prefix)
            }
            if isOwn { count += 1 }
        }
        return count
    }

    /// A VM may end a moment after its last descriptor.
    static func hasGrown(since before: Int?) -> Bool {
        guard let before else { return false }
        for _ in 0..<100 {
            guard let now = count(), now > before else { return false }
            usleep(2000)
        }
        return true
    }
}

extension Failure {
    fileprivate static let leakedVM = Failure(
        .machine(reason: "a VM still exists in the kernel after its last descriptor was closed"))
}
