// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite("The command: usage", .enabled(if: Command.isBuilt, Command.missing))
struct UsageTests {
    /// A wrong option has status 64 and a message that repeats it.
    @Test(arguments: [
        (["--nonsense"], "nonsense"), (["--ram", "0"], "--ram 0"), (["--ram", "1"], "--ram 1"),
        (["--ram", "17"], "--ram 17"), (["--ram", "3T"], "--ram 3298534883328"), (["--ram", "1M1"], "1M1"),
        (["--ram", "16777216T"], "16777216T"), (["--ram=-1"], "-1"), (["--ram", "İ"], "İ"),
        (["--ram", ""], "ram"),
        (["--vcpus", "0"], "--vcpus 0"), (["--vcpus", "17"], "--vcpus 17"), (["--vcpus", "two"], "two"),
        (["--chunk", "1"], "--chunk 1"), (["--chunk", "0"], "--chunk 0"),
        (["--chunk", "5000"], "--chunk 5000"),
        (["--regions", "0"], "--regions 0"), (["--regions", "65"], "--regions 65"),
        (["--attempts", "0"], "--attempts 0"), (["--doors", "three"], "three"),
        (["--aliases", "three"], "three"),
        (["--backend", "nonsense"], "nonsense"), (["--contents", "some"], "some"), (["--in-use", "x"], "x"),
        (["--on-fault", "x"], "x"), (["--timeout", "nan"], "nan"), (["--timeout=-1"], "-1"),
        (["--timeout", "1e300"], "1e300"), (["--deadline", "soon"], "soon"), (["--seed=-1"], "-1"),
        (["--trace-format", "xml"], "xml"), (["--abi", "rfc-v2"], "--backend soft"),
        (["--backend", "soft", "--abi", "rfc-v3"], "rfc-v3"),
        (["--plant", "flags-ignored"], "--backend soft"),
        (["--backend", "soft", "--plant", "nonsense"], "minivmm list faults"),
    ]) func wrongOptionsAreUsageErrors(_ options: [String], _ words: String) throws {
        let result = try Command.run(["run", "hello"] + options)
        #expect(result.status == 64, "\(result.diagnostics)")
        #expect(result.diagnostics.contains(words), "\(result.diagnostics)")
        #expect(result.output == "")
    }

    @Test func wrongCommandsAreUsageErrors() throws {
        for arguments in [["jump"], ["run"], ["run", "hello", "crash"], ["demo", "--act", "7"]] {
            #expect(try Command.run(arguments).status == 64, "\(arguments)")
        }
    }

    @Test func plantedFaultsAreListed() throws {
        let list = try Command.run(["list", "--planted"])
        #expect(list.status == 0 && list.output.contains("busy-names-highest"))
        let faults = try Command.run(["list", "--planted", "--json"]).json?["faults"] as? [[String: String]]
        #expect((faults?.count ?? 0) >= 30)
        #expect(faults?.allSatisfy { $0.keys.sorted() == ["does", "name", "rule"] } == true)
    }

    @Test func probeNamesVersionAndPlantedFaults() throws {
        let probe = try Command.run([
            "probe", "--backend", "soft", "--abi", "rfc-v2", "--plant", "busy-names-start", "--json",
        ])
        let backends = probe.json?["backends"] as? [[String: Any]]
        #expect(backends?.count == 1)
        let host = backends?.first?["host"] as? String ?? ""
        #expect(host.contains("ABI RFC v2") && host.contains("FAULTS PLANTED: busy-names-start"))
    }

    @Test func helpAndVersionSucceed() throws {
        let help = try Command.run(["--help"])
        #expect(help.status == 0)
        for word in ["probe", "list", "run", "demo", "bench", "Exit status"] {
            #expect(help.output.contains(word))
        }
        let version = try Command.run(["--version"])
        #expect(version.status == 0 && version.output.contains("."))
    }

