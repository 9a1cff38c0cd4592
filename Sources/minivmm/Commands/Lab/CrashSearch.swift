// SPDX-License-Identifier: MIT
import ArgumentParser
import Glibc
import Litmus
import MiniVMM
import SystemPackage

/// Runs explorations in boots of the lab, and turns each new crash into the smallest litmus test that shows it.
///
/// It is used by one thread.
final class CrashSearch {
    /// lab/boot and its options.
    let lab: [String]
    /// Wall time without a new test after which a boot hangs.
    let hangLimit: Duration
    /// When the search ends, on the monotonic clock; nil for the end of the first seed.
    let deadline: UInt64?
    /// The options of the explorations, parsed and as they were given.
    let explore: ExploreCommand
    let words: [String]
    /// The directory of the findings.
    let output: String
    private var campaign: Campaign
    private let interrupts = try? SignalDescriptor()
    private let began = monotonicNanoseconds()
    private let progress = ProgressLine(.diagnostics)
    private let out = Terminal.output
    private var boots = 0
    private var tests = 0
    private var newFindings = 0

    init(
        lab: [String], hangLimit: Duration, deadline: UInt64?, explore: ExploreCommand, words: [String],
        output: String, campaign: Campaign
    ) {
        (self.lab, self.hangLimit, self.deadline, self.explore) = (lab, hangLimit, deadline, explore)
        (self.words, self.output, self.campaign) = (words, output, campaign)
    }

    /// How a boot ended.
    private enum End {
        case crash(KernelCrash, during: BootLog.Test?)
        /// minivmm ended with this status. The test is the last one.
        case completed(status: Int32, last: BootLog.Test?)
        /// The lab, or a usage error of minivmm, with the last lines that it printed.
        case failed(status: Int32, lines: [String])
        /// ``deadline`` or a signal.
        case stopped
    }

    /// - Throws: the exit status, after a message on standard error if it is not the search's own.
    func run() throws {
        while true {
            let end = try exploreInBoot()
            switch end {
            case .crash(let crash, let test):
                if campaign.note(crash.name) {
                    try add(crash, test)
                } else {
                    label("crash", "\(place(test)): \(crash.name), which is known")
                }
                guard goesOn(after: crash, test) else {
                    conclude()
                    throw stop(
                        "the kernel crashes before the first test, so there is nothing to go on behind",
                        Status.checkFailed)
                }
            case .completed(Status.skipped.rawValue, _) where tests == 0:
                throw stop("this kernel supports none of the steps", Status.skipped)
            case .completed(Status.endedEarly.rawValue, let last):
                // The exploration's own time limit.
                guard deadline != nil, campaign.goOn(behind: last) else {
                    return try finish(isComplete: false)
                }
            case .completed:
                guard deadline != nil else { return try finish(isComplete: true) }
                campaign.seedIsComplete()
            case .failed(let status, let lines):
                progress.clear()
                for line in lines { Terminal.diagnostics.print(line) }
                throw stop(
                    "the boot failed with status \(status), which is no verdict on the kernel",
                    ExitCode(status))
            case .stopped: return try finish(isComplete: interrupts?.pending() == nil)
            }
        }
    }

    /// Moves the start of the next boot behind a crash.
    ///
    /// - Returns: false if there is nothing to go on behind.
    private func goesOn(after crash: KernelCrash, _ test: BootLog.Test?) -> Bool {
        // The next boot goes on after a known warning, so no kind of step has to be left out for it.
        if crash.isSurvivable, test?.number == nil { return true }
        return campaign.goOn(behind: test)
    }

    // MARK: boots

    private var isOver: Bool {
        if interrupts?.pending() != nil { return true }
        return deadline.map { monotonicNanoseconds() >= $0 } ?? false
    }

    private func exploreInBoot() throws -> End {
        let start = campaign.start
        var command = ["minivmm", "explore"] + words
        command += ["--seed", "\(start.seed)", "--from", "\(start.firstTest)", "--findings", "1000"]
        if start.omitsScope { command += ["--depth", "0"] }
        // The search has its own time limit, in wall time.
        if deadline != nil { command += ["--timeout", "1000000"] }
        for step in start.excluded.sorted() { command += ["--without", step] }
        label("boot", "\(boots + 1): seed \(start.seed), from test \(start.firstTest)")
        return try runBoot([], command) { event in
            switch event {
            case .began(let test):
                if test.number != nil { self.tests += 1 }
                self.progress.show {
                    "\(self.place(test)), \(grouped(self.tests)) tests, \(self.campaign.seen.count) found"
                }
            case .differed(let text): try self.addDifference(text)
            case .reported(let report, _):
                // The kernel goes on after a warning that is known; so does the boot.
                let crash = KernelCrash.report(report)
                guard crash.isSurvivable, self.campaign.isKnown(crash.name) else { return false }
                _ = self.campaign.note(crash.name)
            }
            return true
        }
    }

