// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

@Suite("Running litmus tests", .timeLimit(.minutes(120)))
struct RunnerTests {
    /// The tests in litmus/, litmus/snp and litmus/tdx.
    static let files: [URL] = {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let folder = root.appendingPathComponent("litmus")
        let all = try? FileManager.default.subpathsOfDirectory(atPath: folder.path)
        return (all ?? []).filter { $0.hasSuffix(".litmus") && !$0.hasPrefix("scale/") }.sorted()
            .map { folder.appendingPathComponent($0) }
    }()

    static func source(_ file: URL) throws -> Source { try Source(parsing: Array(Data(contentsOf: file))) }

    private func source(_ body: String) throws -> Source {
        try Source(parsing: "test \"x\"\nmemory 4 pages shared\n" + body)
    }

    private func run(_ body: String, on backend: any Backend = SoftKVM()) throws -> Verdict {
        Runner(backend).run(try source(body))
    }

    private func reason(_ verdict: Verdict) -> String? {
        if case .skipped(let reason) = verdict { reason } else { nil }
    }

    private func failure(_ verdict: Verdict) -> Failure? {
        if case .failed(let failure) = verdict { failure } else { nil }
    }

    @Test func thereAreTests() { #expect(Self.files.count >= 40) }

    static let hasCPU = if case .available = SoftKVM().engineStatus { true } else { false }
    static let noCPU: Comment = "needs the Unicorn engine"

    @Test(.enabled(if: hasCPU, noCPU), arguments: files) func everyTestPassesOnTheModel(_ file: URL) throws {
        let source = try Source(parsing: Array(Data(contentsOf: file)))
        #expect(Runner(SoftKVM()).run(source) == .passed)
        #expect(try Source(parsing: source.test.text).test == source.test)
    }

    /// On the adapter over SoftKVM, tests are skipped where it cannot answer, and none fails.
    @Test(.enabled(if: hasCPU, noCPU), arguments: files) func noTestFailsOnTheAdapter(_ file: URL) throws {
        let source = try Source(parsing: Array(Data(contentsOf: file)))
        let verdict = Runner(MemslotTrapKVM(over: SoftKVM()), .init(runs: 20)).run(source)
        #expect(failure(verdict) == nil)
    }

    @Test(arguments: [
        ("host read 0 => 1", "host read 0", "0x1", "0x0"),
        ("host read 0 => SIGBUS", "host read 0", "SIGBUS", "0x0"),
        ("host convert 0 private flags 1", "host convert 0 private flags 0x1", "success", "EINVAL"),
        ("host convert 0 private => EINVAL", "host convert 0 private", "EINVAL", "ok"),
        ("host convert 9 private => EAGAIN at 9", "host convert 9 private", "EAGAIN at 9", "EINVAL"),
        ("host check 1..2 0 => differs at 2", "host check 1..2 0x0", "differs at 2", "ok"),
        ("host check 1..2 7", "host check 1..2 0x7", "success", "differs at 1"),
        ("host map 0 as v\nhost read v:1", "host read v:1", "success", "not inside the view"),
        ("host map @1+1 as v => EINVAL\nhost read v:0", "host read v:0", "success", "creating it failed"),
        (
            "host hold 3 as h\nhost convert 2..3 private => EAGAIN at 2", "host convert 2..3 private",
            "EAGAIN at 2", "EAGAIN at 3"
        ),
        (
            "host hold 3 as h\nhost convert 3 private => EAGAIN", "host convert 3 private", "EAGAIN",
            "EAGAIN at 3"
        ),
    ])
    func failuresNameTheStep(_ body: String, _ text: String, _ expected: String, _ seen: String)
        throws
    {
        let failure = try #require(failure(try run(body)))
        #expect(failure.text == text)
        #expect(failure.expected == expected)
        #expect(failure.seen.contains(seen), "\(failure.seen)")
        #expect(failure.line == 2 + body.split(separator: "\n").count)
    }

    @Test func aFailureShowsThePagesAround() throws {
        let failure = try #require(
            failure(try run("host fill 0..3 7\nhost convert 2 private\nhost read 1 => SIGBUS")))
        #expect(
            failure.pages == [
                "page 0 of ram: shared, the host reads 0x7", "page 1 of ram: shared, the host reads 0x7",
                "page 2 of ram: private, the host reads SIGBUS",
            ])
    }

    @Test(arguments: [
        ("host unmap ram", "a memslot points into the view"),
        ("host mremap ram to 1 pages as v", "a memslot points into the view"),
        (
            "host mprotect 0 none\nhost read 1\nhost map 0..1 as v\nhost mprotect v:0 none\nhost mremap v to 1 pages as w",
            "before Linux 6.17"
        ),
        (
            "host bind slot 1 to ram:0 at 16 flags 0 address ram:0\nhost mprotect 0 none",
            "the effect of its protection is not modelled"
        ),
        (
            "host bind slot 1 to ram:0 at 16 flags 0 address ram:0\nhost madvise 0 hwpoison",
            "SIGBUS to minivmm"
        ),
        (
            "host madvise 0 hwpoison\nhost bind slot 1 to ram:0 at 16 flags 0 address ram:0",
            "SIGBUS to minivmm"
        ),
        ("host vm_attributes 0 private", "no KVM_SET_MEMORY_ATTRIBUTES"),
    ])
    func unsupportedTestsAreSkipped(_ body: String, _ reason: String) throws {
        #expect(self.reason(try run(body))?.contains(reason) == true)
    }

    /// Always, and not only if one actor of a block is faster than another.
    @Test(arguments: [
        ("host create f 1 pages mmap\nhost close f\nhost close f => EBADF", "cannot use closed descriptors"),
        (
            "host map 0 as v\nparallel\nhost unmap v\nhost1 read v:0 => a\nend",
            "mappings end with their last user"
        ),
        ("host dup ram as f", "whose files are not the kernel"),
        ("host mprotect 0 none", "protects mappings itself"),
        ("host vm_attributes 0 private", "keeps the attributes of its VMs itself"),
        ("host dirty slot 0", "uses other memslots"),
    ])
    func anAdapterSkipsUnsupportedSteps(_ body: String, _ reason: String) throws {
        let verdict = Runner(MemslotTrapKVM(over: SoftKVM()), .init(runs: 1)).run(try source(body))
        #expect(self.reason(verdict)?.contains(reason) == true, "\(verdict)")
    }

    /// madvise returns EBUSY because the kernel could not recover the page, but the page is poisoned.
    @Test func poisonSucceedsWithAnErrno() throws {
        for answer in ["", " => EBUSY"] {
            #expect(try run("host madvise 0 hwpoison\(answer)\nhost read 0 => SIGBUS") == .passed)
        }
        #expect(failure(try run("host madvise 0 soft_offline"))?.seen == "EBUSY")
        #expect(failure(try run("host madvise 0 hwpoison => ok"))?.seen == "EBUSY")
    }

    @Test(.enabled(if: hasCPU, noCPU)) func poisonIsAMemoryFault() throws {
        for answer in ["fault shared", "fault shared at 1", "EHWPOISON", "EHWPOISON at 1"] {
            #expect(try run("host madvise 1 hwpoison\nvcpu0 read 1 => \(answer)") == .passed)
        }
        for answer in ["fault private", "fault shared at 2", "EFAULT", "EHWPOISON at 2"] {
            #expect(
                failure(try run("host madvise 1 hwpoison\nvcpu0 read 1 => \(answer)"))?.seen
                    == "EHWPOISON at 1")
        }
    }

    @Test(
        .enabled(if: hasCPU, noCPU),
        arguments: [
            ("vcpu0 read 0 => 1", "0x0"), ("vcpu0 write 2 7\nvcpu1 read 2 => 8", "0x7"),
            ("vcpu0 fill 0..1 7\nhost check 0..1 7\nvcpu0 check 0..1 8", "differs at 0"),
            ("vcpu3 write @0x1fff 7\nvcpu0 check 1 0", "differs at @0x1fff"), ("vcpu0 read 4", "mmio"),
            ("vcpu0 read 4 => mmio\nvcpu0 write 0 7\nhost read 0 => 8", "0x7"),
            ("vcpu0 read 262143", "below 0x3ff00000"),
        ])
    func vCPUsAccessTheSameMemory(_ body: String, _ seen: String) throws {
        #expect(failure(try run(body))?.seen.contains(seen) == true)
    }

    @Test func unmetNeedsAreNeverAPass() throws {
        var configuration = SoftKVM.Configuration()
        configuration.inPlaceConversion = false
        let old = SoftKVM(configuration)
        #expect(reason(try run("host read 0", on: old)) != nil)
        configuration.inPlaceConversion = true
        configuration.contentPromise = .lost
        let forgetful = SoftKVM(configuration)
        let test = "test \"x\"\nneeds preservation\nmemory 1 pages shared\nhost convert 0 private preserve"
        #expect(reason(Runner(forgetful).run(try Source(parsing: test))) != nil)
        #expect(reason(try run("host convert 0 private preserve", on: forgetful)) != nil)
        #expect(try run("host convert 0 private preserve => EOPNOTSUPP", on: forgetful) == .passed)
        // The bare call has no content policy, so contents may differ.
        let bare = "host fill 0 7\nhost convert 0 private\nhost convert 0 shared\nhost check 0 7"
        #expect(failure(try run(bare, on: forgetful))?.seen == "differs at 0")
        #expect(try run(bare) == .passed)
    }

    @Test func processMemoryIsNeverAccessed() throws {
        for body in [
            "host fill 0..4 1", "host hold 3..4 as h", "host read @0x4000",
            "host bind slot 3 to 0 at 64 flags 0 address @0x3001",
            "host create f 4 pages mmap\nhost bind slot 3 to f:0..99999 at 64 address 0",
        ] {
            #expect(failure(try run(body))?.seen.contains("not inside the view") == true, "\(body)")
        }
    }

    /// Every program ends with a verdict, and the runner leaves nothing behind.
    @Test func randomTestsAlwaysEndWithAVerdict() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("litmus runs, seed \(seed)")
        var maker = TestMaker(seed: seed)
        let before = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        var steps = 0
        for number in 0..<500 {
            var test = maker.next()
            test.needs = []
            test.body = test.body.filter { entry in
                guard case .step(let step) = entry, case .host = step.actor else { return false }
                switch step.action {
                case .convert(let conversion):
                    return conversion.structure == .writable && conversion.contents != .zero
                case .fork: return false
                default: return true
                }
            }
            guard let source = try? Source(test) else { continue }
            // Without its expectations, so that it does not stop early.
            switch Runner(SoftKVM()).run(source) {
            case .passed: steps += test.steps.count
            case .failed(let failure): steps += failure.step ?? 0
            case .skipped(let reason): #expect(!reason.isEmpty, "seed \(seed), test \(number)")
            case .hostFailed(let failure): Issue.record("seed \(seed), test \(number): \(failure)")
            }
        }
        #expect(steps > 100)
        let after = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        // Other suites have open files, too.
        #expect(after < before + 100)
    }
}
