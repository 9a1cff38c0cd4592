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

    /// A name of a function that is also a variable or a member would bring the function into programs that do not use
    /// it, which do not compile without a warning.
    @Test func everyNameIsDefinedOnce() {
        var counts: [String: Int] = [:]
        for piece in CRuntime.embedded.pieces {
            for name in Set(piece.names) { counts[name, default: 0] += 1 }
        }
        #expect(counts.filter { $0.value > 1 }.keys.sorted() == ["schedule"])
    }

    @Test func aPieceStandsAfterThoseThatItUses() {
        let pieces = CRuntime.embedded.pieces
        var known: Set<String> = []
        var all: Set<String> = []
        for piece in pieces { all.formUnion(piece.names) }
        for piece in pieces {
            known.formUnion(piece.names)
            let later = piece.uses.intersection(all).subtracting(known)
            #expect(later.isEmpty, "\(piece.names): \(later)")
        }
    }
}