    /// Runs a command in a fresh boot.
    ///
    /// - Parameter isContinued: called with each event; a report ends the boot if it returns false.
    private func runBoot(
        _ options: [String], _ command: [String],
        isContinued: (BootLog.Event) throws -> Bool
    ) throws -> End {
        boots += 1
        let boot: LabBoot
        do throws(Errno) {
            boot = try LabBoot(
                lab + options + ["--"] + command + ["--announce", "/dev/kmsg", "--kernel-log", "none"])
        } catch {
            throw stop("lab/boot cannot be started: \(error)", Status.monitorFailed)
        }
        var log = BootLog()
        // The output of lab/boot and minivmm, without the kernel's lines.
        var messages: [String] = []
        var lastTest = monotonicNanoseconds()
        while !isOver {
            switch boot.next() {
            case .line(let line):
                if !line.hasPrefix("[") {
                    messages = (messages + [String(line)]).suffix(20)
                }
                for event in log.add(line) {
                    if case .began = event { lastTest = monotonicNanoseconds() }
                    let goesOn = try isContinued(event)
                    if case .reported(let report, let test) = event, !goesOn {
                        return .crash(.report(report), during: test)
                    }
                }
            case .silence:
                guard monotonicNanoseconds() &- lastTest >= hangLimit.wholeNanoseconds else { continue }
                let crash =
                    log.finish().map(KernelCrash.report) ?? .hang(limit: hangLimit, lines: log.lastLines)
                return .crash(crash, during: log.running)
            case .ended(let status):
                if let report = log.finish() { return .crash(.report(report), during: log.running) }
                return end(status, messages, log)
            }
        }
        return .stopped
    }

    private func end(_ status: Int32, _ messages: [String], _ log: BootLog) -> End {
        if [.success, Status.checkFailed, Status.endedEarly, Status.skipped].map(\.rawValue).contains(status)
        {
            return .completed(status: status, last: log.running)
        }
        let labMessages = messages.filter { $0.hasPrefix("lab/boot: ") && !$0.hasPrefix("lab/boot: note: ") }
        let isReset = labMessages.contains { $0.hasPrefix("lab/boot: no exit status") }
        guard log.running != nil, isReset || labMessages.isEmpty, status != Status.usage.rawValue else {
            return .failed(status: status, lines: messages)
        }
        let crash: KernelCrash =
            isReset ? .reset(lines: log.lastLines) : .gaveUp(status: status, lines: messages)
        return .crash(crash, during: log.running)
    }

    // MARK: findings

    private func add(_ crash: KernelCrash, _ test: BootLog.Test?) throws {
        label("crash", "\(place(test)): \(crash.headline)", .bad)
        let origin = "lab/explore --seed \(campaign.start.seed), \(place(test))"
        guard let test, let announced = try? Source(parsing: Array(test.text.utf8)).test else {
            return try save(
                CrashFinding(
                    crash, test: nil, announced: test?.text ?? "", origin: origin, showsAlone: false), "")
        }
        let before = boots
        var last = crash
        var smallest: LitmusTest?
        if let shown = try shows(announced, crash.name) {
            last = shown
            var failure: (any Error)?
            let shrinker = CrashShrinker { candidate in
                do {
                    guard failure == nil, let shown = try self.shows(candidate, crash.name) else {
                        return false
                    }
                    last = shown
                    return true
                } catch {
                    failure = error
                    return false
                }
            }
            smallest = shrinker.shrink(announced)
            if let failure { throw failure }
        }
        let finding = CrashFinding(
            last, test: smallest, announced: test.text, origin: origin, showsAlone: smallest != nil)
        let count = boots - before
        let how =
            smallest.map { "from \(steps(announced)) to \(steps($0)) in \(count) boots" }
            ?? "not shrunk: by itself the test did not show it in \(count) boots"
        try save(finding, how)
    }

    private func steps(_ test: LitmusTest) -> String {
        test.steps.count == 1 ? "1 step" : "\(test.steps.count) steps"
    }

    /// Runs a test in a fresh boot, twice more if it has concurrent steps and does not show the crash.
    ///
    /// - Returns: the crash of this name that it shows; nil if it shows none.
    private func shows(_ test: LitmusTest, _ name: String) throws -> KernelCrash? {
        let isParallel = test.body.contains { if case .parallel = $0 { true } else { false } }
        for _ in 0..<(isParallel ? 3 : 1) where !isOver {
            progress.show { "\(name): \(steps(test)), boot \(boots + 1)" }
            let file = ByteText.join(output, ".candidate-\(getpid()).litmus")
            try TextFile.write(test.text, to: file, what: "the candidate")
            defer { unsafe unlink(file) }
            let options = explore.backendOptions
            let end = try runBoot(
                ["--file", "\(file):candidate.litmus"],
                [
                    "minivmm", "litmus", "--backend", options.backend.rawValue, "--seed", "\(options.seed)",
                    "--runs",
                    "\(explore.runs)", "candidate.litmus",
                ]
            ) { event in
                if case .reported = event { false } else { true }
            }
            if case .crash(let crash, _) = end, crash.name == name { return crash }
        }
        return nil
    }