    /// The first words that a newcomer types: nothing, a misspelt command, a guest or a file in place of a command.
    @Test func firstWordGetsASuggestion() throws {
        let bare = try Command.run([])
        #expect(bare.status == 0)
        for words in ["minivmm demo", "minivmm run hello", "minivmm tour"] {
            #expect(bare.output.contains(words), "\(bare.output)")
        }
        #expect(!bare.output.contains("Exit status"))
        let scratch = try Scratch()
        let litmus = try scratch.file("mine.txt", Array("test \"mine\"\nmemory 1 pages shared\n".utf8))
        let trace = try scratch.file("t.jsonl", Array("{\"schema\":\"minivmm.trace/1\"}\n".utf8))
        let elf = try scratch.file("my.elf", [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0])
        for (word, answer) in [
            ("rn", "did you mean run?"), ("litmsu", "did you mean litmus?"), ("hello", "run hello"),
            ("qqqq", "--help lists them"), (litmus, "litmus \(litmus)"), (trace, "report \(trace)"),
            (elf, "run \(elf)"),
        ] {
            let result = try Command.run([word])
            #expect(result.status == 64 && result.output == "")
            #expect(result.diagnostics.contains(answer), "\(result.diagnostics)")
        }
    }

    @Test func filesThatAreNotGuestsAreNamed() throws {
        let scratch = try Scratch()
        for (name, text, answer) in [
            ("notes.txt", "remember the milk\n", "a text file, not a guest"),
            ("my.S", "        .globl _start\n_start: hlt\n", "assembly source, not a guest"),
            ("source", "# made by hand\n.text\n", "assembly source, not a guest"),
            ("t.jsonl", "{\"schema\":\"minivmm.trace/1\"}\n", "a trace, not a guest"),
            ("my.litmus", "# a comment\n", "a litmus test, not a guest"),
            ("umlaut.md", "gr\u{fc}n\n", "a text file, not a guest"),
        ] {
            try refuses([try scratch.file(name, Array(text.utf8))], [name, answer])
        }
        // Seven printable bytes without a line feed may be code, so they are a flat image.
        let code = try scratch.file("code", Array("PPPPPPP".utf8))
        #expect(try Command.run(["run", code, "--backend", "soft", "--timeout", "1"]).status != 125)
    }

