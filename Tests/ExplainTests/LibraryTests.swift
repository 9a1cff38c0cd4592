// SPDX-License-Identifier: MIT
import Testing

@testable import Explain

struct LibraryTests {
    private func titles(_ words: String) -> [String] {
        guard case .found(let found) = Library.answer(words.split(separator: " ").map(String.init)) else {
            return []
        }
        return found.map(\.title)
    }

    @Test(arguments: [
        ("exit 39 flags=8 gpa=0x1000", "KVM_EXIT_MEMORY_FAULT (39)"),
        ("exit MEMORY_FAULT", "KVM_EXIT_MEMORY_FAULT (39)"),
        ("KVM_EXIT_MEMORY_FAULT", "KVM_EXIT_MEMORY_FAULT (39)"), ("39", "KVM_EXIT_MEMORY_FAULT (39)"),
        ("capability 252", "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES (252)"),
        ("kvm_cap_guest_memfd", "KVM_CAP_GUEST_MEMFD (234)"), ("cap 246", "capability 246"),
        ("A6", "hazard A6"), ("hazard h1", "hazard H1"),
        ("preserve", "contents preserve: the bytes are the same afterwards"), ("SIGBUS", "SIGBUS, a signal"),
        ("call guest-memfd", "guest_memfd, the file that holds guest RAM"),
        ("madv_dontneed", "madvise on the mapping of a guest_memfd"),
        ("KVM_SET_MEMORY_ATTRIBUTES2", "KVM_SET_MEMORY_ATTRIBUTES2 (0xC080AED2, on a guest_memfd)"),
        ("0xC080AED2", "KVM_SET_MEMORY_ATTRIBUTES2 (0xC080AED2, on a guest_memfd)"),
        ("status 126", "exit status 126: the guest crashed or looped"),
        ("converted", "converted, an event of the trace"),
        ("event memory_fault", "memory-fault, an event of the trace"),
        ("EAGAIN", "EAGAIN (11) from the conversion call"),
        ("errno 11", "EAGAIN (11) from the conversion call"), ("exit", "exit: " + Kind.exit.what),
    ]) func wordsAreFound(_ words: String, _ title: String) { #expect(titles(words) == [title]) }

    /// Every name in the list of topics is found, alone and after its kind.
    @Test(arguments: Kind.allCases) func everyListedNameIsFound(_ kind: Kind) {
        let names = Library.names(kind)
        #expect(!names.isEmpty && Set(names).count == names.count)
        for name in names {
            #expect(!titles("\(kind.rawValue) \(name)").isEmpty, "\(kind) \(name)")
            #expect(!titles(name).isEmpty, "\(name)")
            guard case .found(let found) = Library.answer([kind.rawValue, name]) else { continue }
            for text in found {
                #expect(text.sections.count >= 2 && text.text(.means) != nil, "\(name)")
                for section in text.sections {
                    // No path of the machine on which the library was built.
                    for place in [Sources.root.path, "/root", "/home", "/tmp", "/usr", ".build"] {
                        #expect(!section.text.contains(place), "\(name): \(section.text)")
                    }
                    #expect(!section.text.contains("  "), "\(name): \(section.text)")
                }
            }
        }
    }

    @Test func fieldsOfAMemoryFaultAreExplained() {
        func means(_ words: String) -> String {
            guard case .found(let found) = Library.answer(words.split(separator: " ").map(String.init)) else {
                return ""
            }
            return found.first?.sections.filter { $0.label == .means }.map(\.text).joined() ?? ""
        }
        #expect(means("exit 39 flags=8").contains("needed a private page"))
        #expect(means("exit 39 flags=0").contains("needed a shared page"))
        #expect(means("exit 39 flags=0x18").contains("Flag bits 0x10"))
        #expect(means("exit 39 errno=EHWPOISON").contains("has failed"))
        #expect(means("exit 39 errno=EINTR").contains("left over"))
        #expect(means("exit 39 gpa=0x1001").contains("not page aligned"))
    }

    @Test(arguments: [
        ("EGAIN", "EAGAIN"), ("memory-fualt", "memory-fault"),
        ("KVM_SET_MEMORY_ATTRIBUTE2", "KVM_SET_MEMORY_ATTRIBUTES2"),
        ("privat", "private"), ("hazard A66", "A6"), ("capabilty", "capability"),
    ]) func similarNamesAreSuggested(_ words: String, _ name: String) {
        guard case .unknown(_, let near) = Library.answer(words.split(separator: " ").map(String.init)) else {
            Issue.record("\(words)")
            return
        }
        #expect(near.contains(name), "\(near)")
    }

    /// Any input is either explained or refused.
    @Test func anyInputIsExplainedOrRefused() {
        for words in [
            ["errno", "EAGAIN", "offset=99999999999999999999"], ["errno", "EAGAIN", "size=-1"],
            ["errno", "EAGAIN", "size=16777216T"], ["errno", "EAGAIN", "="], ["errno", "EAGAIN", "x=1"],
            ["A6", "offset=1"], ["exit", "39", "flags=x"], ["offset=1"], ["errno", "offset=1"],
            ["exit", "39", "fags=1"], ["exit", "8", "gpa=1"], ["exit", "17", "data99=1"],
            ["exit", "17", "data=x"],
            ["call=KVM_RUNN", "errno", "EINVAL"], ["call=KVM_RUN", "errno=EINVAL", "slot=1"], ["call=x"],
            ["call=KVM_SET_USER_MEMORY_REGION2", "errno", "EINVAL", "slot=x"], ["call=KVM_RUN", "errno=EX"],
        ] {
            guard case .misused = Library.answer(words) else {
                Issue.record("\(words)")
                continue
            }
        }
        for word in [
            "", "-", "0x", "+1", "0x+1", "99999999999999999999", String(repeating: "x", count: 10_000), "ß",
            "\0",
        ] {
            guard case .unknown = Library.answer([word]) else {
                Issue.record("\(word)")
                continue
            }
        }
        // The limits of 64 bits.
        let ends = [
            "0", "1", "0xfff", "0x1000", "0x7fffffffffffffff", "0xfffffffffffff000", "0xffffffffffffffff",
        ]
        for errno in ["EAGAIN", "EINVAL", "ENOMEM"] {
            for offset in ends {
                for size in ends {
                    for place in ends {
                        let words = [
                            "errno", errno, "offset=\(offset)", "size=\(size)", "error_offset=\(place)",
                            "file=\(size)",
                        ]
                        for version in InterfaceVersion.allCases {
                            guard case .found = Library.answer(words, version: version) else {
                                Issue.record("\(words)")
                                continue
                            }
                        }
                    }
                }
            }
        }
    }

    /// The numbers that a guest on SNP or TDX sees lead to their meaning.
    @Test(arguments: [
        ("0x404", "#VC code 0x404"), ("0xb0a00000000", "TDX_PAGE_ALREADY_ACCEPTED"),
        ("0xC0000B0B00000001", "TDX_PAGE_SIZE_MISMATCH"), ("0xc000070400000000", "TDX_NO_VE_INFO"),
        ("0x8000000000000000", "MapGPA refused"), ("TDVMCALL_STATUS_RETRY", "MapGPA RETRY"),
        ("psc error", "page state change refused"),
    ]) func statusesOfVendors(word: String, name: String) {
        guard case .found(let topics) = Library.answer([word]) else {
            Issue.record("\(word)")
            return
        }
        #expect(topics.map(\.name) == [name])
    }
}
