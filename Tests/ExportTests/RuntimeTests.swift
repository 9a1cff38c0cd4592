// SPDX-License-Identifier: MIT
import Testing

@testable import Export

@Suite("The runtime of programs")
struct RuntimeTests {
    private let small = CRuntime(
        """
        /* SPDX-License-Identifier: MIT */
        #include <stdio.h> /* printf, puts */
        #include <string.h> /* strlen */

        #ifndef LIMIT
        #define LIMIT 4
        #endif

        struct box {
        	enum { EMPTY, FULL } state;

        	int size;
        };

        static int total;

        /* strlen is only a word here: "LIMIT". */
        static void first(struct box *box)
        {
        	total += box->size;

        	puts("strlen");
        }

        static int second(void)
        {
        	return LIMIT;
        }
        """)

    private func texts(_ use: String) -> [String] {
        small.pieces(for: use).map { String($0.text.prefix { $0 != "\n" }) }
    }

    @Test func aProgramGetsWhatItUses() {
        #expect(texts("second();") == ["#ifndef LIMIT", "static int second(void)"])
        #expect(
            texts("first(0);") == [
                "#include <stdio.h>", "struct box {", "static int total;",
                "/* strlen is only a word here: \"LIMIT\". */",
            ])
        #expect(texts("x = FULL;") == ["struct box {"])
        #expect(texts("/* second */ \"first\"") == [])
    }

    @Test func aBlankLineInsideAFunctionDoesNotEndIt() {
        #expect(small.pieces(for: "first").contains { $0.text.hasSuffix("puts(\"strlen\");\n}") })
    }

    static let runtimes = [CRuntime.program, .aliases, .selftest, .selftestWithAliases]

    /// A name of a function that is also a variable or a member would bring the function into programs that do not use
    /// it, which do not compile without a warning.
    @Test(arguments: runtimes) func everyNameIsDefinedOnce(_ runtime: CRuntime) {
        var counts: [String: Int] = [:]
        for piece in runtime.pieces {
            for name in Set(piece.names) { counts[name, default: 0] += 1 }
        }
        #expect(counts.filter { $0.value > 1 }.keys.sorted() == ["schedule"])
    }

    @Test(arguments: runtimes) func aPieceStandsAfterThoseThatItUses(_ runtime: CRuntime) {
        var known: Set<String> = []
        for piece in runtime.pieces {
            known.formUnion(piece.names)
            let later = piece.uses.intersection(runtime.names).subtracting(known)
            #expect(later.isEmpty, "\(piece.text)")
        }
    }

    /// In the kernel's tree a VM is a `struct kvm_vm`, and the kernel's headers define the interface.
    @Test func aSelftestHasTheHelpersOfTheTree() {
        let pieces = CRuntime.selftest.pieces
        let text = pieces.map(\.text).joined(separator: "\n")
        #expect(!text.contains("int vm") && !text.contains("ioctl(vm,"))
        #expect(!text.contains("#ifndef KVM") && text.contains("#include \"kvm_util.h\""))
        #expect(text.contains("__vm_create_guest_memfd(vm, size, flags)"))
    }
}