    /// Adds a difference between kernel and model, which minivmm has shrunk in the boot.
    private func addDifference(_ text: String) throws {
        guard let test = try? Source(parsing: Array(text.utf8)).test else { return }
        // The name of such a test is what it shows.
        let words = test.name.split { !($0.isASCII && ($0.isLetter || $0.isNumber)) }
        let name = "difference-" + words.joined(separator: "-").prefix(80)
        guard campaign.note(name) else { return }
        label("differs", test.name, .bad)
        try save(.difference(test), text, name, "")
    }

    private func save(_ finding: CrashFinding, _ how: String) throws {
        try save(.crash(finding), finding.text, finding.crash.name, how)
    }

    /// Writes the folder of a new finding, and prints its test. A folder that another search has written meanwhile is kept.
    /// There is no trace and no picture, because the run that shows a crash does not end.
    private func save(
        _ finding: LabReport.Finding, _ text: String, _ name: String, _ how: String
    ) throws {
        let folder = ByteText.join(output, name)
        newFindings += 1
        if !how.isEmpty { label("shrunk", how) }
        let isNew = try TextFile.makeNewDirectory(folder, for: "the finding")
        if isNew {
            try TextFile.write(
                text, to: ByteText.join(folder, FindingFolders.test), what: "the finding")
            let source = try? Source(parsing: Array(text.utf8))
            let problem = try source.flatMap { try FindingFolders.writeProgram($0, folder) }
            let report = LabReport(
                finding: finding, test: source?.test.text ?? text,
                entersGuest: source?.test.steps.contains { if case .vcpu = $0.actor { true } else { false } }
                    ?? false,
                facts: facts, boot: bootCommand, shrinking: how,
                noProgram: source == nil ? "the text of the test arrived incomplete" : problem.map { "\($0)" }
            )
            try TextFile.write(
                report.text, to: ByteText.join(folder, FindingFolders.report), what: "the report")
        }
        label("folder", folder + (isNew ? "" : ", which another search has written"))
        out.print()
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            out.print("    \(line)")
        }
        out.print()
    }

    /// The kernel of the boots. Its release is in its image, so it is known without a boot.
    private lazy var facts = KernelFacts(
        image: values(of: "--kernel").last ?? "",
        parameters: values(of: "--append").flatMap { $0.split(separator: " ").map(String.init) }.filter {
            // lab/explore sets this one.
            $0 != "printk.devkmsg=on"
        })

    private func values(of option: String) -> [String] {
        zip(lab, lab.dropFirst()).filter { $0.0 == option }.map(\.1)
    }

    /// lab/boot with the kernel and its arguments, for a report.
    private var bootCommand: String {
        "lab/boot --kernel BZIMAGE"
            + (facts.parameters.isEmpty ? "" : " --append '\(facts.parameters.joined(separator: " "))'")
            + (lab.contains("--icount") ? " --icount" : "")
    }

    // MARK: text

    private func place(_ test: BootLog.Test?) -> String {
        if let number = test?.number { return "test \(number)" }
        if let step = test?.probed { return "the first \(step)" }
        return test == nil ? "before the first test" : "a test"
    }

    private func label(_ label: String, _ text: String, _ style: Terminal.Style? = nil) {
        progress.clear()
        let words = text.split(separator: " ").map { word in
            style.map { out.styled(String(word), $0) } ?? String(word)
        }
        let padded = label + String(repeating: " ", count: max(2, 10 - label.count))
        out.hanging(out.styled(padded, .dim), words.joined(separator: " "), indent: 10)
    }

    private func conclude() {
        progress.clear()
        for (name, count) in campaign.seen.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            label("seen", count == 1 ? "once: \(name)" : "\(grouped(count)) times: \(name)")
        }
        for step in campaign.start.excluded.sorted() { label("left out", "\(step): the kernel crashes") }
        let found = campaign.seen.count
        let what =
            found == 0
            ? "No crash and no differences from the model"
            : (found == 1 ? "1 finding" : "\(found) findings") + ", \(newFindings) new"
        let seconds = Int((monotonicNanoseconds() &- began) / 1_000_000_000)
        let boots = boots == 1 ? "1 boot" : "\(grouped(boots)) boots"
        out.print(
            out.styled(what, found == 0 ? .good : .bad)
                + ": \(grouped(tests)) tests in \(boots), \(grouped(seconds)) s")
    }

    /// Prints the totals.
    ///
    /// - Throws: the exit status.
    private func finish(isComplete: Bool) throws {
        conclude()
        if !campaign.seen.isEmpty { throw Status.checkFailed }
        if !isComplete { throw Status.endedEarly }
    }
}
