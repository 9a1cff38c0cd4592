// SPDX-License-Identifier: MIT
import Foundation
import Litmus
import Testing

@testable import Export

@Suite("Rules of the interface")
struct InterfaceRuleTests {
    /// A report quotes docs/ABI.md word by word.
    @Test func eachQuotationIsInTheDocument() throws {
        let file = Library.directory.deletingLastPathComponent().appendingPathComponent("docs/ABI.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        let words = text.replacing("`", with: "").replacing("*", with: "")
            .split(whereSeparator: \.isWhitespace).joined(separator: " ")
        for rule in InterfaceRule.all {
            #expect(words.contains(rule.text), "\(rule.text)")
            if let row = rule.place.components(separatedBy: "row ").dropFirst().first {
                #expect(words.contains("| \(row) | \(rule.text) |"), "\(rule.place)")
            }
        }
    }

    @Test func theRowOfAConversionFitsItsArguments() throws {
        let source = try Source(
            parsing: "test \"x\"\nhost create f 2 pages mmap\nhost convert f:1..2 shared => EINVAL\n")
        let step = source.test.steps[1]
        let rules = InterfaceRule.rules(for: step, .errno(22), in: source.test)
        #expect(rules.map(\.place) == ["section 2, row 8"])
    }

    @Test func everyStepOfTheLibraryHasARule() throws {
        for name in Library.names {
            let test = try Library.source(name).test
            for step in test.steps {
                guard case .anyOf(let outcomes) = step.expectation else { continue }
                for outcome in outcomes {
                    #expect(!InterfaceRule.rules(for: step, outcome, in: test).isEmpty)
                }
            }
        }
    }
}
