// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import MiniVMM
import SystemPackage

/// Runs of a test on new machines, in which one allocation fails. The steps of parallel blocks are performed in the order of
/// the text. Used by the thread that runs the test.
struct FailingRun {
    let source: Source
    let facts: BackendFacts
    let deadline: TestDeadline
    let failing: any AllocationFailing
    /// What the test is followed by, to see that nothing was leaked.
    let closing: [Step]
    /// Whether the model permits the outcome of each step, and of each closing step, if no allocation fails. What it does not
    /// permit then, it cannot judge later.
    private var isModelled: [Bool] = []

    init(
        _ source: Source, _ facts: BackendFacts, _ deadline: TestDeadline, _ failing: any AllocationFailing
    ) {
        self.source = source
        self.facts = facts
        self.deadline = deadline
        self.failing = failing
        closing = source.test.closingSteps
    }

    /// What follows a step that has reported the failure.
    enum Sequel {
        /// The step is repeated, and succeeds.
        case repeated
        /// The rest of the test, as if the step had not been there.
        case onward
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

    /// A run on a machine of its own.
    fileprivate struct Run {
        let world: World
        /// Nil if the model cannot follow the test.
        var oracle: Oracle?
        /// Whether the test's own expectations no longer apply, because the step is missing.
        var isWithoutStep = false
    }

    // MARK: runs

    /// Runs the test without a failure, and counts.
    mutating func measure() throws(Stop) -> Measurement {
        isModelled = []
        // The first test finds out these facts on scratch VMs, which are no part of a step.
        if source.test.steps.contains(where: { if case .vcpu = $0.actor { true } else { false } }) {
            _ = try? facts.supportedCPUID()
            _ = facts.hypercallMethod
        }
        var counts: [Int] = []
        let before = LiveVMs.count()
        var run = try begin()
        defer { run.world.close() }
        for (index, step) in steps.enumerated() {
            let world = run.world
            let (result, injection) = failing.failing(FailurePoint.most) { perform(index, step, world) }
            let seen = try result.get()
            if index < source.test.steps.count {
                if case .unused(let made) = injection { counts.append(made) } else { counts.append(0) }
                if let failure = source.judge(seen, index, step, world.pages) { return .failed(failure) }
            }
            isModelled.append(run.follow(step, seen.outcome))
        }
        run.world.close()
        return LiveVMs.hasGrown(since: before) ? .failed(.leakedVM) : .made(counts)
    }

    /// Runs the test with one allocation of one step failing.
    func attempt(_ point: FailurePoint, _ sequel: Sequel) throws(Stop) -> Attempt {
        let before = LiveVMs.count()
        var run = try begin()
        defer { run.world.close() }
        var attempt = Attempt(injection: .unused(made: 0))
        for (index, step) in steps.enumerated() {
            if index == point.step {
                attempt = try fail(point, step, sequel, &run)
                guard case .failed = attempt.injection else { return attempt }
            } else {
                attempt.failure = try take(index, step, &run)
            }
            if attempt.failure != nil { break }
        }
        run.world.close()
        if attempt.failure == nil, LiveVMs.hasGrown(since: before) { attempt.failure = .leakedVM }
        if case .failed(let call, let result) = attempt.injection {
            attempt.failure?.injected = InjectedFailure(
                point: point, step: source.test.steps[point.step].text, call: call,
                errno: result < 0 ? Int32(clamping: -result) : nil,
                isRepeated: attempt.isReported && sequel == .repeated)
        }
        return attempt
    }

    private var steps: [Step] { source.test.steps + closing }

    private func begin() throws(Stop) -> Run {
        Run(
            world: try World(facts, source.test, deadline, entersAgainWithoutMemory: true),
            oracle: try? Oracle(source.test))
    }

    private func perform(_ index: Int, _ step: Step, _ world: World) -> Result<Observation, Stop> {
        do throws(Stop) {
            guard index < source.test.steps.count else { return .success(try world.perform(step)) }
            return .success(try source.attempt(index, step) { () throws(Stop) in try world.perform(step) })
        } catch {
            return .failure(error)
        }
    }

    // MARK: steps

    /// Performs a step without a failure.
    ///
    /// - Returns: its deviation.
    private func take(_ index: Int, _ step: Step, _ run: inout Run) throws(Stop) -> Failure? {
        let answers = try? run.oracle?.answers(to: step)
        let isClosing = index >= source.test.steps.count
        // Without the failed step, some objects do not exist.
        if run.isWithoutStep || isClosing, answers == nil { return nil }
        let seen: Observation
        do throws(Stop) { seen = try perform(index, step, run.world).get() } catch {
            // What the step needs, the model has. A step that the runner declines says nothing.
            if run.isWithoutStep, case .skip = error {
                run.oracle = nil
                return nil
            }
            throw error
        }
        return follow(index, step, seen, answers, &run)
    }

    /// Judges the outcome of a step that must be as if nothing had failed.
    private func follow(
        _ index: Int, _ step: Step, _ seen: Observation, _ answers: Oracle.Answers?, _ run: inout Run
    ) -> Failure? {
        let isUsual = isUsual(index, step, seen, answers, run)
        if isUsual { run.follow(step, seen.outcome) }
        return isUsual ? nil : failure(index, step, seen, answers, run)
    }

