// SPDX-License-Identifier: MIT
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

/// Reports in the kernel's log: what they are, where they begin and end, and which test they belong to.
@Suite("kernel log") struct KernelLogTests {
    private func reports(_ log: String) -> [KernelReport] {
        var parser = KernelReportParser()
        var reports = log.split(separator: "\n", omittingEmptySubsequences: false).compactMap {
            parser.add($0)
        }
        if let last = parser.finish() { reports.append(last) }
        return reports
    }

    private static let warning = """
        ------------[ cut here ]------------
        WARNING: virt/kvm/guest_memfd.c:228 at kvm_gmem_fallocate+0x1a2/0x2c0, CPU#0: litmus/71
        CPU: 0 UID: 0 PID: 71 Comm: litmus Not tainted 7.3.4-lab #1 PREEMPT
        RIP: 0010:kvm_gmem_fallocate+0x1a2/0x2c0
        Call Trace:
         <TASK>
         vfs_fallocate+0x12c/0x300
         </TASK>
        ---[ end trace 0000000000000000 ]---
        """
    private static let oops = """
        ------------[ cut here ]------------
        kernel BUG at virt/kvm/guest_memfd.c:615!
        Oops: invalid opcode: 0000 [#1] SMP NOPTI
        CPU: 0 UID: 0 PID: 71 Comm: litmus Not tainted 7.3.4-lab #1 PREEMPT
        RIP: 0010:kvm_gmem_convert.isra.0+0x2f1/0x300
        Call Trace:
         <TASK>
         ? __pfx_kvm_gmem_ioctl+0x10/0x10
         __x64_sys_ioctl+0x94/0xe0
         </TASK>
        ---[ end trace 0000000000000000 ]---
        """
    private static let kasan = """
        ==================================================================
        BUG: KASAN: slab-use-after-free in kvm_gmem_release+0x4c/0x210
        Read of size 8 at addr ffff888004a1c0d0 by task litmus/71
        Call Trace:
         <TASK>
         dump_stack_lvl+0x53/0x70
         kasan_report+0xce/0x100
         kvm_gmem_release+0x4c/0x210
         </TASK>
        ==================================================================
        """
    private static let lockdep = """
        ======================================================
        WARNING: possible circular locking dependency detected
        7.3.4-lab #1 Not tainted
        ------------------------------------------------------
        litmus/71 is trying to acquire lock:
        ffff888004a1c0d0 (&mm->mmap_lock){++++}-{4:4}, at: __might_fault+0x5a/0x80

        but task is already holding lock:
        ffff888004a1d2d0 (mapping.invalidate_lock){++++}-{4:4}, at: kvm_gmem_convert+0x3c/0x2a0
        Call Trace:
         <TASK>
         dump_stack_lvl+0x53/0x70
         </TASK>
        """
    private static let sleeping = """
        BUG: sleeping function called from invalid context at kernel/locking/rwsem.c:1592
        in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 71, name: litmus
        Call Trace:
         <TASK>
         dump_stack_lvl+0x53/0x70
         __might_resched+0x11a/0x170
         down_write+0x1b/0x60
         kvm_gmem_punch_hole+0x2c/0x90
         </TASK>
        """