    @Test func positionalArgumentsAreAccepted() throws {
        #expect(try Command.run(["list", "faults"]).output == Command.run(["list", "--planted"]).output)
        #expect(try Command.run(["list", "guests"]).output == Command.run(["list"]).output)
        let demo = try Command.run(["demo", "2", "--backend", "soft"])
        #expect(demo.status == 0 && demo.output.contains("2  Explicit") && !demo.output.contains("3  "))
        let tour = try Command.run(["tour", "2", "--backend", "soft"])
        #expect(tour.status == 0 && tour.output.contains("2  Two aliases") && !tour.output.contains("\n3  "))
        #expect(
            try Command.run(["probe", "soft", "--json"]).output
                == Command.run(["probe", "--backend", "soft", "--json"]).output)
        for words in [
            ["demo", "7"], ["tour", "0"], ["demo", "2", "--act", "2"], ["probe", "sft"], ["list", "x"],
        ] {
            #expect(try Command.run(words).status == 64, "\(words)")
        }
    }

    /// Former names of options are still accepted; both names at once are an error.
    @Test func formerOptionNamesAreAccepted() throws {
        let former = try Command.run(["run", "hello", "--kernel", "soft", "--doors", "two", "--json"])
        #expect(former.status == 0 && former.json?["backend"] as? String == "SoftKVM")
        let both = try Command.run(["run", "hello", "--kernel", "soft", "--backend", "linux"])
        #expect(both.status == 64 && both.diagnostics.contains("--kernel is the former name of --backend"))
        #expect(try !Command.run(["run", "--help"]).output.contains("--kernel"))
        let fault = try Command.run(["run", "hello", "--backend", "soft", "--plant", "bsy-names-higest"])
        #expect(fault.status == 64 && fault.diagnostics.contains("did you mean busy-names-highest"))
        #expect(
            try Command.run(["run", "hello", "--backend", "soft", "--plant", "bsy"]).diagnostics.contains(
                "did you mean busy-"))
    }

    @Test func missingFilesGetASuggestion() throws {
        let scratch = try Scratch()
        for (name, command) in [("first.litmus", "litmus"), ("trace.jsonl", "report"), ("guest.elf", "run")] {
            _ = try scratch.file(name, [0x0a])
            let result = try Command.run([command, scratch.path("x" + name)])
            #expect(
                result.status != 0 && result.diagnostics.contains("did you mean \(scratch.path(name))?"),
                "\(result)")
        }
    }

    /// An output that cannot be written is reported before the guest runs.
    @Test func outputsAreCheckedFirst() throws {
        let scratch = try Scratch()
        for option in ["--report", "--svg", "--chrome"] {
            for place in [scratch.path("no/such/out"), scratch.url.path] {
                let run = try Command.run(["run", "hello", "--backend", "soft", option, place])
                #expect(run.status == 125 && run.output == "", "\(run)")
                #expect(run.diagnostics.contains("the picture cannot be written"))
                let demo = try Command.run(["demo", "--backend", "soft", option, place])
                #expect(demo.status == 125 && demo.output == "", "\(demo)")
            }
        }
    }

    // MARK: images

    private func refuses(_ arguments: [String], _ words: [String]) throws {
        let result = try Command.run(["run"] + arguments)
        #expect(result.status == 125, "\(result)")
        #expect(result.output == "")
        for word in words { #expect(result.diagnostics.contains(word), "\(result.diagnostics)") }
    }

    @Test func unknownGuestGetsASuggestion() throws {
        try refuses(["helo"], ["helo", "did you mean hello?", "minivmm list"])
        try refuses(["pingpong"], ["did you mean ping-pong"])
        try refuses(["something-else-entirely"], ["neither a built-in guest nor a file"])
    }

    @Test func invalidImagesAreRefused() throws {
        let scratch = try Scratch()
        try refuses([scratch.path("missing.elf")], ["missing.elf", "No such file"])
        try refuses([try scratch.file("empty", [])], ["the image is empty"])
        try refuses([scratch.url.path], ["directory"])
        try refuses([try scratch.file("magic", [0x7f, 0x45])], ["inside the ELF magic"])
        try refuses(
            [
                try scratch.file(
                    "elf32", [0x7f, 0x45, 0x4c, 0x46, 1, 1, 1] + [UInt8](repeating: 0, count: 57))
            ],
            ["ELF machine 0: this is not an x86 file (3)"])
        // An endless file, and one that is larger than RAM.
        try refuses(["/dev/zero", "--ram", "1M"], ["larger than four times the guest's RAM"])
        try refuses(
            [try scratch.file("big", [UInt8](repeating: 0x90, count: 2 << 20)), "--ram", "2M"],
            ["does not fit into RAM"])
    }

    @Test func unwritableTraceIsRefused() throws {
        let scratch = try Scratch()
        try refuses(
            ["hello", "--trace", scratch.path("no/such/place.json")], ["the trace cannot be written"])
        try refuses(["hello", "--trace", scratch.url.path], ["the trace cannot be written"])
    }

    // MARK: list

    @Test func listNamesEveryGuest() throws {
        let text = try Command.run(["list"])
        #expect(text.status == 0)
        for payload in Catalogue.all {
            #expect(text.output.contains(payload.name) && text.output.contains(payload.shows))
        }
        #expect(try Command.run(["list", "--verbose"]).output.count > text.output.count)

        let json = try Command.run(["list", "--json"])
        #expect(json.json?["schema"] as? String == "minivmm.list/1")
        let payloads = try #require(json.json?["payloads"] as? [[String: Any]])
        #expect(payloads.compactMap { $0["name"] as? String } == Catalogue.all.map(\.name))
        for payload in payloads {
            #expect(payload["ram_bytes"] as? Int == 16 << 20 && (payload["image_bytes"] as? Int ?? 0) > 0)
            #expect(["one", "two"].contains(payload["aliases"] as? String ?? ""))
            let name = payload["name"] as? String ?? ""
            let known = Catalogue.named(name)
            #expect(payload["needs_preservation"] as? Bool == known?.needsPreservation, "\(name)")
            #expect(payload["contents"] as? String == known?.contents.rawValue, "\(name)")
        }
    }
}
