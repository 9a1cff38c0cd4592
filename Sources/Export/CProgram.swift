// SPDX-License-Identifier: MIT
public import Litmus
import MiniVMM

/// A test as a C program of one file.
///
/// It contains the parts of its runtime (Sources/CReproducer/runtime) that the test needs. Its verdict is that of
/// `minivmm litmus --backend linux`.
public struct CProgram: Sendable {
    /// For whom the program is. The raw value is that of `--as`.
    public enum Form: String, Sendable, CaseIterable {
        /// A program for the C library and POSIX threads alone. It prints KTAP and exits with 0 (passed), 1 (failed) or 4
        /// (skipped).
        case c
        /// A test of the kernel's tools/testing/selftests/kvm, with the helpers and the exit statuses of that directory.
        case selftest
    }

    /// The C text.
    public let text: String

    /// The number of runs at random times, and of places for each pair of victim and intruder.
    static let (runs, places) = (200, 60)

    /// Writes the program.
    ///
    /// - Parameters:
    ///   - file: the name of the test's file, for the comment at the top; nil if it has none.
    ///   - name: the name of the program, without a suffix.
    ///   - form: for whom the program is.
    /// - Throws: ``ExportProblem`` if the test is about the software kernel, or needs a part of the monitor that a program
    ///   does not have.
    public init(
        _ source: Source, file: String? = nil, name: String, form: Form = .c
    ) throws(ExportProblem) {
        try Self.checkSettings(source.test)
        let hasAliases = source.test.hasTwoAliases
        let runtime: CRuntime =
            switch form {
            case .c: hasAliases ? .aliases : .program
            case .selftest: hasAliases ? .selftestWithAliases : .selftest
            }
        var writer = ProgramBody(source, runtime, form)
        let body = try writer.text()
        var text = Self.head(source.test, file, name, form)
        if form == .c {
            // # begins a directive in KTAP.
            let name = CText.string(source.test.name.replacing("#", with: "_"))
            text += "\n\n#define _GNU_SOURCE\n#define TEST_NAME \(name)"
        }
        var last: CRuntime.Piece?
        for piece in runtime.pieces(for: body) {
            // Includes stand together, and so do constants, and what headers may lack.
            let isJoined =
                piece.isInclude && last != nil || form == .c && piece.isInclude
                || piece.isConstant && last?.isConstant == true || piece.isGuarded && last?.isGuarded == true
            text += (isJoined ? "\n" : "\n\n") + piece.text
            last = piece
        }
        text += "\n\n" + body
        self.text =
            form == .c ? text : CText.inKernelStyle(text.replacing("ioctl(vm,", with: "ioctl(vm->fd,"))
    }

    private static func checkSettings(_ test: LitmusTest) throws(ExportProblem) {
        if test.vm.isConfidential { throw .modelOnly(test.vm) }
        var settings = test.settings
        settings.isInPlaceOff = false
        if let setting = settings.lines.first { throw .softwareKernelOnly(setting: setting) }
    }

    private static func head(
        _ test: LitmusTest, _ file: String?, _ program: String, _ form: Form
    ) -> String {
        let name = CText.inComment(program)
        var lines = ["// SPDX-License-Identifier: MIT"]
        lines += CText.openComment(test.name + ".")
        lines.append(" *")
        let origin = file.map { " from \(CText.inComment($0))" } ?? ""
        lines.append(" * Written by minivmm export\(origin). Rows and sections are those of its docs/ABI.md.")
        switch form {
        case .c:
            lines.append(" *     gcc -O1 -Wall -Wextra -pthread -o \(name) \(name).c && sudo ./\(name)")
            lines.append(" * Exit status: 0 passed, 1 failed, 4 skipped, because this kernel cannot do it.")
        case .selftest:
            lines.append(
                " * For tools/testing/selftests/kvm/x86. Add x86/\(name) to TEST_GEN_PROGS_x86 in Makefile.kvm."
            )
        }
        lines.append(" */")
        return lines.joined(separator: "\n")
    }
}
