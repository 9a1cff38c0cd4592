// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage
import Testing

@testable import Litmus

@Suite("Allocations that fail")
struct FailureSearchTests {
    private static let conversion = """
        test "a conversion"
        memory 2 pages shared
        host write 0 0x41
        host create f 1 page mmap init_shared
        host convert 0..1 private
        host read 0 => SIGBUS
        host convert 0..1 shared
        host read 0 => 0x41
        """

    private func report(
        _ fault: StarvedBackend.Fault, _ text: String = conversion, _ failures: AllocationFailures = .all
    ) throws -> Report {
        let backend = StarvedBackend(SoftKVM(), fault)
        var options = Runner.Options(failures: failures)
        options.failing = backend.failures
        let report = Runner(backend, options).report(try Source(parsing: text))
        #expect(backend.failures.prepared.load(ordering: .relaxed) == 0, "the settings are not restored")
        return report
    }

    // MARK: judging

    @Test func aKernelThatReportsEachFailurePasses() throws {
        let report = try report(.none)
        #expect(report.verdict == .passed, "\(report.verdict)")
        #expect(report.failures.map(\.allocations) == [0, 2, 1, 0, 1, 0])
        let create = report.failures[1]
        #expect(create.answers.map(\.numbers) == [1...2] && create.tried == 2)
        #expect(create.answers.map(\.text) == ["KVM_CREATE_GUEST_MEMFD ENOMEM"])
        let convert = report.failures[2]
        #expect(
            convert.line == 5 && convert.answers.map(\.text) == ["KVM_SET_MEMORY_ATTRIBUTES2 ENOMEM at 0"])
        #expect(convert.answers.map(\.isReported) == [true])
    }

    /// The binding of the file succeeds in spite of the failure.
    @Test func aFailureThatDoesNotMatterIsAsUsual() throws {
        let text = Self.conversion + "\nhost bind slot 5 to f:0 at 16"
        let report = try report(.none, text)
        #expect(report.verdict == .passed, "\(report.verdict)")
        #expect(report.failures.last?.answers.map(\.text) == ["ok"])
        #expect(report.failures.last?.answers.map(\.isReported) == [false])
    }

    @Test(arguments: [
        (StarvedBackend.Fault.converts, 3, "host read 0", "SIGBUS"),
        (.namesWrongPage, 2, "host convert 0..1 private", "ENOMEM at 1"),
        (.wrongErrno, 2, "host convert 0..1 private", "EINVAL"),
        (.keepsReference, 2, "host convert 0..1 private", "EAGAIN at 0"),
        (
            .keepsDescriptor, 1, "host create f 1 page mmap init_shared",
            "ENOMEM, and it left a descriptor open"
        ),
        (.losesByte, 5, "host read 0", "0x0"),
    ])
    func aWrongKernelFails(_ fault: StarvedBackend.Fault, _ step: Int, _ text: String, _ seen: String) throws
    {
        let report = try report(fault)
        guard case .failed(let failure) = report.verdict else {
            Issue.record("\(fault): \(report.verdict)")
            return
        }
        let injected = try #require(failure.injected)
        #expect(failure.text.hasPrefix("host"), "\(failure)")
        #expect(failure.lines.contains { $0.contains("failure of allocation 1 of `host c") }, "\(failure)")
        if fault != .converts { #expect(failure.step == step && failure.text == text, "\(failure)") }
        if fault != .converts { #expect(failure.seen == seen, "\(failure)") }
        // The named failure alone shows it again.
        let again = try self.report(fault, Self.conversion, .one(injected.point))
        guard case .failed(let same) = again.verdict else {
            Issue.record("\(fault) at \(injected.point): \(again.verdict)")
            return
        }
        #expect(same.lines == failure.lines)
        #expect(again.failures.map(\.step) == [injected.point.step])
    }

    /// If the call did what it says it has not done, only a run without the step shows it.
    @Test func aCallThatDidItAllTheSame() throws {
        guard case .failed(let failure) = try report(.converts).verdict else {
            Issue.record("it passes")
            return
        }
        #expect(failure.injected?.isRepeated == false && failure.text == "host read 0", "\(failure)")
        #expect(failure.expected == "0x41" && failure.seen == "SIGBUS", "\(failure)")
    }

    /// References are seen after the test, too.
    @Test func aReferenceThatIsKeptToTheEnd() throws {
        let text = "test \"x\"\nmemory 2 pages private\nhost convert 0 shared\nhost convert 1 shared"
        guard case .failed(let failure) = try report(.keepsReference, text).verdict else {
            Issue.record("it passes")
            return
        }
        #expect(failure.step == nil && failure.text == "host convert 0..1 private", "\(failure)")
        #expect(failure.seen == "EAGAIN at 0", "\(failure)")
    }

    @Test func blocksArePerformedInTheOrderOfTheText() throws {
        let text = """
            test "x"
            memory 1 page shared
            host write 0 0x41
            parallel
            host convert 0 private => c
            host1 read 0 => r
            end
            """
        let report = try report(.none, text)
        #expect(report.verdict == .passed && report.blocks.isEmpty, "\(report.verdict)")
        #expect(report.failures.map(\.allocations) == [0, 1, 0])
    }

    // MARK: what is not run

    @Test func aTestThatFailsAnywayIsNotTried() throws {
        let report = try report(.none, "test \"x\"\nmemory 1 page shared\nhost read 0 => SIGBUS")
        guard case .failed(let failure) = report.verdict else {
            Issue.record("\(report.verdict)")
            return
        }
        #expect(failure.injected == nil && report.failures.isEmpty)
    }

    @Test func anAllocationThatTheStepDoesNotMake() throws {
        let source = try Source(parsing: Self.conversion)
        let report = try report(.none, Self.conversion, .one(try FailurePoint("5:2", in: source)))
        #expect(
            report.verdict
                == .skipped("the step on line 5 makes 1 allocations, so there is no number 2"))
    }

    /// It would take pages of the machine out of use.
    @Test func testsThatMakeMemoryFailAreSkipped() throws {
        let report = try report(.none, "test \"x\"\nmemory 1 page shared\nhost madvise 0 hwpoison")
        #expect(report.verdict == .skipped("each run would take a page of this machine's memory out of use"))
    }

    @Test func softKVMSaysWhyNothingFails() throws {
        let report = Runner(SoftKVM(), .init(failures: .all)).report(try Source(parsing: Self.conversion))
        guard case .skipped(let reason) = report.verdict else {
            Issue.record("\(report.verdict)")
            return
        }
        #expect(reason.contains("SoftKVM makes none"))
    }

    @Test func manyAllocationsAreSampled() {
        #expect(FailureSearch.numbers(0) == [] && FailureSearch.numbers(3) == [1, 2, 3])
        #expect(FailureSearch.numbers(256) == Array(1...256))
        let many = FailureSearch.numbers(65_536)
        #expect(
            many.prefix(256) == many[...255] && many[255] == 256 && many[256] == 288 && many.last == 65_536
                && many.count < 320)
    }

    // MARK: allocations as text

    @Test func allocationsAreReadAndWritten() throws {
        let source = try Source(parsing: Self.conversion)
        let point = try FailurePoint("5:12", in: source)
        #expect(point.step == 2 && point.line == 5 && point.nth == 12 && point.description == "5:12")
    }

    @Test(arguments: [
        "", "5", "5:", ":2", "5:0", "5:-1", "0:1", "5:2:3", "5:99999999999999999999", " 5:2", "5:+2",
    ])
    func otherTextsAreErrors(_ text: String) throws {
        let source = try Source(parsing: Self.conversion)
        #expect(throws: FailurePointError.form) { try FailurePoint(text, in: source) }
    }

    @Test func aLineWithoutAStepIsNamed() throws {
        let source = try Source(parsing: Self.conversion)
        #expect(throws: FailurePointError.line(2, nearest: 3)) { try FailurePoint("2:1", in: source) }
        #expect(throws: FailurePointError.line(90, nearest: 8)) { try FailurePoint("90:1", in: source) }
    }

    // MARK: rules

    /// The names of the shim and the rules are the same.
    @Test func eachCallHasARule() {
        for call in AllocatingCall.allCases {
            let rule = call.shortageRule
            #expect(rule.errnos.isEmpty == (call == .close), "\(call)")
            #expect(!rule.mayStopEarly || rule.effect == .prefix, "\(call)")
        }
        #expect(AllocatingCall(rawValue: "KVM_RUN")?.shortageRule.effect == .entersAgain)
    }

    /// `io_pin_pages` returns EFAULT if fewer pages than it asked for were pinned.
    @Test func aShortPinOfAFixedBufferIsEFAULT() {
        #expect(AllocatingCall.registerBuffer.shortageRule.errnos == [.noMemory, .badAddress])
    }

    /// A conversion reserves its memory before it looks at pages.
    @Test func noMemoryPrecedesAPageInUse() throws {
        let source = try Source(
            parsing:
                "test \"x\"\nmemory 2 pages shared\nhost hold 1 as h\nhost convert 0..1 private => EAGAIN at 1"
        )
        var oracle = try Oracle(source.test)
        try oracle.follow(source.test.steps[0], .ok)
        let answers = try oracle.answers(to: source.test.steps[1])
        #expect(answers.model == .errno(Errno.resourceTemporarilyUnavailable.rawValue, at: pageSize))
        #expect(answers.others == [.errno(Errno.noMemory.rawValue, at: 0)])
    }

    @Test func noMemoryIsHiddenInAReadOnlyStruct() throws {
        let source = try Source(
            parsing:
                "test \"x\"\nmemory 2 pages shared\nhost convert 0..1 private struct readonly\nhost read 0")
        var oracle = try Oracle(source.test)
        let hidden = StepOutcome.errno(Errno.badAddress.rawValue)
        #expect(try oracle.answers(to: source.test.steps[0]).others == [hidden])
        #expect(try oracle.follow(source.test.steps[0], hidden))
        #expect(try oracle.answers(to: source.test.steps[1]).model == .value(0))
    }
}

