// SPDX-License-Identifier: MIT
import ArgumentParser
import Glibc
import Litmus
import MiniVMM
import SystemPackage

/// Explores a kernel over as many boots as it needs. For lab/explore, whose --help has the manual; hidden in `minivmm help`.
struct LabExplore: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab-explore",
        abstract: "Explores a kernel in the lab, and goes on in a fresh boot when the kernel crashes.",
        discussion: "lab/explore --help is the manual.",
        shouldDisplay: false)

    @Option(help: "The path of lab/boot.")
    var boot: String
    @Option(
        name: .customLong("boot-option"), parsing: .unconditionalSingleValue,
        help: "An option for lab/boot. Repeatable.")
    var bootOptions: [String] = []
    @Option(help: "Directory for the findings, which is created if needed.")
    var output = "findings"
    @Option(help: "Go on with new seeds for this time, in hours. (default: one seed)")
    var hours: Double?
    @Option(help: "Seconds of wall time without a new test after which a boot hangs.")
    var hang = Seconds(.seconds(180))
    @Argument(parsing: .postTerminator, help: "Options of minivmm explore.")
    var exploreOptions: [String] = []

    func validate() throws {
        if let hours, !(hours > 0 && hours <= 100_000) {
            throw ValidationError("--hours \(hours): give a number greater than 0, at most 100000.")
        }
        if hang.duration == .zero { throw ValidationError("--hang 0: give more than 0 seconds.") }
    }

    func run() throws {
        let explore: ExploreCommand
        do {
            guard let parsed = try Minivmm.parseAsRoot(["explore"] + exploreOptions) as? ExploreCommand else {
                throw ValidationError("these are not options of minivmm explore: \(exploreOptions)")
            }
            explore = parsed
        } catch {
            throw stop(
                Minivmm.message(for: error)
                    + "; lab/explore --help and minivmm explore --help list the options", Status.usage)
        }
        try TextFile.makeDirectory(output, for: "the findings")
        try OutputPlace.check(ByteText.join(output, ".minivmm-finding"), what: "the findings")
        let known = ((try? DirectoryListing.read(output)) ?? []).filter {
            $0.isDirectory && !$0.name.hasPrefix(".")
        }.map(\.name)
        let search = CrashSearch(
            lab: [boot] + bootOptions, hangLimit: hang.duration,
            deadline: hours.map { monotonicNanoseconds() &+ UInt64($0 * 3.6e12) },
            explore: explore, words: exploreOptions, output: output,
            campaign: Campaign(seed: explore.backendOptions.seed, firstTest: explore.from, known: Set(known)))
        try search.run()
    }
}
