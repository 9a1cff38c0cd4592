// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import MiniVMM

/// `EventSchema` is the schema: the code's output and docs/trace.md are compared with it.
@Suite("The trace's schema")
struct SchemaTests {
    @Test func everyNameHasARow() throws {
        #expect(EventSchema.all.map(\.name) == EventName.allCases)
        for name in EventName.allCases {
            #expect(EventSchema.of(name).name == name && EventName(name.spelling.description) == name)
        }
        for key in EventKey.allCases { #expect(EventKey(key.spelling.description) == key) }
        #expect(EventName("quantum-leap") == nil && EventKey("depth") == nil)
        // The list has each case, and each row except those of readers belongs to a case.
        let written = try Set(EveryEvent.list().map(EveryEvent.name))
        #expect(written == Set(EventSchema.all.filter { $0.section != .readers }.map(\.name)))
    }

    @Test func everyEventMatchesItsRow() throws {
        var seen: [EventName: Set<EventKey>] = [:]
        for event in try EveryEvent.list() {
            let written = EveryEvent.Written(event)
            let name = try #require(written.name)
            #expect(name == EveryEvent.name(event))
            let row = EventSchema.of(name)
            let keys = written.fields.map(\.key)
            // In the row's order, and including everything that is not optional.
            #expect(row.fields.map(\.key).filter(keys.contains) == keys, "\(name)")
            for field in row.fields where !field.isOptional {
                #expect(keys.contains(field.key), "\(name) has no \(field.key)")
            }
            for (key, method) in written.fields {
                let expected: EveryEvent.Written.Method =
                    switch key.type {
                    case .address, .number: .number
                    case .signed: .signed
                    case .flag: .flag
                    case .text: .text
                    }
                #expect(method == expected, "\(name): \(key)")
            }
            seen[name, default: []].formUnion(keys)
        }
        for row in EventSchema.all where row.section != .readers {
            #expect(seen[row.name] == Set(row.fields.map(\.key)), "\(row.name)")
        }
        for key in EventKey.allCases {
            #expect(
                EventSchema.all.contains { $0.fields.contains { $0.key == key } },
                "\(key) is not used by any event")
        }
    }

    @Test func everyRowHasTexts() {
        for row in EventSchema.all {
            #expect(row.means.hasSuffix(".") && !row.means.contains("`"), "\(row.name)")
            #expect(!row.sentence.isEmpty && !row.sentence.hasSuffix("."), "\(row.name)")
            for field in row.fields {
                #expect(!field.means.isEmpty && !field.means.hasSuffix("."), "\(row.name): \(field.key)")
                #expect(field.isOptional == field.means.contains("absent"), "\(row.name): \(field.key)")
            }
        }
    }

    /// A placeholder of a sentence: its subject, its condition, and the conditional text.
    @Test func everySentenceIsWellFormed() throws {
        for row in EventSchema.all {
            let keys = row.fields.map(\.key.spelling.description) + ["pages", "page"]
            var open: [Substring] = []
            var rest = row.sentence[...]
            while let brace = rest.firstIndex(where: { $0 == "{" || $0 == "}" }) {
                if rest[brace] == "}" {
                    #expect(open.popLast() != nil, "\(row.name): unmatched closing brace")
                } else {
                    let hole = rest[rest.index(after: brace)...]
                    let match = try #require(
                        hole.prefixMatch(of: /([a-z0-9_]+)((=[a-z0-9]+|&[0-9]+)?[?!]|\+|(?=\}))/),
                        "\(row.name): {\(hole)")
                    #expect(keys.contains(String(match.1)), "\(row.name): \(match.1) is not one of its keys")
                    open.append(match.0)
                }
                rest = rest[rest.index(after: brace)...]
            }
            #expect(open.isEmpty, "\(row.name): unmatched opening brace")
        }
    }

    // MARK: the document

    private static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("docs/trace.md")

    private static func table(_ section: EventSchema.Section) -> [String] {
        func line(_ name: EventName, _ key: String, _ type: String, _ unit: String, _ means: String) -> String
        {
            "|"
                + [name.spelling.description, key, type, unit, means].map { $0.isEmpty ? " " : " \($0) " }
                .joined(separator: "|") + "|"
        }
        var lines = ["| event | key | type | unit | is |", "|---|---|---|---|---|"]
        for row in EventSchema.all where row.section == section {
            lines.append(line(row.name, "", "", "", row.means))
            for field in row.fields {
                lines.append(
                    line(
                        row.name, field.key.spelling.description, field.key.type.rawValue,
                        field.key.unit?.rawValue ?? "", field.means))
            }
        }
        return lines
    }

    /// The lines of the document by heading, in order.
    private static func sections() throws -> [(title: String, lines: [String])] {
        var sections: [(title: String, lines: [String])] = [("", [])]
        let text = try String(contentsOf: path, encoding: .utf8)
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            if line.hasPrefix("## ") { sections.append((String(line.dropFirst(3)), [])) }
            sections[sections.count - 1].lines.append(line)
        }
        return sections
    }

    @Test func theDocumentHasTheSameTables() throws {
        var sections = try Self.sections()
        for section in EventSchema.Section.allCases {
            let index = try #require(sections.firstIndex { $0.title == section.rawValue }, "\(section)")
            let table = Self.table(section)
            if ProcessInfo.processInfo.environment["MINIVMM_WRITE_SCHEMA"] != nil {
                let start = sections[index].lines.firstIndex { $0.hasPrefix("|") }
                sections[index].lines.removeAll { $0.hasPrefix("|") }
                sections[index].lines.insert(contentsOf: table, at: start ?? 1)
                try sections.flatMap(\.lines).joined(separator: "\n")
                    .write(to: Self.path, atomically: true, encoding: .utf8)
            }
            #expect(
                sections[index].lines.filter { $0.hasPrefix("|") } == table,
                "docs/trace.md differs; MINIVMM_WRITE_SCHEMA=1 writes it")
        }
        for (title, keys) in [("Header", LineKey.header), ("Every event", LineKey.everyEvent)] {
            let lines = try #require(sections.first { $0.title == title }).lines
            let rows = lines.filter { $0.hasPrefix("| ") }.dropFirst().map {
                $0.split(separator: "|").prefix(3).map { $0.trimmingCharacters(in: .whitespaces) }
            }
            #expect(
                rows == keys.map { [$0.spelling.description, $0.type.rawValue, $0.unit?.rawValue ?? ""] })
        }
    }
}
