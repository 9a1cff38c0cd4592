// SPDX-License-Identifier: MIT
import Foundation
import Litmus
import Testing

@testable import Export

/// The tests of litmus/ as C programs.
enum Library {
    static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("litmus")
    static let names =
        ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? [])
        .filter { $0.hasSuffix(".litmus") }.map { String($0.dropLast(7)) }.sorted()

    static func source(_ name: String) throws -> Source {
        let text = try String(
            contentsOf: directory.appendingPathComponent(name + ".litmus"), encoding: .utf8)
        return try Source(parsing: text)
    }

    static func program(_ name: String) throws -> String {
        try CProgram(source(name), file: name + ".litmus", name: name).text
    }
}

@Suite("Programs", .timeLimit(.minutes(120)))
struct ProgramTests {
    private func program(_ lines: String...) throws -> String {
        let text = (["test \"x\""] + lines).joined(separator: "\n") + "\n"
        return try CProgram(Source(parsing: text), name: "x").text
    }

    private func problem(_ lines: String...) throws -> ExportProblem? {
        let source = try Source(parsing: (["test \"x\""] + lines).joined(separator: "\n") + "\n")
        do throws(ExportProblem) {
            _ = try CProgram(source, name: "x")
            return nil
        } catch {
            return error
        }
    }

    // MARK: the library

    @Test func mostOfTheLibraryCanBeExported() throws {
        var programs = 0
        for name in Library.names {
            do {
                _ = try Library.program(name)
                programs += 1
            } catch let error as ExportProblem {
                // The test is about SoftKVM, or the error names its step.
                switch error {
                case .softwareKernelOnly: #expect(!(try Library.source(name)).test.settings.isEmpty)
                case .modelOnly(let type): #expect(type.isConfidential)
                case .step(_, let reason): #expect(!reason.isEmpty)
                }
            }
        }
        #expect(programs >= 337)
        #expect(Library.names.count - programs <= 15)
    }

    @Test func theSameTestGivesTheSameProgram() throws {
        let name = try #require(Library.names.first { $0.hasPrefix("race-") })
        #expect(try Library.program(name) == Library.program(name))
    }

    // MARK: what a reader sees

    @Test func aStepHasItsRuleBesideIt() throws {
        let text = try program(
            "memory 4 pages shared", "host hold 2 as h", "host convert 0..3 private => EAGAIN at 2")
        #expect(text.contains("expect(convert(ram, 0, 4 * PAGE, PRIVATE), \"EAGAIN at 0x2000\");"))
        #expect(text.contains("/* host convert 0..3 private => EAGAIN at 2: "))
        #expect(text.contains("(row 11) */"))
    }

    @Test(arguments: [
        ("host convert 0 attributes 4 => EINVAL", 5), ("host convert @0+0 private => EINVAL", 6),
        ("host convert @1+4096 private => EINVAL", 7), ("host convert 3..8 private => EINVAL", 8),
        ("host convert 0 private flags 1 => EINVAL", 2),
        ("host convert 0 private reserved 2 = 1 => EINVAL", 3),
        ("host convert 0 private struct unmapped => EFAULT", 1),
    ])
    func theRowFitsTheArguments(_ step: String, _ row: Int) throws {
        let text = try program("memory 4 pages shared", step).replacing("\n\t * ", with: " ")
        #expect(text.contains("(row \(row)) */"))
    }

    @Test func onlyWhatATestNeedsIsInItsProgram() throws {
        let text = try program("memory 1 pages shared", "host read 0 => 0")
        for absent in [
            "vmsplice", "pthread_create", "KVM_RUN", "fork", "KVM_SET_MEMORY_ATTRIBUTES2", "punch",
        ] {
            #expect(!text.contains(absent), "\(absent)")
        }
        #expect(text.split(separator: "\n", omittingEmptySubsequences: false).count < 180)
    }

