// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// The session of docs/debugging.md, typed into GDB.
struct DebuggingTests {
    private static let hasGDB = (try? Tool.run("/bin/bash", ["-c", "command -v gdb"]).status) == 0

    /// Each command of a session, with the lines shown for it.
    private func session(_ example: Document.Example) -> [Typed] {
        var typed: [Typed] = []
        for (index, line) in example.lines.enumerated() {
            if line.hasPrefix("(gdb) ") || line.hasPrefix("$ ") {
                let command = line.drop { $0 != " " }.dropFirst()
                typed.append(Typed(command: String(command), line: example.line + index))
            } else if !line.isEmpty, let last = typed.indices.last {
                typed[last].shown.append(line)
            }
        }
        return typed
    }

    @Test(
        .enabled(if: Tool.runsGuests, "needs a backend on which guests run"),
        .enabled(if: hasGDB, "needs gdb"))
    func sessionIsWhatGDBPrints() throws {
        let example = try #require(Document.examples("docs/debugging.md", "gdb").first)
        let typed = session(example)
        #expect(typed.count > 15 && typed.first?.command == "gdb -ex 'target remote gdb.sock'")
        let directory = try Tool.Directory()
        // The server ends with the guest. A mark before each command tells whose lines follow.
        let words = ["-nx", "-batch", "-ex", "target remote gdb.sock"]
        let commands = typed.dropFirst().flatMap { ["-ex", "echo \\n@\\n", "-ex", $0.command] }
        let line =
            "'\(try #require(Tool.executable).path)' run implicit --backend soft --gdb gdb.sock > out 2> err & "
            + "for i in $(seq 3000); do test -S gdb.sock && break; sleep 0.1; done; exec gdb \"$@\""
        let result = try Tool.run(
            "/bin/bash", ["-c", line, "bash"] + words + commands, in: directory.url)
        let parts = result.output.components(separatedBy: "\n@\n")
        #expect(parts.count == typed.count, "\(result.output)")
        for (part, command) in zip(parts, typed) {
            let missing = command.missing(in: part)
            #expect(missing == nil, "docs/debugging.md:\(command.line): no line \(missing ?? "")\n\(part)")
        }
    }
}