    private func isUsual(
        _ index: Int, _ step: Step, _ seen: Observation, _ answers: Oracle.Answers?, _ run: Run
    ) -> Bool {
        guard seen.oddity == nil else { return false }
        let isModelled = isModelled[index] && answers != nil
        if isModelled, answers?.contains(seen.outcome) == false { return false }
        return run.isWithoutStep || index >= source.test.steps.count || step.accepts(seen)
    }

    private func failure(
        _ index: Int, _ step: Step, _ seen: Observation, _ answers: Oracle.Answers?, _ run: Run
    ) -> Failure {
        let isClosing = index >= source.test.steps.count
        var step = step
        if let answers, run.isWithoutStep || isClosing || step.accepts(seen) {
            step.expectation = .anyOf([answers.model] + answers.others)
        }
        return Failure(
            .step(step, seen: seen.outcome, oddity: seen.oddity), step: isClosing ? nil : index,
            line: isClosing ? nil : source.places[index].line, pages: run.world.pages(around: step))
    }

    /// Performs the step with the failure, and repeats it if it has to be.
    private func fail(
        _ point: FailurePoint, _ step: Step, _ sequel: Sequel, _ run: inout Run
    ) throws(Stop) -> Attempt {
        let index = point.step
        let answers = try? run.oracle?.answers(to: step)
        let descriptor = LowestDescriptor.number()
        let world = run.world
        let (result, injection) = failing.failing(point.nth) { perform(index, step, world) }
        var attempt = Attempt(injection: injection)
        guard case .failed(let name, let value) = injection else { return attempt }
        let rule = AllocatingCall(rawValue: name)?.shortageRule
        let told = rule?.errnos.first { $0.rawValue == -value }
        switch result {
        case .success(let seen) where isUsual(index, step, seen, answers, run):
            attempt.outcome = seen.outcome
            guard rule?.mayStopEarly == true else {
                run.follow(step, seen.outcome)
                return attempt
            }
        case .success(let seen):
            attempt.outcome = seen.outcome
            guard let rule, told != nil, step.reports(seen, rule, answers) else {
                attempt.failure = failure(index, step, seen, answers, run)
                return attempt
            }
            attempt.isReported = true
            attempt.canGoOnward = rule.effect == .nothing && step.isOneCall && run.oracle != nil
            if rule.effect == .nothing, step.isOneCall, LowestDescriptor.number() != descriptor {
                attempt.failure = Failure(
                    .step(step, seen: seen.outcome, oddity: "it left a descriptor open"), step: index,
                    line: point.line)
                return attempt
            }
            if sequel == .onward {
                run.isWithoutStep = true
                return attempt
            }
        case .failure(let stop):
            guard told != nil else {
                attempt.failure = Failure(
                    .impossible(step, reason: Oracle.Problem(stop).description), step: index, line: point.line)
                return attempt
            }
            attempt.isReported = true
        }
        attempt.failure = follow(index, step, try perform(index, step, world).get(), answers, &run)
        return attempt
    }
}

extension FailingRun.Run {
    /// Makes the model follow an outcome.
    ///
    /// - Returns: whether the model permits it.
    @discardableResult
    fileprivate mutating func follow(_ step: Step, _ outcome: StepOutcome) -> Bool {
        guard let isPermitted = try? oracle?.follow(step, outcome) else {
            oracle = nil
            return false
        }
        return isPermitted
    }
}

extension Step {
    /// Whether the outcome is that of a failed allocation.
    fileprivate func reports(_ seen: Observation, _ rule: ShortageRule, _ answers: Oracle.Answers?) -> Bool {
        guard seen.oddity == nil else { return false }
        switch seen.outcome {
        case .errno(let number, let place):
            guard rule.errnos.contains(ErrorNumber(rawValue: number)) else { return false }
            if case .convert = action, isOneCall, let answers { return answers.contains(seen.outcome) }
            guard let place, let extent = action.extent else { return true }
            return extent.offset <= place && place - extent.offset < extent.size
        // An access through a system call cannot tell why it gets no page.
        case .sigbus: return action.isAccess && rule.errnos.contains(.badAddress)
        default: return false
        }
    }

    /// Whether the step is a single system call that does all or nothing.
    fileprivate var isOneCall: Bool {
        switch action {
        case .convert(let conversion): conversion.contents == nil
        case .create, .bind, .unbind, .map, .unmap, .remap, .protect, .mbind, .dup, .setAttributes, .dirty: true
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
            // An access to failed memory says nothing about a failed allocation.
            case .advise(_, .hwPoison): return []
            case .hold(_, _, let name): steps.append(Step(.host(0), .release(name)))
            case .create(let new) where new.size % pageSize == 0: files.append((new.name, new.size / pageSize))
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

/// The number that the next descriptor of this process gets: another one means that one was left open.
private enum LowestDescriptor {
    static func number() -> Int32 {
        let copy = dup(0)
        if copy >= 0 { close(copy) }
        return copy
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
