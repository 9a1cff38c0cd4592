// SPDX-License-Identifier: MIT
import Foundation
import SystemPackage
import Testing

@testable import minivmm

/// Foundation has another one.
private typealias Operation = minivmm.Operation

/// `bench --instructions`: everything but the counting itself, which needs the lab.
@Suite("bench --instructions")
struct CostTests {
    // MARK: the clock

    private func sample(_ instructions: UInt64, _ counts: UInt64...) -> InstructionClock.Sample {
        InstructionClock.Sample(instructions: instructions, counts: counts)
    }

    private func refusal(_ samples: InstructionClock.Sample...) -> InstructionClock.Refusal? {
        do throws(InstructionClock.Refusal) {
            try InstructionClock.judge(samples)
            return nil
        } catch { return error }
    }

    @Test func aCounterOfInstructionsIsAccepted() {
        #expect(refusal(sample(2, 2, 2, 2), sample(1000, 1000, 1000, 1000)) == nil)
        // An interrupt during one of the measurements.
        #expect(refusal(sample(2, 2, 2, 2), sample(1000, 1000, 3612, 1000)) == nil)
    }

    @Test func anotherCounterIsRefused() {
        // Time: close to the number, but not the same each time.
        #expect(
            refusal(sample(1000, 1000, 1001, 999, 1002, 1000, 998))
                == .other(instructions: 1000, least: 998, most: 1002))
        // The same each time, but not the number.
        #expect(refusal(sample(1000, 730, 730, 730)) == .other(instructions: 1000, least: 730, most: 730))
        // Right for one length only.
        #expect(
            refusal(sample(2, 2, 2, 2), sample(1000, 3000, 3000, 3000))
                == .other(instructions: 1000, least: 3000, most: 3000))
        // A counter that does not move.
        #expect(refusal(sample(1000, 0, 0, 0)) == .other(instructions: 1000, least: 0, most: 0))
        #expect(refusal() == .noCounter)
    }

    @Test func aScaledCounterIsNamed() {
        #expect(refusal(sample(2, 64, 64, 64), sample(1000, 32_000, 32_000, 32_000)) == .scaled(factor: 32))
        #expect(InstructionClock.Refusal.scaled(factor: 32).text.contains("advances by 32 with each"))
    }

    /// This machine, on which the tests run, is not QEMU with -icount.
    @Test(.enabled(if: Command.isBuilt, Command.missing))
    func anOrdinaryMachineIsRefused() throws {
        for more in [[], ["--json"]] {
            let result = try Command.run(["bench", "--instructions"] + more)
            #expect(result.status == 4 && result.output == "", "\(result)")
            #expect(result.diagnostics.contains("does not count instructions"), "\(result.diagnostics)")
            #expect(
                result.diagnostics.contains("lab/boot --icount -- minivmm bench --instructions"),
                "\(result.diagnostics)")
        }
    }

    @Test(.enabled(if: Command.isBuilt, Command.missing))
    func optionsThatExcludeItAreRefused() throws {
        for words in [["--check"], ["--explore"], ["--rounds", "0"], ["--rounds", "1001"]] {
            let result = try Command.run(["bench", "--instructions"] + words)
            #expect(result.status == 64 && result.diagnostics.contains(words[0]), "\(result)")
        }
    }

    // MARK: figures

    @Test func medians() {
        #expect(middle([]) == 0)
        #expect(middle([7]) == 7)
        #expect(middle([9, 1]) == 1)
        #expect(middle([5, 900, 5, 4]) == 5)
        let cost = Cost(operation: .busy(.last), pages: 8, samples: [5, 7, 5], ticks: 0)
        #expect((cost.median, cost.least, cost.most, cost.isExact) == (5, 5, 7, false))
        #expect(cost.key == "eagain/last/8")
    }

    @Test func keysAreDistinct() {
        var keys: Set<String> = []
        var count = 0
        for target in Operation.Target.allCases {
            for pages in Operation.Pages.before(target) {
                keys.insert(Operation.conversion(target, pages).key)
                count += 1
            }
            keys.insert(Operation.unchanged(target).key)
            count += 1
        }
        for held in Operation.Held.allCases { keys.insert(Operation.busy(held).key) }
        for guest in Operation.Guest.allCases { keys.insert(Operation.guest(guest).key) }
        #expect(keys.count == count + Operation.Held.allCases.count + Operation.Guest.allCases.count)
        // The host cannot map a private page.
        #expect(!Operation.Pages.before(.shared).contains(.mappedByHost))
    }

    private func costs(_ interface: ConversionInterface, _ costs: [Cost]) -> Costs {
        Costs(
            backend: "LinuxKVM (Linux 7.3.4-lab)", interface: interface, repetitions: 3, overhead: 7,
            tickPeriod: 10_000_000, tickCost: 2612, costs: costs)
    }

    private func printed(_ costs: Costs) throws -> String {
        let pipe = Pipe()
        CostPrinter(costs: costs).print(
            on: Terminal(FileDescriptor(rawValue: pipe.fileHandleForWriting.fileDescriptor)))
        try pipe.fileHandleForWriting.close()
        return String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
    }

    private static let long = Cost(
        operation: .conversion(.private, .mappedByHost), pages: 65_536,
        samples: [35_758_552, 35_758_546, 35_759_012], ticks: 3)

    @Test func theTableHasEveryFigureInItsColumn() throws {
        let text = try printed(
            costs(
                .inPlace,
                [
                    Cost(
                        operation: .conversion(.private, .neverTouched), pages: 1, samples: [3174], ticks: 0),
                    Cost(
                        operation: .conversion(.private, .neverTouched), pages: 512, samples: [6158, 6158],
                        ticks: 0),
                    Self.long,
                    Cost(operation: .busy(.first), pages: 8, samples: [8118, 8118, 20_901], ticks: 0),
                    Cost(operation: .guest(.exit), pages: 1, samples: [2172], ticks: 0),
                ]))
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        for line in [
            "pages in one call                         1           8         512      65,536",
            "  never touched                       3,174           -       6,158           -",
            "  mapped by the host                      -           -           - ~35,758,552",
            "  the first page                          -      ~8,118           -           -",
            "  exit round trip (OUT)                                                   2,172",
            "  to-private/mapped-by-host/65536       35,758,546 to 35,759,012",
            "  eagain/first/8                                 8,118 to 20,901",
        ] { #expect(lines.contains(line), "\(line)\n\(text)") }
        #expect(text.contains("counted by QEMU; no times"))
        #expect(text.contains("to-private/mapped-by-host/65536 (3)"))
        // The sum of the three parts of a fault needs all of them.
        #expect(!text.contains("together"))
        #expect(lines.allSatisfy { $0.count <= 80 }, "\(text)")
    }

    @Test func perVMAttributesHaveNoEAGAIN() throws {
        let guests: [Operation.Guest] = [.faultExit, .faultConversion, .faultResume]
        let text = try printed(
            costs(
                .perVM,
                guests.enumerated().map {
                    Cost(operation: .guest($1), pages: 1, samples: [UInt64(1000 + $0)], ticks: 0)
                }))
        #expect(!text.contains("EAGAIN") && text.contains("per-VM attributes"))
        #expect(
            text.contains("fault, conversion, resume together                                      3,003"))
        // Without a spread nothing is marked or explained.
        #expect(!text.contains("~") && !text.contains("tick"))
    }

    @Test func theJSONHasEveryRepetition() throws {
        let text = CostPrinter(costs: costs(.inPlace, [Self.long])).json.text
        let json = try #require(
            try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(json["schema"] as? String == "minivmm.costs/1")
        #expect(json["interface"] as? String == "in-place" && json["unit"] as? String == "instructions")
        #expect(json["overhead"] as? Int == 7 && json["repetitions"] as? Int == 3)
        let cost = try #require((json["costs"] as? [[String: Any]])?.first)
        #expect(cost["key"] as? String == "to-private/mapped-by-host/65536")
        #expect(cost["samples"] as? [Int] == [35_758_552, 35_758_546, 35_759_012])
        #expect(cost["median"] as? Int == 35_758_552 && cost["ticks"] as? Int == 3)
        #expect(cost["least"] as? Int == 35_758_546 && cost["most"] as? Int == 35_759_012)
    }
}