    /// Ten steps of the host, or of the host and vCPUs, in a program that can be read in one go: half of them are shorter.
    @Test(arguments: [(false, 250), (true, 380)])
    func aSequentialTestOfTenStepsIsShort(_ hasVCPU: Bool, _ limit: Int) throws {
        var lengths: [Int] = []
        for name in Library.names {
            let source = try Library.source(name)
            let isHostsOnly = source.test.steps.allSatisfy { $0.actor == .monitor }
            guard (9...10).contains(source.test.steps.count), isHostsOnly != hasVCPU,
                !source.test.body.contains(where: { $0.isParallel }),
                let text = try? Library.program(name)
            else { continue }
            lengths.append(text.split(separator: "\n", omittingEmptySubsequences: false).count)
        }
        lengths.sort()
        #expect(lengths.count > 5)
        #expect(lengths[lengths.count / 2] < limit, "\(lengths)")
    }

    // MARK: names

    @Test(arguments: ["int", "main", "printf", "convert", "errno", "outcome"])
    func aNameThatCannotBeACName(_ name: String) throws {
        let text = try program(
            "memory 1 pages shared", "host create \(name) 1 pages mmap init_shared",
            "host map \(name):0 as \(name)",
            "host hold \(name):0 as \(name)", "host release \(name)", "host convert \(name):0 private")
        for line in text.split(separator: "\n") where line.hasPrefix("static ") {
            #expect(!line.contains(" \(name) = -1;"), "\(line)")
        }
    }

    @Test func aTextThatWouldEndACommentOrAString() throws {
        let source = try Source(parsing: "test \"a */ b ??/ # c\"\nmemory 1 pages shared\nhost read 0\n")
        let text = try CProgram(source, file: "x*/y", name: "*/").text
        let head = try #require(text.components(separatedBy: "#define").first)
        #expect(head.components(separatedBy: "*/").count == 2)
        #expect(text.contains("#define TEST_NAME \"a */ b ?\\?/ _ c\""))
    }

    // MARK: races

    @Test func aRaceHasTheOutcomesOfTheModel() throws {
        let text = try Library.program("race-convert-and-read")
        #expect(text.contains("(is(result.c, \"EAGAIN at 0x0\") && is(result.r, \"0x41\"))"))
        #expect(text.contains("(is(result.c, \"ok\") && is(result.r, \"SIGBUS*\"))"))
        #expect(!text.contains("is(result.c, \"EAGAIN at 0x0\") && is(result.r, \"SIGBUS"))
    }

    @Test func theScheduleOfATestComesFirst() throws {
        let text = try program(
            "memory 1 pages shared", "parallel", "host convert 0 private => c", "host1 read 0 => r",
            "preempted host1 at 4800 by host => c = EAGAIN at 0", "end")
        let main = text.components(separatedBy: "int main").last ?? ""
        let schedule = try #require(main.range(of: "run_around(1, 0, 4800, run);"))
        #expect(schedule.lowerBound < (try #require(main.range(of: "sweep("))).lowerBound)
    }

    @Test func aReleaseInABlockHasAResult() throws {
        let text = try program(
            "memory 2 pages shared", "host hold 0 as h", "parallel", "host release h => a",
            "host1 convert 0..1 private => b", "end")
        #expect(text.contains("\trelease_pipe(&h_hold);\n\tresult.a = \"ok\";"))
    }

    // MARK: what cannot be exported

    @Test func aViewThatIsMappedAgainAfterAForkIsRefused() throws {
        let before = ["memory 1 pages shared", "host create f 1 pages mmap init_shared", "host map f:0 as v"]
        let source = try Source(
            parsing: (["test \"x\""] + before + [
                "host fork child", "host unmap v", "host map f:0 as v", "child read v:0",
            ])
            .joined(separator: "\n") + "\n")
        #expect(throws: ExportProblem.self) { try CProgram(source, name: "x") }
    }

