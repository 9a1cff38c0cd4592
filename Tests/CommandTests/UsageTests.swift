// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import Testing

@Suite("The command: what it refuses", .enabled(if: Command.isBuilt, Command.missing))
struct UsageTests {
    /// Wrong options are 64, and the message repeats what was wrong.
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

    @Test func aKernelThatIsNotTheUsualOneSaysSo() throws {
        let probe = try Command.run([
            "probe", "--backend", "soft", "--abi", "rfc-v2", "--plant", "busy-names-start", "--json",
        ])
        let backends = probe.json?["kernels"] as? [[String: Any]]
        #expect(backends?.count == 1)
        let host = backends?.first?["host"] as? String ?? ""
        #expect(host.contains("ABI RFC v2") && host.contains("FAULTS PLANTED: busy-names-start"))
    }

    @Test func helpAndVersionAreNoErrors() throws {
        let help = try Command.run(["--help"])
        #expect(help.status == 0)
        for word in ["probe", "list", "run", "demo", "bench", "Exit status"] {
            #expect(help.output.contains(word))
        }
        let version = try Command.run(["--version"])
        #expect(version.status == 0 && version.output.contains("."))
    }

    // MARK: images

    private func refuses(_ arguments: [String], _ words: [String]) throws {
        let result = try Command.run(["run"] + arguments)
        #expect(result.status == 125, "\(result)")
        #expect(result.output == "")
        for word in words { #expect(result.diagnostics.contains(word), "\(result.diagnostics)") }
    }

    @Test func anUnknownPayloadIsGuessedAt() throws {
        try refuses(["helo"], ["helo", "did you mean hello?", "minivmm list"])
        try refuses(["pingpong"], ["did you mean ping-pong"])
        try refuses(["something-else-entirely"], ["neither a payload of the catalogue nor a file"])
    }

    @Test func filesThatAreNoImages() throws {
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
            ["32-bit", "the guest runs in 64-bit mode"])
        // Endless, and larger than RAM.
        try refuses(["/dev/zero", "--ram", "1M"], ["more than four times the guest's RAM"])
        try refuses(
            [try scratch.file("big", [UInt8](repeating: 0x90, count: 2 << 20)), "--ram", "2M"],
            ["does not fit into RAM"])
    }

    @Test func aTraceThatCannotBeWritten() throws {
        let scratch = try Scratch()
        try refuses(
            ["hello", "--trace", scratch.path("no/such/place.json")], ["the trace cannot be written"])
        try refuses(["hello", "--trace", scratch.url.path], ["the trace cannot be written"])
    }

    // MARK: list

    @Test func listNamesEveryPayload() throws {
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
