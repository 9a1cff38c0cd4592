// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import Explain

/// Lines of other programs, as they print them.
struct LineTests {
    private static func topics(_ line: String) -> [Explanation] {
        guard case .found(let found) = Library.answer([line]) else { return [] }
        return found
    }

    private static func text(_ line: String) -> String {
        topics(line).flatMap { [$0.title] + $0.sections.map(\.text) }.joined(separator: "\n")
    }

    private static let slot = "KVM_SET_USER_MEMORY_REGION2"

    /// A line, the title of its topic, and words that show that its numbers were read.
    private static let lines: [(line: String, title: String, words: [String])] = [
        // Rust VMMs.
        (
            "MemoryFault { flags: 8, gpa: 4096, size: 4096 }", "KVM_EXIT_MEMORY_FAULT (39)",
            ["gpa 0x1000", "needed a private page"]
        ),
        (
            "Err(VcpuRun(MemoryFault { size: 0x1000, gpa: GuestAddress(8192), flags: 0x0 }))",
            "KVM_EXIT_MEMORY_FAULT (39)", ["gpa 0x2000", "needed a shared page"]
        ),
        (
            "\u{1b}[31mERROR\u{1b}[0m [2026-01-02T10:00:00Z vmm::vcpu] memory_fault { guest_physical_address: 0x7f000, "
                + "flags: 8 }: Bad address (os error 14)", "KVM_EXIT_MEMORY_FAULT (39)",
            ["gpa 0x7f000", "EFAULT (14)"]
        ),
        (
            "kvm: memory fault at gpa=0x1000 flags=KVM_MEMORY_EXIT_FLAG_PRIVATE",
            "KVM_EXIT_MEMORY_FAULT (39)",
            ["needed a private page"]
        ),
        (
            "FailEntry(2147483681, 3)", "KVM_EXIT_FAIL_ENTRY (9)",
            ["reason 0x80000021", "cpu 3", "invalid guest state"]
        ),
        ("SystemEvent(2, [])", "KVM_EXIT_SYSTEM_EVENT (24)", ["RESET"]),
        ("Unexpected exit: VcpuExit::Shutdown", "KVM_EXIT_SHUTDOWN (8)", []),
        (
            "VMM error: set_user_memory_region2: Os { code: 17, kind: AlreadyExists, message: \"File exists\" }",
            "EEXIST (17) from KVM_SET_USER_MEMORY_REGION2", ["Another memslot"]
        ),
        ("create_guest_memfd failed: Error(25)", "ENOTTY (25) from KVM_CREATE_GUEST_MEMFD", ["6.8"]),
        // QEMU.
        ("error: kvm run failed Bad address", "EFAULT (14) from KVM_RUN", ["exit reason 39"]),
        (
            "KVM: entry failed, hardware error 0x80000021", "KVM_EXIT_FAIL_ENTRY (9)",
            ["invalid guest state"]
        ),
        ("KVM: entry failed, hardware error 0xffffffff", "KVM_EXIT_FAIL_ENTRY (9)", ["VMEXIT_INVALID"]),
        ("KVM internal error. Suberror: 1", "KVM_EXIT_INTERNAL_ERROR (17)", ["EMULATION"]),
        ("KVM_EXIT_MEMORY_FAULT: Unknown flag 0x10", "KVM_EXIT_MEMORY_FAULT (39)", ["Flag bits 0x10"]),
        ("KVM: unknown exit, hardware reason 31", "KVM_EXIT_UNKNOWN (0)", ["reason 0x1f"]),
        (
            "qemu-system-x86_64: kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=3, start=0xfeda0000, "
                + "size=0x20001, flags=0x4, guest_memfd=15, guest_memfd_offset=0xa0000: Invalid argument",
            "EINVAL (22) from \(slot)", ["memory_size 0x20001 is not a multiple"]
        ),
        (
            "qemu-system-x86_64: failed to set memory (0x1000+0x1000) with attr 0x8 error 'Inappropriate ioctl for device'",
            "ENOTTY (25) from KVM_SET_MEMORY_ATTRIBUTES", ["KVM_SET_MEMORY_ATTRIBUTES2"]
        ),
        (
            "qemu-system-x86_64: kvm_convert_memory 0x1000 failed: Resource temporarily unavailable",
            "EAGAIN (11) from the conversion call", ["pinned for DMA"]
        ),
        (
            "qemu-system-x86_64: Convert non guest_memfd backed memory region (0xfee00000 ,+ 0x1000) to shared",
            "Convert non guest_memfd backed memory region, a message of QEMU", []
        ),
        (
            "Could not access KVM kernel module: Permission denied", "QEMU cannot use /dev/kvm",
            ["group that owns"]
        ),
        (
            "qemu-system-x86_64: -accel kvm: Invalid argument",
            "EINVAL (22): the line does not name the call",
            ["strace", "KVM_CREATE_VM"]
        ),
        // strace.
        (
            "ioctl(12, KVM_SET_USER_MEMORY_REGION2, {slot=0, flags=0x4, guest_phys_addr=0, memory_size=0x1000, "
                + "userspace_addr=0x7f0000000800}) = -1 EINVAL (Invalid argument)",
            "EINVAL (22) from \(slot)",
            ["userspace_addr 0x7f0000000800 is not a multiple"]
        ),
        (
            "[pid  4711] 10:21:07.123456 ioctl(12, KVM_SET_USER_MEMORY_REGION2, {slot=65536, "
                + "flags=KVM_MEM_GUEST_MEMFD|KVM_MEM_READONLY, guest_phys_addr=0, ...}) = -1 EINVAL (Invalid argument) <0.000012>",
            "EINVAL (22) from \(slot)", ["READONLY", "address space 1"]
        ),
        (
            "4711  ioctl(9, _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80), 0x7ffd3c10) = -1 EAGAIN (Resource temporarily "
                + "unavailable)", "EAGAIN (11) from the conversion call", []
        ),
        (
            "ioctl(9, 0xc080aed2, 0x7ffd3c10) = -1 ENOTTY (Inappropriate ioctl for device)",
            "ENOTTY (25) from the conversion call", ["gmem_in_place_conversion"]
        ),
        (
            "ioctl(9, 0xc080aed2, {offset=0, size=0x1800, attributes=8}) = -1 EINVAL (Invalid argument)",
            "EINVAL (22) from the conversion call", ["row 7"]
        ),
        ("ioctl(13, KVM_RUN, 0) = -1 EINTR (Interrupted system call)", "EINTR (4) from KVM_RUN", ["kicked"]),
        ("ioctl(13, KVM_RUN, 0) = 0", "0, success from KVM_RUN", []),
        (
            "madvise(0x7f00000000, 2097152, MADV_COLLAPSE) = -1 EINVAL (Invalid argument)",
            "EINVAL (22) from madvise", ["MADV_COLLAPSE"]
        ),
        (
            "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 9, 0) = -1 ENODEV (No such device)",
            "ENODEV (19) from mmap", ["MMAP flag"]
        ),
        (
            "pread64(3, 0x7f0000001000, 4096, 0) = -1 EFAULT (Bad address)", "EFAULT (14) from pread64",
            ["private"]
        ),
        ("[pid 12] <... ioctl resumed>) = -1 EFAULT (Bad address)", "EFAULT (14) from ioctl", ["unfinished"]),
        (
            "read(9, 0x7f0000001000, 4096) = -1 EINVAL (Invalid argument)", "EINVAL (22) from read",
            ["does not support read()"]
        ),
        // The kernel's log and its tracepoints.
        (
            "[  12.345678] kvm [1234]: vcpu0, guest rIP: 0xfff unhandled rdmsr: 0x611",
            "unhandled rdmsr or wrmsr, a message of the kernel", []
        ),
        (
            "[ 1.0] kvm: support for 'kvm_intel' disabled by bios",
            "KVM is not available on this CPU, a message of the kernel", []
        ),
        (
            "[ 1.0] SEAMCALL (0x6) failed: 0x8000020000000001",
            "a SEAMCALL failed, a message of the kernel (TDX)", ["busy"]
        ),
        ("kvm_userspace_exit: reason KVM_EXIT_HLT (5)", "KVM_EXIT_HLT (5)", []),
        // Traces of this program.
        (
            "    1234.5  vcpu0  memory-fault           gpa=0x200000 bytes=4096 flags=0x0 wants=shared errno=14 verdict=convert",
            "memory-fault, an event of the trace", ["page 512"]
        ),
        (
            #"{"t":81430,"actor":"vcpu0","event":"hypercall","number":12,"a0":2097152,"a1":8,"a2":16,"by":"port","result":-11}"#,
            "hypercall, an event of the trace", ["8 pages", "EAGAIN"]
        ),
    ]