    @Test func aTestOfTheSoftwareKernelSaysSo() throws {
        #expect(
            try problem("kernel runs 4", "memory 1 pages shared", "host read 0")
                == .softwareKernelOnly(setting: "runs 4"))
        #expect(try problem("kernel in-place off", "memory 1 pages shared", "host read 0") == nil)
    }

    @Test func aSelftestIsForTheKernelsTree() throws {
        let source = try Source(
            parsing: "test \"x\"\nmemory 1 pages shared\nhost read 0 => 0\nvcpu0 read 0 => 0\n")
        let text = try CProgram(source, name: "x", form: .selftest).text
        #expect(text.contains("#include \"kvm_util.h\"") && text.contains("static struct kvm_vm *vm;"))
        #expect(text.contains("ioctl(vm->fd, KVM_CREATE_VCPU"))
        #expect(!text.contains("KTAP") && !text.contains("_GNU_SOURCE") && !text.contains("TEST_NAME"))
    }

    // MARK: aliases

    @Test func aTestWithTwoAliasesMakesThemFromMemslots() throws {
        let text = try Library.program("converting-keeps-the-byte")
        #expect(text.contains("alias_memory(vm, ram, ram_view, "))
        #expect(text.contains("follow_faults(&vcpu0, guest_read(&vcpu0, SHARED_ALIAS"))
        #expect(
            try problem("aliases two", "memory 1 pages shared", "host unbind slot 0", "vcpu0 read 0") != nil)
    }

    @Test func aliasesThatTheRuntimeCannotHoldAreRefused() throws {
        #expect(try problem("aliases two", "memory 512 pages shared", "vcpu0 read 0") == nil)
        #expect(
            try problem("aliases two", "memory 513 pages shared", "vcpu0 read 0").map { "\($0)" }
                == "`memory ram`: a program with two aliases has at most 8 files of 512 pages")
        #expect(try problem("memory 513 pages shared", "vcpu0 read 0") == nil)
        let memories = (0..<9).map { "memory m\($0) 1 pages shared" }
        let eight = memories.prefix(8).joined(separator: "\n")
        #expect(try problem("aliases two", eight, "host read m0:0") == nil)
        #expect(
            try problem("aliases two", eight, memories[8], "host read m0:0").map { "\($0)" }
                == "`memory m8`: a program with two aliases has at most 8 files of 512 pages")
    }

    @Test func aReasonIsGivenOnceAndThenByItsPlace() throws {
        let text = try program(
            "memory 1 pages shared", "host convert 0 private", "host read 0 => SIGBUS",
            "host read 0 => SIGBUS")
        #expect(
            text.contains(
                "/* host read 0 => SIGBUS: the host can access shared pages only (section 2, Host access) */")
        )
        #expect(text.contains("/* host read 0 => SIGBUS (section 2, Host access) */"))
    }

    @Test func aGuestMayAskTheMonitorForZeros() throws {
        let asks = try program("memory 1 pages shared", "vcpu0 hypercall 0 attributes 0x210")
        #expect(asks.contains("enable_calls(vm, map_or_zero_gpa_range);") && asks.contains("zero_pages("))
        let keeps = try program("memory 1 pages shared", "vcpu0 hypercall 0 attributes 0x110")
        #expect(keeps.contains("enable_calls(vm, map_gpa_range);") && !keeps.contains("zero_pages("))
    }

    /// The agent of minivmm has five pages of its own, and the guest of a program has one. A default VM loses them with any slot.
    @Test func theGuestsOwnPagesAreCounted() throws {
        let steps = [
            "memory 2 pages shared", "host bind slot 1 to ram:1 at 9", "vcpu0 write 0 0x41",
            "host unbind slot 1", "host zapped => 6", "vcpu0 write 0 0x41", "host zapped => 0",
        ]
        func text(_ vm: String) throws -> String {
            let lines = ["test \"x\"", "vm \(vm)"] + steps
            return try CProgram(Source(parsing: lines.joined(separator: "\n") + "\n"), name: "x").text
        }
        let some = try text("default")
        #expect(some.contains("/* host zapped => 0x6; here the guest has one page of its own"))
        #expect(some.contains("expect(zapped_pages(vm, pages), \"0x2\");"))
        #expect(some.contains("expect(zapped_pages(vm, pages), \"0x0\");"))
        #expect(try text("protected").contains("expect(zapped_pages(vm, pages), \"0x6\");"))
    }

    @Test func aFileWithTheNameOfAVMGetsAnother() throws {
        let text = try program("memory protected_vm 1 pages shared", "host read protected_vm:0 => 0")
        #expect(text.contains("protected_vm_file"))
    }
}

extension Entry {
    fileprivate var isParallel: Bool { if case .parallel = self { true } else { false } }
}
