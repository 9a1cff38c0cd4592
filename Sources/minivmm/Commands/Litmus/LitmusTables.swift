// SPDX-License-Identifier: MIT
import ArgumentParser
import Litmus
import MiniVMM
import SoftKVM

/// Tables about litmus tests, printed as Markdown.
enum LitmusTables {
    private static var out: Terminal { .output }

    // MARK: versions of the interface

    /// Prints the steps and outcomes for which versions of the interface differ.
    static func compare(
        _ items: [LitmusCommand.Item], _ versions: [ABIProfile], _ base: SoftKVM.Configuration,
        _ format: LitmusCommand.Format
    ) throws {
        let comparison = Comparison(
            versions.map { version in
                var configuration = base
                configuration.abi = version
                return configuration
            })
        let rows = items.flatMap { item in comparison.differences(item.source).map { (item, $0) } }
        guard format != .json else {
            out.print(
                JSON.object([
                    ("schema", .string("minivmm.litmus-versions/1")),
                    ("versions", .array(versions.map { .string($0.rawValue) })),
                    (
                        "differences",
                        .array(
                            rows.map { item, row in
                                .object([
                                    ("file", .string(item.path)), ("line", .number(UInt64(row.line))),
                                    ("step", .string(row.text)),
                                    ("answers", .array(row.answers.map(JSON.string))),
                                ])
                            })
                    ),
                ]).text)
            return
        }
        printTable(
            ["test", "step"] + versions.map(\.name),
            rows.map { item, row in
                ["\(item.shortName):\(row.line)", "`\(row.text)`"] + row.answers
            })
        out.print("")
        out.print("\(rows.count) of \(items.reduce(0) { $0 + $1.source.test.steps.count }) steps differ")
    }

    // MARK: planted faults

    /// Prints which faults the tests catch.
    static func faults(_ items: [LitmusCommand.Item], _ format: LitmusCommand.Format) throws {
        let search = FaultSearch(items.map(\.source))
        let rows = PlantedFault.allCases.map { ($0, search.catching($0).map { items[$0].shortName }) }
        let missed = rows.filter(\.1.isEmpty).map(\.0.name)
        if format == .json {
            out.print(
                JSON.object([
                    ("schema", .string("minivmm.litmus-faults/1")),
                    (
                        "faults",
                        .array(
                            rows.map { fault, tests in
                                .object([
                                    ("fault", .string(fault.name)), ("rule", .string(fault.rule)),
                                    ("caught_by", .array(tests.map(JSON.string))),
                                ])
                            })
                    ),
                ]).text)
        } else {
            printTable(
                ["fault", "rule", "what the kernel does wrong", "caught by"],
                rows.map { fault, tests in
                    ["`\(fault.name)`", fault.rule, fault.description, some(tests)]
                })
            out.print("")
            out.print("\(rows.count - missed.count) of \(rows.count) faults are caught")
        }
        guard missed.isEmpty else {
            throw stop("no test catches \(missed.joined(separator: ", "))", Status.checkFailed)
        }
    }

    private static func some(_ names: [String]) -> String {
        guard names.count > 3 else { return names.isEmpty ? "**nothing**" : names.joined(separator: ", ") }
        return names.prefix(2).joined(separator: ", ") + " and \(names.count - 2) more"
    }

    // MARK: hazards

    /// Prints the hazards of tests with their verdicts on each backend.
    static func hazards(_ paths: [String]) throws {
        let reports = try paths.map(LitmusResults.init(path:))
        var tests: [String: Set<String>] = [:]
        for test in reports.flatMap(\.tests) {
            for hazard in test.hazards { tests[hazard, default: []].insert(test.file) }
        }
        let order = tests.keys.sorted {
            ($0.first ?? " ", Int($0.dropFirst()) ?? 0) < ($1.first ?? " ", Int($1.dropFirst()) ?? 0)
        }
        printTable(
            ["hazard", "tests"] + reports.map(\.title),
            order.map { hazard in
                [hazard, "\(tests[hazard]?.count ?? 0)"] + reports.map { cell(hazard, $0) }
            })
        out.print("")
        for report in reports {
            func count(_ verdict: String) -> Int { report.tests.count { $0.verdict == verdict } }
            out.print(
                "\(report.title): \(count("passed")) passed, \(count("failed")) failed, \(count("skipped")) skipped"
            )
        }
    }

    private static func cell(_ hazard: String, _ report: LitmusResults) -> String {
        let verdicts = report.tests.filter { $0.hazards.contains(hazard) }.map(\.verdict)
        let failed = verdicts.count { $0 == "failed" }
        if failed > 0 { return failed == verdicts.count ? "shows" : "shows in \(failed)" }
        return verdicts.contains("passed") ? "passes" : "skipped"
    }

    // MARK: Markdown

    static func printTable(_ head: [String], _ rows: [[String]]) {
        func line(_ cells: [String]) -> String {
            "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |"
        }
        out.print(line(head))
        out.print("|" + String(repeating: "---|", count: head.count))
        for row in rows { out.print(line(row)) }
    }
}