    @Test(arguments: lines.indices) func linesAreRecognised(_ index: Int) {
        let (line, title, words) = Self.lines[index]
        #expect(Self.topics(line).map(\.title) == [title], "\(line)")
        for word in words { #expect(Self.text(line).contains(word), "\(line): \(Self.text(line))") }
        // Without quotes a shell passes the line as several words.
        guard case .found(let found) = Library.answer(line.split(separator: " ").map(String.init)) else {
            Issue.record("\(line)")
            return
        }
        #expect(found.map(\.title) == [title])
    }

    @Test(arguments: [
        "the quick brown fox jumps over the lazy dog", "Starting vm with 4 vcpus and 2048 MiB",
        "{ } ( ) = : -", "= -1", ") = -1 EINVAL", "ioctl(", "{\"event\":\"nonsense\"}",
        "vcpu0 nonsense gpa=1",
    ]) func otherLinesAreNotRecognised(_ line: String) {
        let isErrno = line.contains("EINVAL")
        #expect(Library.explanations(ofLine: line).isEmpty != isErrno, "\(line)")
    }

    /// A linear congruential generator: the same lines on every machine.
    private struct Dice: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    /// Lines made at random from pieces of known ones, extreme numbers and control characters do not crash the reader.
    @Test func randomLinesAreHandled() {
        var dice = Dice(state: 11)
        let pieces =
            Self.lines.flatMap { $0.line.split(separator: " ").map(String.init) } + [
                "18446744073709551615", "0xffffffffffffffff", "-9223372036854775808", "-1",
                "99999999999999999999999",
                "\u{0}", "\u{1b}[", "\u{1b}", "\u{202e}", "\u{fffd}", "é", "=", "(", ")", "[", "]", "{", "}",
                ":", "|", "data[15]:",
                "data[99]=1", "suberror=18446744073709551615", "type=0", "errno=0", "errno=-5", "ret=-4096",
                "_IOC(",
                "event=stop", "status=-1", "result=-9223372036854775808", "gpa=18446744073709551615",
                "size=18446744073709551615", "data0=1", "data1=255", "nr=12", "KVM_EXIT_HYPERCALL",
            ]
        for _ in 0..<500 {
            let count = Int(dice.next() % 12)
            let line = (0..<count).map { _ in pieces[Int(dice.next() % UInt64(pieces.count))] }.joined(
                separator: dice.next() % 3 == 0 ? "" : " ")
            for version in [InterfaceVersion.linux74, .rfcV1] {
                for text in Library.explanations(ofLine: line, version: version) {
                    #expect(!text.title.isEmpty)
                }
                _ = Library.answer([line], version: version)
            }
        }
    }

    /// A line of a megabyte is cut before it is searched; its end is kept.
    @Test(.timeLimit(.minutes(120))) func longLinesAreCut() {
        let filler = String(repeating: "x=1 (", count: 200_000)
        #expect(Library.explanations(ofLine: filler).isEmpty)
        let line = "ioctl(12, KVM_RUN, " + filler + ") = -1 EINTR (Interrupted system call)"
        #expect(Library.explanations(ofLine: line).map(\.title) == ["EINTR (4) from KVM_RUN"])
        guard case .unknown = Library.answer([String(repeating: "y", count: 1 << 20)]) else {
            Issue.record("a word of a megabyte is a topic")
            return
        }
    }
}

/// Several names, questions, calls by name.
struct QueryTests {
    private func found(_ words: String, _ location: SourceLocation = #_sourceLocation) -> [Explanation] {
        guard case .found(let found) = Library.answer(words.split(separator: " ").map(String.init)) else {
            Issue.record("\(words)", sourceLocation: location)
            return []
        }
        return found
    }

