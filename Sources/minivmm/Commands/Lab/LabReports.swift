// SPDX-License-Identifier: MIT
import ArgumentParser
import Litmus

/// Prints the kernel's reports in a console's output. For lab/check; hidden in `minivmm help`.
struct LabReports: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab-reports",
        abstract: "Prints the reports of a kernel about its own bugs that are in the output of lab/boot.",
        discussion: """
            Reads standard input. Exit status: 0 there is no report; 1 there is one.
            """,
        shouldDisplay: false)

    func run() throws {
        var log = BootLog()
        var reports: [KernelReport] = []
        while let line = readLine() {
            for case .reported(let report, _) in log.add(line[...]) { reports.append(report) }
        }
        if let report = log.finish() { reports.append(report) }
        for report in reports {
            for line in report.lines { Terminal.output.print(line) }
        }
        if !reports.isEmpty { throw Status.checkFailed }
    }
}
