import Foundation
import Testing

@Suite("Shell completions", .enabled(if: Command.isBuilt, Command.missing))
struct CompletionTests {
    @Test(arguments: ["bash", "zsh", "fish"]) func aScriptIsThereForEachShell(_ shell: String) throws {
        let result = try Command.run(["--generate-completion-script", shell])
        #expect(result.status == 0)
        for word in ["probe", "litmus", "explain", "report", "bench"] {
            #expect(result.output.contains(word), "\(word)")
        }
    }

    /// As a person presses Tab.
    @Test func bashCompletesSubcommandsAndValues() throws {
        let script = try Command.run(["--generate-completion-script", "bash"]).output
        let directory = try Scratch()
        let completion = try directory.file("minivmm.bash", Array(script.utf8))
        func complete(_ words: [String]) throws -> String {
            let program = """
                source '\(completion)'
                COMP_WORDS=(\(words.map { "'\($0)'" }.joined(separator: " ")))
                COMP_CWORD=\(words.count - 1)
                COMP_LINE='\(words.joined(separator: " "))'
                COMP_POINT=${#COMP_LINE}
                _minivmm minivmm '\(words.last ?? "")' '\(words.dropLast().last ?? "")' 2>/dev/null
                printf '%s ' "${COMPREPLY[@]}"
                """
            return try Command.run(["-c", program], tool: URL(fileURLWithPath: "/bin/bash")).output
        }
        let subcommands = try complete(["minivmm", ""])
        for word in ["run", "tour", "litmus"] { #expect(subcommands.contains(word), "\(subcommands)") }
        #expect(try complete(["minivmm", "run", "hello", "--kernel", "mem"]).contains("memslot-trap"))
        let faults = try complete(["minivmm", "run", "hello", "--plant", "busy-names"])
        #expect(faults.contains("busy-names-highest"))
        #expect(try complete(["minivmm", "explain", "MEMORY_F"]).contains("MEMORY_FAULT"))
    }
}