    @Test(arguments: [
        ("EAGAIN private", ["EAGAIN (11) from the conversion call", "a private page"]),
        ("shared bit", ["shared bit"]), ("what is a shared bit?", ["shared bit"]),
        ("A6 and A34", ["hazard A6", "hazard A34"]), ("TDX SNP pKVM CCA", ["TDX", "SEV-SNP", "pKVM", "CCA"]),
        ("memory fault", ["KVM_EXIT_MEMORY_FAULT (39)", "memory-fault, an event of the trace"]),
        ("exit 39 errno EAGAIN", ["KVM_EXIT_MEMORY_FAULT (39)", "EAGAIN (11) from the conversion call"]),
        ("call=KVM_SET_USER_MEMORY_REGION2 errno EINVAL", ["EINVAL (22) from KVM_SET_USER_MEMORY_REGION2"]),
        ("errno EINVAL call=kvm-run", ["EINVAL (22) from KVM_RUN"]),
        ("call=mmap errno=ENODEV", ["ENODEV (19) from mmap"]),
        ("KVM_RUN EFAULT", ["EFAULT (14) from KVM_RUN"]), ("ENODEV mmap", ["ENODEV (19) from mmap"]),
        ("call=KVM_SET_MEMORY_ATTRIBUTES2 errno=EINVAL size=0", ["EINVAL (22) from the conversion call"]),
        ("call=KVM_RUN", ["KVM_RUN, on a vCPU"]), ("exit 9 reason=0x80000021", ["KVM_EXIT_FAIL_ENTRY (9)"]),
        ("FailEntry reason=7", ["KVM_EXIT_FAIL_ENTRY (9)"]), ("term EAGAIN", ["EAGAIN"]),
        ("INTERNAL_ERROR suberror=1 ndata=0", ["KVM_EXIT_INTERNAL_ERROR (17)"]),
    ]) func wordsAreFound(_ words: String, _ titles: [String]) {
        let all = found(words).map(\.title)
        #expect(all.count == titles.count)
        for (title, start) in zip(all, titles) { #expect(title.hasPrefix(start), "\(title)") }
    }

    @Test func aSlotIsChecked() {
        func means(_ arguments: String) -> String {
            found("call=KVM_SET_USER_MEMORY_REGION2 errno=EINVAL \(arguments)").first?.sections
                .filter { $0.label == .means }.map(\.text).joined() ?? ""
        }
        #expect(means("flags=5").contains("LOG_DIRTY_PAGES"))
        #expect(means("flags=6").contains("READONLY"))
        #expect(means("flags=8").contains("unknown bit"))
        #expect(means("guest_phys_addr=1").contains("guest_phys_addr 0x1 is not a multiple"))
        #expect(means("guest_phys_addr=0xfffffffffffff000 memory_size=0x2000").contains("overflows"))
        #expect(means("memory_size=0").contains("no such slot"))
        #expect(means("slot=0x10000").contains("address space 1"))
        #expect(means("slot=1 flags=4 memory_size=4096").contains("arguments are valid"))
    }

    @Test func fieldsOfExitsAreDecoded() {
        func means(_ words: String) -> String {
            found(words).first?.sections.filter { $0.label == .means }.map(\.text).joined() ?? ""
        }
        for (words, text) in [
            ("exit 9", "refused to enter"), ("exit 9 reason=0x80000022", "MSR"),
            ("exit 9 reason=0x80000029", "machine check"),
            ("exit 9 reason=8", "host-state"), ("exit 9 reason=0x80000005", "basic exit reason 5"),
            ("exit 9 reason=0x1234", "not a code"), ("exit 9 reason=0xffffffffffffffff", "AMD"),
            ("exit 17 suberror=1", "could not"), ("exit 17 suberror=2", "SIMUL_EX"),
            ("exit 17 suberror=3 data1=0x30", "exit reason, 48"), ("exit 17 suberror=4 data0=0x3e", "0x3e"),
            ("exit 17 suberror=9", "not one"), ("exit 24 type=1", "powered off"),
            ("exit 24 type=6 data0=0x100", "0x404"),
            ("exit 24 type=7", "TDX"), ("exit 24 type=99", "not one"),
            ("exit 3 nr=12 gpa=0x1000 pages=2 attributes=16", "private"),
            ("exit 3 nr=5", "not KVM_HC_MAP_GPA_RANGE"), ("exit 8", "triple fault"),
            ("exit 8 errno=EINTR", "left over"),
        ] { #expect(means(words).lowercased().contains(text.lowercased()), "\(words): \(means(words))") }
        // data[0] bit 0: data[1] and data[2] hold the length and the bytes of the instruction.
        #expect(
            means("exit 17 suberror=1 data0=1 data1=0x06e10f0f01d98b03 data2=0").contains("8b d9 01"))
        #expect(!means("exit 17 suberror=1 data0=0 data1=3").contains("bytes"))
    }
}

/// Terms of the glossary.
struct GlossaryTests {
    private static let file = Sources.root.appendingPathComponent("docs/GLOSSARY.md")

