// SPDX-License-Identifier: MIT
import Export
import Litmus
import MiniVMM
import Report
import SystemPackage

/// Writes a folder for each finding: `001-convert-0-private` with the test, a C program, a report, a trace and a picture.
///
/// The test and the program are written as soon as the finding is made, so that a later failure cannot lose it.
final class FindingFolders {
    /// Names of files in a folder.
    static let (test, report) = ("test.litmus", "report.md")

    private let directory: String?
    /// The folders, in the order of the findings.
    private(set) var names: [String] = []
    private var problems: [ExportProblem?] = []
    /// The number of the last folder that was created.
    private var number = 0
    /// The first folder or file that could not be written.
    private(set) var failure: (any Error)?

    /// Creates the directory if needed.
    ///
    /// - Throws: status 125 and a message on standard error, if nothing can be written to it.
    init(_ directory: String?) throws {
        self.directory = directory
        guard let directory else { return }
        try TextFile.makeDirectory(directory, for: "the findings")
        try OutputPlace.check(ByteText.join(directory, ".minivmm-finding"), what: "the findings")
        number = Self.highest(in: directory)
    }

    /// The tests of the findings.
    var tests: [String] { names.map { ByteText.join($0, Self.test) } }

    /// Folders of earlier explorations are kept: a new one gets the number after the highest.
    private static func highest(in directory: String) -> Int {
        let names = ((try? DirectoryListing.read(directory)) ?? []).map(\.name)
        return names.compactMap { name in
            name.split(separator: "-").first.flatMap { $0.count >= 3 ? Int($0) : nil }
        }.max() ?? 0
    }

    /// Writes the tests and the programs of the findings that have none yet.
    func save(_ findings: [Finding]) {
        guard let directory, failure == nil else { return }
        for finding in findings.dropFirst(names.count) {
            do {
                let folder = try create(directory, finding)
                names.append(folder)
                let file = ByteText.join(folder, Self.test)
                try TextFile.write(finding.source.test.text, to: file, what: "the finding")
                problems.append(try Self.writeProgram(finding.source, folder))
            } catch {
                failure = error
                return
            }
        }
    }

    private func create(_ directory: String, _ finding: Finding) throws -> String {
        while true {
            number += 1
            let digits = String(number)
            let padded = String(repeating: "0", count: max(0, 3 - digits.count)) + digits
            let path = ByteText.join(directory, "\(padded)-\(finding.slug)")
            // Another exploration may write to the same directory.
            if try TextFile.makeNewDirectory(path, for: "the finding") { return path }
        }
    }

    /// Writes `reproducer.c`.
    ///
    /// - Returns: why the test has no program; nil if it has one.
    /// - Throws: status 125 and a message on standard error.
    static func writeProgram(_ source: Source, _ folder: String) throws -> ExportProblem? {
        let program: CProgram
        do throws(ExportProblem) {
            program = try CProgram(source, file: test, name: "reproducer")
        } catch {
            return error
        }
        try TextFile.write(program.text, to: ByteText.join(folder, "reproducer.c"), what: "the program")
        return nil
    }

    /// Writes the reports, traces and pictures, when the exploration has ended.
    ///
    /// - Parameters:
    ///   - report: makes the report of a finding, whose program has this problem.
    ///   - record: runs the test of a finding once and records it.
    /// - Throws: status 125 and a message on standard error.
    func complete(
        _ findings: [Finding], report: (Int, ExportProblem?) -> String,
        record: (Finding) -> (LitmusRecorder, ScheduleChart?)
    ) throws {
        for (index, folder) in names.enumerated()
        where findings.indices.contains(index) && problems.indices.contains(index) {
            let text = report(index, problems[index])
            try TextFile.write(text, to: ByteText.join(folder, Self.report), what: "the report")
            let (recorder, chart) = record(findings[index])
            try recorder.write(to: folder, title: findings[index].source.test.name, chart)
        }
    }
}

extension Finding {
    /// The differing step in a few words, for a name: `convert-0-private`.
    fileprivate var slug: String {
        let words = what.split { !($0.isASCII && ($0.isLetter || $0.isNumber)) }.map { $0.lowercased() }
        let left =
            words.first.map { $0.hasPrefix("host") || $0.hasPrefix("concurrently") } == true
            ? words.dropFirst() : words[...]
        var slug = ""
        for word in left where slug.count + word.count < 40 { slug += (slug.isEmpty ? "" : "-") + word }
        return slug.isEmpty ? "finding" : slug
    }
}