    @Test(arguments: [
        (warning, "warning-kvm_gmem_fallocate"), (oops, "oops-kvm_gmem_convert.isra.0"),
        (kasan, "kasan-kvm_gmem_release"), (lockdep, "lockdep-kvm_gmem_convert"),
        (sleeping, "bug-kvm_gmem_punch_hole"),
        // The format of WARN before Linux 6.19, and of other reports.
        ("WARNING: CPU: 0 PID: 71 at mm/gup.c:1 try_grab_folio+0x1/0x2\n", "warning-try_grab_folio"),
        ("UBSAN: array-index-out-of-bounds in virt/kvm/kvm_main.c:12:3\n", "ubsan"),
        (
            "INFO: task litmus:71 blocked for more than 60 seconds.\n task:litmus\n schedule+0x1/0x2\n"
                + " kvm_gmem_convert+0x1/0x2\n", "hung-task-kvm_gmem_convert"
        ),
        (
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [litmus:71]\nRIP: 0010:mas_walk+0x1/0x2\n",
            "stall-mas_walk"
        ),
        ("rcu: INFO: rcu_preempt self-detected stall on CPU\n", "stall"),
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000008\n#PF: x\nOops: 0000 [#1]\n"
                + "RIP: 0010:kvm_gmem_bind+0x1/0x2\n", "oops-kvm_gmem_bind"
        ),
        ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n", "panic"),
    ])
    func eachKindHasANameAndAFunction(_ log: String, _ name: String) throws {
        let found = reports(log)
        #expect(found.map(\.name) == [name])
        let report = try #require(found.first)
        #expect(KernelReport.Kind(header: report.headline[...]) == report.kind)
        #expect(log.contains(report.lines.joined(separator: "\n")))
    }

    /// Lines that the kernel or a program prints without a bug of the kernel.
    @Test(arguments: [
        "kvm: warning: something", "WARNING: this is printed by a driver",
        "ACPI BIOS Error (bug): AE_NOT_FOUND",
        "Debug: no bug", "lab: the command starts", "process 71 (litmus) DEBUG: sent", "INFO: task done",
        "------------[ cut here ]------------", "minivmm: | host      read 0", "",
    ])
    func otherLinesAreNoReports(_ line: String) { #expect(reports(line).isEmpty) }

    @Test func severalReportsAreKeptApart() {
        let log = [Self.warning, "quiet", Self.kasan, Self.sleeping, Self.oops].joined(separator: "\n")
        #expect(
            reports(log).map(\.kind) == [.warning, .kasan, .bug, .oops])
        // A report that is cut off ends where the next one begins.
        let cut = Self.warning.split(separator: "\n").prefix(3).joined(separator: "\n")
        #expect(reports(cut + "\n" + Self.oops).map(\.kind) == [.warning, .oops])
        #expect(reports(Self.warning + String(repeating: "\n x", count: 3)).first?.lines.count == 9)
        let long = "BUG: Bad page state in process litmus" + String(repeating: "\n more", count: 500)
        #expect(reports(long).first?.lines.count == KernelReport.mostLines)
    }

    // MARK: announcements

    @Test func anAnnouncementIsReadAsItWasWritten() throws {
        let scratch = try temporaryFile()
        defer { try? FileManager.default.removeItem(atPath: scratch) }
        let wide = String(repeating: "x", count: 3 * Announcement.mostBytes + 1)
        let all: [Announcement] = [
            .test(number: 17, text: "one\n\ntwo\n"), .test(number: nil, text: ""),
            .probe(step: "host hold", text: "a"),
            .difference(text: wide), .test(number: 1, text: "minivmm: end\n| x"),
        ]
        let announcer = try Announcer(FilePath(scratch))
        for announcement in all { announcer.write(announcement) }
        #expect(announcer.failure == nil)
        var reader = AnnouncementReader()
        let text = try String(contentsOfFile: scratch, encoding: .utf8)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.allSatisfy { $0.utf8.count < 900 })
        #expect(lines.compactMap { reader.add($0).announcement } == all)
        #expect(!reader.add("host read 0").isPart)
    }

    @Test func aFileThatCannotBeWrittenIsAnError() throws {
        #expect(throws: Errno.noSuchFileOrDirectory) { _ = try Announcer("/nowhere/file") }
        let full = try Announcer("/dev/full")
        full.write(.difference(text: "a"))
        #expect(full.failure == .noSpace)
    }

    // MARK: boots

    private func console(_ text: String) -> [Substring] {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "[   12.345678] \($0)" }
    }
    private func announced(_ announcement: Announcement) -> [Substring] {
        console(announcement.lines.joined(separator: "\n"))
    }

    @Test func aReportBelongsToTheTestThatRan() {
        var log = BootLog()
        // Without its last line: the next test ends it.
        let cut = Self.warning.split(separator: "\n").dropLast().joined(separator: "\n")
        let lines: [Substring] =
            console("Linux version 7.3.4-lab") + ["minivmm's own output", "[not a time] BUG: x"]
            + announced(.probe(step: "host hold", text: "p")) + console(Self.oops)
            + announced(.test(number: 7, text: "seven")) + console(cut)
            + announced(.test(number: 8, text: "eight"))
        let events = lines.flatMap { log.add($0) }
        let probe = BootLog.Test(number: nil, probed: "host hold", text: "p")
        let seven = BootLog.Test(number: 7, probed: nil, text: "seven")
        let eight = BootLog.Test(number: 8, probed: nil, text: "eight")
        #expect(events.count == 5)
        #expect(events.first == .began(probe) && events.last == .began(eight) && log.running == eight)
        var seen: [BootLog.Test?: String] = [:]
        for case .reported(let report, let test) in events { seen[test] = report.name }
        #expect(seen == [probe: "oops-kvm_gmem_convert.isra.0", seven: "warning-kvm_gmem_fallocate"])
        #expect(log.finish() == nil)
        // A kernel that dies in the middle of a report, with the caller in each line.
        for line in [
            "[    1.0][    T71] BUG: unable to handle page fault",
            "[    1.0][    T71] RIP: 0010:mas_find+0x1/0x2",
        ] {
            #expect(log.add(line[...]).isEmpty)
        }
        #expect(log.finish()?.name == "oops-mas_find")
        #expect(log.lastLines.last == "RIP: 0010:mas_find+0x1/0x2")
    }

    // MARK: a campaign

    @Test func aCampaignGoesOnBehindEachCrash() {
        var campaign = Campaign(seed: 5, firstTest: 3, known: ["hang"])
        func test(_ number: Int?, probed: String? = nil) -> BootLog.Test {
            .init(number: number, probed: probed, text: "")
        }
        #expect(campaign.note("oops-a") && !campaign.note("oops-a") && !campaign.note("hang"))
        #expect(
            campaign.seen == ["oops-a": 2, "hang": 1] && campaign.isKnown("hang") && !campaign.isKnown("x"))
        #expect(campaign.goOn(behind: test(3)) && campaign.start.firstTest == 4)
        #expect(campaign.goOn(behind: test(90)) && campaign.start.firstTest == 91)
        #expect(
            campaign.goOn(behind: test(nil, probed: "host hold")) && campaign.start.excluded == ["host hold"])
        // There is nothing to go on behind.
        #expect(!campaign.goOn(behind: test(nil, probed: "host hold")) && !campaign.goOn(behind: nil))
        #expect(
            !campaign.goOn(behind: test(90)) && !campaign.goOn(behind: test(nil))
                && !campaign.goOn(behind: test(.max)))
        campaign.seedIsComplete()
        #expect(
            campaign.start == .init(seed: 6, firstTest: 1, excluded: ["host hold"], omitsScope: true))
    }

    @Test func aCrashIsShrunkToTheStepsThatMakeIt() throws {
        let source = try Source(
            parsing: Array(
                """
                test "x"
                memory 4 pages shared
                host write 3 0x41
                host hold 1..3 as h
                host read 2
                vcpu0 write 0 0x42
                host convert 0..3 private => EAGAIN at 1
                host release h
                """.utf8))
        var boots = 0
        // As a kernel that dies of a conversion to private if a page of its range is held, but not the first.
        let smallest = CrashShrinker { test in
            boots += 1
            var held: [UInt64] = []
            for step in test.steps {
                switch step.action {
                case .hold(let extent, _, _): held.append(extent.offset)
                case .release: held = []
                case .convert(let conversion):
                    let extent = conversion.extent
                    let end = extent.offset + extent.size
                    guard end <= (test.memory.first?.pages ?? 0) * pageSize else { break }
                    if held.contains(where: { $0 > extent.offset && $0 < end }) { return true }
                default: break
                }
            }
            return false
        }.shrink(source.test)
        #expect(smallest.steps.count == 2 && boots < 100)
        #expect(smallest.memory.first?.pages == 2)
        // The model's answer is kept, so that the test passes on a kernel without the bug.
        #expect(smallest.text.contains("=> EAGAIN at "))
        let report = try #require(reports(Self.oops).first)
        let finding = CrashFinding(
            .report(report), test: smallest, announced: "", origin: "lab/explore --seed 1, test 7",
            showsAlone: true)
        #expect(
            finding.text.hasPrefix(
                "# kernel BUG at virt/kvm/guest_memfd.c:615!\n# lab/explore --seed 1, test 7\ntest "))
        #expect(finding.text.contains("\n# RIP: 0010:kvm_gmem_convert.isra.0+0x2f1/0x300\n"))
        #expect(try Source(parsing: Array(finding.text.utf8)).test.steps == smallest.steps)
    }

    @Test func eachCrashHasAName() throws {
        let report = try #require(reports(Self.warning).first)
        let crashes: [KernelCrash] = [
            .report(report), .hang(limit: .seconds(180), lines: ["x"]), .reset(lines: []),
            .gaveUp(status: 125, lines: ["minivmm: no descriptor left"]),
        ]
        #expect(crashes.map(\.name) == ["warning-kvm_gmem_fallocate", "hang", "reset", "minivmm-125"])
        #expect(crashes.map(\.isSurvivable) == [true, false, false, false])
        #expect(crashes.map(\.headline).allSatisfy { !$0.isEmpty })
    }

    // MARK: in the machine itself

    @Test func aReportFailsTheTestThatRan() throws {
        let path = try temporaryFile()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let old = Self.records(Self.oops)
        try old.write(toFile: path, atomically: false, encoding: .utf8)
        let log = try KernelLog(FilePath(path))
        let test = try Source(parsing: Array("test \"x\"\nmemory 1 pages shared\nhost read 0 => 0x0\n".utf8))
        let runner = Runner(SoftKVM(), .init(kernelLog: log))
        // Reports from before the test do not count.
        #expect(runner.run(test) == .passed)
        let handle = try #require(FileHandle(forWritingAtPath: path))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(Self.records(Self.warning).utf8))
        guard case .failed(let failure) = runner.run(test) else {
            Issue.record("the report was not seen")
            return
        }
        #expect(failure.seen.hasPrefix("WARNING: virt/kvm/guest_memfd.c:228 at kvm_gmem_fallocate+"))
        #expect(failure.lines.first == "the kernel reported a bug of its own:" && failure.lines.count == 10)
        #expect(failure.text == "the kernel's log" && failure.step == nil)
        // Each report counts once.
        #expect(runner.run(test) == .passed)
        try handle.write(contentsOf: Data(Self.records("kvm: something else").utf8))
        #expect(runner.run(test) == .passed)
    }

    private static func records(_ text: String) -> String {
        text.split(separator: "\n").enumerated()
            .map { "4,\($0.offset + 400),12345678,-;\($0.element)\n SUBSYSTEM=x\n" }.joined()
    }

    private func temporaryFile() throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent(
            "minivmm-\(UUID().uuidString)"
        ).path
        try Data().write(to: URL(fileURLWithPath: path))
        return path
    }

    // MARK: the first test of an exploration

    @Test func anExplorationBeginsWithATest() throws {
        let path = try temporaryFile()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let excluded: Set = ["host check", "vm default"]
        func announced(from first: Int) throws -> [Int: [String]] {
            try Data().write(to: URL(fileURLWithPath: path))
            let announcer = try Announcer(FilePath(path))
            let options = Exploration.Options(
                depth: 1, tests: 20, parallelTests: 3, pairTests: 0, seed: 7, firstTest: first,
                excluded: excluded, announcer: announcer)
            let summary = Exploration(SoftKVM(), options).run()
            #expect(summary.findings.isEmpty && summary.end == .complete)
            let leftOut = Set(summary.leftOut.map(\.move))
            #expect(leftOut.isSuperset(of: excluded))
            var reader = AnnouncementReader()
            var tests: [Int: [String]] = [:]
            for line in try String(contentsOfFile: path, encoding: .utf8).split(
                separator: "\n", omittingEmptySubsequences: false)
            {
                switch reader.add(line).announcement {
                case .test(let number?, let text): tests[number, default: []].append(text)
                case .probe(let step, _): #expect(!excluded.contains(step))
                default: break
                }
            }
            return tests
        }
        let all = try announced(from: 1)
        let last = try #require(all.keys.max())
        let first = last - 10
        #expect(try announced(from: first) == all.filter { $0.key >= first })
        #expect(!all.values.joined().contains { $0.contains("host      check") })
    }
}
