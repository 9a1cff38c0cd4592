// SPDX-License-Identifier: MIT
import ArgumentParser
import GuestPayloads
import MiniVMM
import SoftKVM

struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Lists the built-in guests, or the faults that `--plant` accepts.")

    enum Subject: String, ExpressibleByArgument, CaseIterable { case guests, faults }

    @Argument(help: "What to list: guests or faults.")
    var subject = Subject.guests
    @Flag(name: .shortAndLong, help: "Describe each guest in a paragraph.")
    var verbose = false
    @Flag(help: "The same as `list faults`.")
    var planted = false
    @Flag(help: "Print one JSON object.")
    var json = false

    func run() {
        if planted || subject == .faults { listFaults() } else { listPayloads() }
    }

    private func listFaults() {
        let terminal = Terminal.output
        let faults = PlantedFault.allCases
        if json {
            let list = faults.map { fault in
                JSON.object([
                    ("name", .string(fault.name)), ("rule", .string(fault.rule)),
                    ("does", .string(fault.description)),
                ])
            }
            terminal.print(
                JSON.object([("schema", .string("minivmm.planted/1")), ("faults", .array(list))]).text)
            return
        }
        let width = faults.map(\.name.count).max() ?? 0
        for fault in faults {
            let name = fault.name + String(repeating: " ", count: width - fault.name.count)
            terminal.hanging(
                terminal.styled(name, .bold) + "  ",
                fault.description + terminal.styled(" (\(fault.rule))", .dim), indent: width + 2)
        }
    }

    private func listPayloads() {
        let terminal = Terminal.output
        if json {
            terminal.print(
                JSON.object([
                    ("schema", .string("minivmm.list/1")), ("payloads", .array(Catalogue.all.map(\.json))),
                ]).text)
            return
        }
        let width = Catalogue.all.map(\.name.count).max() ?? 0
        for payload in Catalogue.all {
            let name = payload.name + String(repeating: " ", count: width - payload.name.count)
            terminal.print(terminal.styled(name, .bold) + "  " + payload.shows)
            guard verbose else { continue }
            terminal.paragraph(payload.detail, indent: width + 2)
            terminal.paragraph(
                "\(payload.aliases == .one ? "one alias" : "two aliases"), \(payload.vcpus) vCPU, "
                    + "\(ByteCount.text(payload.ramSize)) of RAM, \(payload.image.count) bytes; "
                    + (payload.needsPreservation ? "needs a backend that preserves contents; " : "")
                    + (payload.contents == .preserve ? "" : "contents \(payload.contents.rawValue); ")
                    + "ends with \(payload.ending.text)", indent: width + 2)
            terminal.print()
        }
    }
}

extension Payload.Ending {
    /// How the guest ends, as a phrase.
    var text: String {
        switch self {
        case .exit(let status): "status \(status)"
        case .crash: "a crash (status 126)"
        case .faultLoop: "a fault loop (status 126)"
        case .timeLimit: "the time limit (status 124)"
        }
    }
}

extension Payload {
    fileprivate var json: JSON {
        .object([
            ("name", .string(name)), ("shows", .string(shows)), ("detail", .string(detail)),
            ("aliases", .string(aliases.rawValue)), ("vcpus", .number(UInt64(vcpus))),
            ("ram_bytes", .number(ramSize)), ("contents", .string(contents.rawValue)),
            ("needs_preservation", .bool(needsPreservation)),
            ("image_bytes", .number(UInt64(image.count))), ("must_end_with", .string(ending.text)),
        ])
    }
}
