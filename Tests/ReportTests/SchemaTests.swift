import Foundation
import SystemPackage
import Testing

@testable import MiniVMM

/// docs/trace.md is the schema: its tables are read, and what the code writes is held against them.
@Suite("The trace's schema")
struct SchemaTests {
    private struct Key {
        let type: String
        let mayBeAbsent: Bool
    }

    /// The tables of the document: event, key, what the key is.
    private static func document() throws -> (
        events: [String: [String: Key]], every: [String: Key], litmus: Set<String>
    ) {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("docs/trace.md"), encoding: .utf8)
        var events: [String: [String: Key]] = [:]
        var every: [String: Key] = [:]
        var litmus: Set<String> = []
        var section = ""
        for line in text.split(separator: "\n") {
            if line.hasPrefix("## ") { section = String(line.dropFirst(3)) }
            guard line.hasPrefix("| "), !line.hasPrefix("|---") else { continue }
            let cells = line.split(separator: "|", omittingEmptySubsequences: false).dropFirst().dropLast()
                .map { $0.trimmingCharacters(in: .whitespaces) }
            if section == "Every event", cells.count == 4, cells[0] != "key" {
                every[cells[0]] = Key(type: cells[1], mayBeAbsent: false)
            }
            guard cells.count == 5, cells[0] != "event" else { continue }
            let isLitmus = section == "From litmus tests"
            if isLitmus, events[cells[0]] == nil { litmus.insert(cells[0]) }
            if cells[1].isEmpty {
                events[cells[0], default: [:]] = [:]
            } else {
                events[cells[0], default: [:]][cells[1]] = Key(
                    type: cells[2], mayBeAbsent: cells[4].contains("absent"))
            }
        }
        return (events, every, litmus)
    }

    /// One of each kind at least, with all that may be there and without.
    private static func everyEvent() throws -> [TraceEvent] {
        let range = try #require(PageRange(start: 0x5000, size: 0x2000))
        let request = ConversionRequest(range: range, to: .private, contents: .zero)
        let result = ConversionResult(means: .zeroedByMonitor)
        let bytes = FirstBytes(word: 0x0102_0304_0506_0708)
        return [
            .booted(image: range, entry: 1, vcpus: 2, ram: 1 << 40, sharedBit: 46),
            .booted(image: range, entry: 1, vcpus: 2, ram: 1 << 40, sharedBit: nil), .imageLeftShared(end: 7),
            .guestExited(status: 1), .stopped("why"), .stopped("why", status: 128),
            .portOut(port: 1, size: 1, value: 1),
            .portIn(port: 1, size: 4, value: .max), .mmio(gpa: 1, size: 8, write: true),
            .memoryFault(MemoryFault(gpa: 0x5000, size: 4096, flags: 8), .badAddress, .convert),
            .resumed(gpa: 0x5000),
            .hypercall(number: 12, .max, 1, 2, byInstruction: true, result: -22), .steppedOver(rip: 1),
            .halted, .kicked,
            .conversionStarted(request), .conversionStarted(request, before: bytes),
            .attributesCall(offset: 0, size: 4096, target: .private, .resourceTemporarilyUnavailable, 8192),
            .attributesCall(offset: 0, size: 4096, target: .shared, nil, 0, gpa: 4096, nanoseconds: 7),
            .holdersAsked(gpa: 1, released: 1, refused: 2), .waiting(gpa: 1, nanoseconds: 2, attempt: 1),
            .conversionFinished(request, result), .conversionFinished(request, result, after: bytes),
            .conversionFailed(ConversionError(reason: .inUse([range]), request: request, result: result)),
            .held(range, yields: false), .released(range), .releasedHolds(3),
            .hostAccess(
                gpa: 1, .read, HostAccessError(gpa: 1, direction: .read, errno: .badAddress, state: .private)),
            .hostAccess(gpa: 1, .write, nil),
        ]
    }

    /// A number for each case: the compiler insists that a new one is put here, and the test that it is generated above.
    private static let cases = 22
    private static func ordinal(_ event: TraceEvent) -> Int {
        switch event {
        case .booted: 0
        case .imageLeftShared: 1
        case .guestExited: 2
        case .stopped: 3
        case .portOut: 4
        case .portIn: 5
        case .mmio: 6
        case .memoryFault: 7
        case .resumed: 8
        case .hypercall: 9
        case .steppedOver: 10
        case .halted: 11
        case .kicked: 12
        case .conversionStarted: 13
        case .attributesCall: 14
        case .holdersAsked: 15
        case .waiting: 16
        case .conversionFinished: 17
        case .conversionFailed: 18
        case .held: 19
        case .released, .releasedHolds: 20
        case .hostAccess: 21
        }
    }

    /// Takes down what an event says of itself.
    private struct Taken: TraceFields {
        var event = ""
        var keys: [String: String] = [:]
        mutating func name(_ name: StaticString) { event = "\(name)" }
        mutating func number(_ key: StaticString, _ value: UInt64) { keys["\(key)"] = "number" }
        mutating func address(_ key: StaticString, _ value: UInt64) { keys["\(key)"] = "address" }
        mutating func signed(_ key: StaticString, _ value: Int64) { keys["\(key)"] = "signed" }
        mutating func flag(_ key: StaticString, _ value: Bool) { keys["\(key)"] = "flag" }
        mutating func text(_ key: StaticString, _ value: String) { keys["\(key)"] = "text" }
    }

    @Test func everyCaseIsGeneratedHere() throws {
        #expect(Set(try Self.everyEvent().map(Self.ordinal)) == Set(0..<Self.cases))
    }

    @Test func everyEventIsAsTheDocumentSays() throws {
        let (events, every, _) = try Self.document()
        #expect(Set(every.keys) == ["t", "actor", "event"])
        var seen: [String: Set<String>] = [:]
        for event in try Self.everyEvent() {
            var taken = Taken()
            event.describe(to: &taken)
            let schema = try #require(events[taken.event], "\(taken.event) is not in docs/trace.md")
            for (key, type) in taken.keys {
                let known = try #require(schema[key], "\(taken.event): \(key) is not in docs/trace.md")
                #expect(known.type == type, "\(taken.event): \(key)")
            }
            for (key, known) in schema where !known.mayBeAbsent {
                #expect(taken.keys[key] != nil, "\(taken.event) has no \(key)")
            }
            seen[taken.event, default: []].formUnion(taken.keys.keys)
        }
        // And nothing is in the document that nobody writes, but for what litmus tests do.
        let fromLitmus: [String: Set<String>] = ["hold": ["name"], "release": ["name"]]
        let (documented, _, litmus) = try Self.document()
        for (name, keys) in documented where !litmus.contains(name) {
            #expect(
                seen[name]?.union(fromLitmus[name] ?? []) == Set(keys.keys).union(fromLitmus[name] ?? []),
                "\(name)")
        }
        #expect(litmus == ["file", "step", "access", "punch"])
    }
}