    /// `make glossary` writes the document; without it this test compares.
    @Test func theDocumentIsCurrent() throws {
        if ProcessInfo.processInfo.environment["MINIVMM_WRITE_GLOSSARY"] != nil {
            try Glossary.markdown.write(to: Self.file, atomically: true, encoding: .utf8)
        }
        let text = try String(contentsOf: Self.file, encoding: .utf8)
        #expect(text == Glossary.markdown, "docs/GLOSSARY.md differs; make glossary writes it")
        #expect(!text.contains("\n\n\n") && text.split(separator: "\n").allSatisfy { $0.count <= 160 })
    }

    @Test func termsAreComplete() {
        #expect(Glossary.all.count >= 60)
        #expect(Set(Glossary.all.map(\.name)).count == Glossary.all.count)
        for term in Glossary.all {
            #expect(term.means.hasSuffix(".") && !term.means.contains("  "), "\(term.name)")
            #expect((20...400).contains(term.means.count), "\(term.name): \(term.means.count)")
            let path = Sources.root.appendingPathComponent(term.document.path).path
            #expect(FileManager.default.fileExists(atPath: path), "\(term.name): \(term.document.path)")
            for topic in term.topics {
                guard case .found = Library.answer(topic.split(separator: " ").map(String.init)) else {
                    Issue.record("\(term.name): \(topic)")
                    continue
                }
            }
        }
    }