/// The settings of the running kernel, in a directory of a test.
@Suite("Settings of fault injection")
struct FaultSettingsTests {
    private let root: FilePath
    private static let directories = Atomic<Int>(0)

    init() throws {
        root = FilePath(
            "/tmp/minivmm-faults-\(getpid())-\(Self.directories.add(1, ordering: .relaxed).newValue)")
        try #require(mkdir(root.string, 0o700) == 0)
    }

    private func write(_ text: String, _ name: String) throws {
        let file = try FileDescriptor.open(
            root.appending(name), .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        _ = try file.closeAfter { try file.writeAll(text.utf8) }
    }

    private func read(_ name: String) throws -> String {
        let file = try FileDescriptor.open(root.appending(name), .readOnly)
        return try file.closeAfter {
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = unsafe try bytes.withUnsafeMutableBytes { unsafe try file.read(into: $0) }
            return String(decoding: bytes.prefix(count), as: UTF8.self)
        }
    }

    private func removeAll() {
        for name in ["failslab", "fail_page_alloc", "fail_usercopy"] {
            for value in [
                "ignore-gfp-wait", "ignore-gfp-highmem", "cache-filter", "min-order", "verbose", "times",
            ] {
                unlink(root.appending(name).appending(value).string)
            }
            rmdir(root.appending(name).string)
        }
        unlink(root.appending("fail-nth").string)
        rmdir(root.string)
    }

    private func makeSlab() throws {
        mkdir(root.appending("failslab").string, 0o700)
        for (name, value) in [
            ("ignore-gfp-wait", "Y\n"), ("cache-filter", "N\n"), ("verbose", "2\n"), ("times", "1\n"),
        ] {
            try write(value, "failslab/\(name)")
        }
    }

    private var failures: LinuxAllocationFailures {
        LinuxAllocationFailures(debugfs: root, failNth: root.appending("fail-nth"))
    }

    @Test func settingsAreChangedAndRestored() throws {
        defer { removeAll() }
        try write("0\n", "fail-nth")
        try makeSlab()
        let failures = failures
        try failures.prepare()
        #expect(try read("failslab/ignore-gfp-wait") == "N" && read("failslab/verbose") == "0")
        #expect(try read("failslab/times") == "1\n")
        failures.restore()
        #expect(try read("failslab/ignore-gfp-wait") == "Y" && read("failslab/verbose") == "2")
        #expect(try read("failslab/times") == "1")
    }

    @Test func theReasonIsSaid() throws {
        defer { removeAll() }
        func reason() -> String {
            do throws(FailureAbsence) {
                try failures.prepare()
                return "none"
            } catch {
                return error.description
            }
        }
        #expect(reason().contains("CONFIG_FAULT_INJECTION"))
        try write("0\n", "fail-nth")
        #expect(reason().contains("mount debugfs") && reason().contains("CONFIG_FAILSLAB"))
        try makeSlab()
        unlink(root.appending("failslab/times").string)
        #expect(reason().contains("failslab/times cannot be set (ENOENT)"))
        // Settings that were changed before the failure are restored.
        #expect(try read("failslab/ignore-gfp-wait") == "Y")
        mkdir(root.appending("fail_usercopy").string, 0o700)
        try write("2\n", "fail_usercopy/verbose")
        #expect(reason().contains("fail_usercopy"))
    }
}
