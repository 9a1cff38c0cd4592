// SPDX-License-Identifier: MIT
public import Litmus
import MiniVMM

/// A test as a C program of one file, for the C library and POSIX threads alone.
///
/// The program prints KTAP and exits with 0 (passed), 1 (failed) or 4 (skipped). It contains the parts of its runtime
/// (Sources/CReproducer/runtime) that the test needs. Its verdict is that of `minivmm litmus --backend linux`.
public struct CProgram: Sendable {
    /// The C text.
    public let text: String

    /// The number of runs at random times, and of places for each pair of victim and intruder.
    static let (runs, places) = (200, 60)

    /// Writes the program.
    ///
    /// - Parameters:
    ///   - file: the name of the test's file, for the comment at the top; nil if it has none.
    ///   - name: the name of the program, without a suffix.
    /// - Throws: ``ExportProblem`` if the test is about the software kernel, or needs a part of the monitor that a program
    ///   does not have.
    public init(_ source: Source, file: String? = nil, name: String) throws(ExportProblem) {
        try Self.checkSettings(source.test)
        let runtime = CRuntime.embedded
        var writer = ProgramBody(source, runtime)
        let body = try writer.text()
        let head = Self.head(source.test, file, name)
        let pieces = runtime.pieces(for: body)
        var text =
            head
            + "\n\n#define _GNU_SOURCE\n#define TEST_NAME \(CText.string(source.test.name.replacing("#", with: "_")))"
        var last: CRuntime.Piece?
        for piece in pieces {
            // Includes stand together, and so do constants.
            let isJoined = piece.isInclude || piece.isConstant && last?.isConstant == true
            text += (isJoined ? "\n" : "\n\n") + piece.text
            last = piece
        }
        self.text = text + "\n\n" + body
    }

    private static func checkSettings(_ test: LitmusTest) throws(ExportProblem) {
        var settings = test.settings
        settings.isInPlaceOff = false
        guard settings.isEmpty else {
            let words = settings.lines
            throw .softwareKernelOnly(setting: words.first ?? "")
        }
        if test.hasTwoAliases {
            throw .monitor(
                "`aliases two`: the monitor makes the two aliases from memslots, which a program does not")
        }
    }

    private static func head(_ test: LitmusTest, _ file: String?, _ program: String) -> String {
        let name = CText.inComment(program)
        var lines = ["// SPDX-License-Identifier: MIT"]
        lines += CText.openComment(test.name + ".")
        lines.append(" *")
        lines.append(
            " * Written by minivmm export" + (file.map { " from \(CText.inComment($0))" } ?? "")
                + ". Rows and sections are those of its docs/ABI.md.")
        lines.append(" *     gcc -O1 -Wall -Wextra -pthread -o \(name) \(name).c && sudo ./\(name)")
        lines.append(" * Exit status: 0 passed, 1 failed, 4 skipped, because this kernel cannot do it.")
        lines.append(" */")
        return lines.joined(separator: "\n")
    }
}