    /// Names and synonyms, in upper and lower case, alone and in a question.
    @Test func everyTermIsFound() {
        for term in Glossary.all {
            for word in [term.name] + term.synonyms {
                let words = word.split(separator: " ").map(String.init)
                for typed in [
                    words, [word], words.map { $0.uppercased() }, ["what", "is", "a"] + words + ["?"],
                ] {
                    guard case .found(let found) = Library.answer(typed) else {
                        Issue.record("\(typed)")
                        continue
                    }
                    #expect(!found.isEmpty)
                }
                #expect(Glossary.term(word) != nil, "\(word)")
            }
            guard
                case .found(let found) = Library.answer(
                    ["term"] + term.name.split(separator: " ").map(String.init))
            else {
                Issue.record("\(term.name)")
                continue
            }
            #expect(found.map(\.title) == [term.name])
        }
    }

    /// Terms that a newcomer is likely to look up.
    @Test(arguments: [
        "TDX", "SEV-SNP", "SNP", "pKVM", "CCA", "GPA", "GFN", "HVA", "vCPU", "pin", "reference", "hold",
        "livelock", "fault loop",
        "conversion", "shared bit", "C-bit", "private alias", "shared alias", "memslot", "guest_memfd",
        "in-place conversion",
        "per-VM attributes", "memory fault", "hypercall", "EAGAIN", "error_offset", "content policy",
        "preserve", "zero",
        "unspecified", "backend", "adapter", "SoftKVM", "litmus test", "interleaving", "outcome",
        "witness order",
        "planted fault", "model", "bisect", "GHCB", "RMP", "secure EPT",
    ]) func commonTermsAreThere(_ word: String) { #expect(Glossary.term(word) != nil) }
}
