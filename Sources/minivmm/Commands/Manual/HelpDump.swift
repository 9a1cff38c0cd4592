// SPDX-License-Identifier: MIT
import ArgumentParser
import FoundationEssentials

/// The argument parser's description of the commands, as `minivmm --experimental-dump-help` prints it.
struct HelpDump: Decodable {
    struct Command: Decodable {
        let commandName: String
        let shouldDisplay: Bool
        let abstract: String?
        let discussion: String?
        let subcommands: [Command]?
        let arguments: [Argument]?

        /// The subcommands that have a page; `help` belongs to the argument parser.
        var documented: [Command] {
            (subcommands ?? []).filter { $0.shouldDisplay && $0.commandName != "help" }
        }
    }

    struct Argument: Decodable {
        struct Name: Decodable {
            let kind: String
            let name: String

            var text: String { (kind == "long" ? "--" : "-") + name }
        }

        let kind: String
        let shouldDisplay: Bool
        let isOptional: Bool
        let isRepeating: Bool
        let names: [Name]?
        let valueName: String?
        let defaultValue: String?
        let allValues: [String]?
        let abstract: String?

        var isPositional: Bool { kind == "positional" }
        var takesValue: Bool { kind != "flag" }
    }

    let command: Command

    static func current() throws -> HelpDump {
        try JSONDecoder().decode(HelpDump.self, from: Data(Minivmm._dumpHelp().utf8))
    }
}
