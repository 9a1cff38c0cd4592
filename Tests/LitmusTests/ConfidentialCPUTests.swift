// SPDX-License-Identifier: MIT
import ConversionModel
import Foundation
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

/// Tests of SNP and TDX VMs are answered by the model. Here vCPUs perform the same steps with the real instructions on the software
/// CPU, and every status and byte must be the model's.
@Suite("SNP and TDX on the CPU", .enabled(if: hasCPU))
struct ConfidentialCPUTests {
    /// The model and the CPU side by side.
    private struct Lockstep {
        private var model: ModelMachine
        private let cpu: InstructionMachine
        /// The bytes that somebody has written. Garbage is none of them.
        private var written: Set<UInt8> = [0]

        init(_ test: LitmusTest, steps: Int, _ faults: Set<PlantedFault> = []) throws {
            model = try ModelMachine(ModelMachine.Setup(SoftKVM.Configuration().rules, test))
            cpu = try InstructionMachine(test, steps: steps, faults)
        }

        /// Whether the model has an answer: a vCPU that was stopped in an access can only repeat it.
        func canPerform(_ step: Step) -> Bool {
            var copy = model
            return (try? copy.perform(step)) != nil
        }

        /// - Returns: nil if both have given the same answer.
        mutating func difference(_ step: Step) throws -> String? {
            switch step.action {
            case .write(_, let byte), .fill(_, let byte): written.insert(byte)
            default: break
            }
            let expected = try model.perform(step)
            let seen = try cpu.perform(step)
            switch (expected.outcome, seen) {
            case (.garbage, .value(let byte)) where !written.contains(byte): return nil
            case (let expected, let seen) where expected == seen: return nil
            default: return "\(step): the model \(expected.outcome), the CPU \(seen)"
            }
        }
    }

    private static let library: [String] = ["snp", "tdx"].flatMap { name -> [String] in
        let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../../litmus/\(name)")
        let files = try? FileManager.default.contentsOfDirectory(atPath: folder.path)
        return (files ?? []).sorted().map { "\(name)/\($0)" }
    }

    @Test func allTestsOfTheLibraryAreHere() { #expect(Self.library.count > 90) }

    /// Each test passes on the model as it is, and fails with one of the planted faults: a careless kernel, host or monitor.
    @Test func eachTestOfTheLibraryCanFail() throws {
        let tests = try Self.library.map(source)
        for test in tests { #expect(Runner(SoftKVM()).run(test) == .passed, "\(test.test.name)") }
        var left = tests
        for fault in PlantedFault.allCases.reversed() where !left.isEmpty {
            let runner = Runner(SoftKVM(SoftKVM.Configuration(plantedFaults: [fault])))
            left.removeAll { if case .failed = runner.run($0) { true } else { false } }
        }
        #expect(left.map(\.test.name) == [])
    }

    private func source(_ name: String) throws -> Source {
        let path = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../../litmus/\(name)")
        return try Source(parsing: String(contentsOf: path, encoding: .utf8))
    }

    /// The first difference in a test of the library; nil if there is none.
    private func difference(_ name: String, _ faults: Set<PlantedFault> = []) throws -> String? {
        let test = try source(name).test
        var machines = try Lockstep(test, steps: test.steps.count, faults)
        for step in test.steps { if let difference = try machines.difference(step) { return difference } }
        return nil
    }

    /// The library's tests, whose answers the model gives.
    @Test(arguments: library) func testOfTheLibrary(_ name: String) throws {
        #expect(try difference(name) == nil)
    }

    /// A kernel with a fault below the CPU differs from the model.
    @Test(arguments: [
        (PlantedFault.rescindIgnored, "snp/rescinded-page-raises-vc"),
        (.validationZeroes, "snp/private-page-is-garbage-until-written"),
        (.wrongAnswerRefuses, "snp/wrong-answer-fails-the-run"),
        (.acceptKeepsContents, "tdx/private-page-is-zero-once-accepted"),
        (.removalNeedsNoTrack, "tdx/removal-needs-a-track"),
        (.deadGuestRuns, "tdx/dead-td-makes-no-request"),
    ]) func plantedFaultsAreSeenOnTheCPU(_ fault: PlantedFault, _ name: String) throws {
        #expect(try difference("\(name).litmus", [fault]) != nil)
    }

    // MARK: random steps

    /// A few hundred random steps of guest and host on four pages.
    @Test(arguments: ["snp", "tdx"], 0..<8 as Range<UInt64>) func randomSteps(_ vm: String, _ seed: UInt64)
        throws
    {
        let state = seed % 2 == 0 ? "private" : "shared"
        let source = try Source(parsing: "test \"x\"\nvm \(vm)\nmemory 4 pages \(state)\nhost read 0")
        var random = SplitMix64(seed: seed)
        var machines = try Lockstep(source.test, steps: 100)
        var history: [String] = []
        while history.count < 40 {
            let lines = Self.candidates(vm, &random)
            for line in lines {
                let test = try Source(parsing: "test \"x\"\nvm \(vm)\nmemory 4 pages \(state)\n\(line)").test
                guard let step = test.steps.first, machines.canPerform(step) else { continue }
                history.append(line)
                let difference: String?
                do { difference = try machines.difference(step) } catch { difference = "\(error)" }
                #expect(difference == nil, "\(history.joined(separator: "; "))")
                if difference != nil { return }
            }
        }
    }

    /// One random step. Each vCPU is one of four, so that one that was stopped does not end the test.
    private static func candidates(_ vm: String, _ random: inout SplitMix64) -> [String] {
        func pick<Element>(_ all: [Element]) -> Element { all[Int(random.next() % UInt64(all.count))] }
        let first = random.next() % 4
        let last = first + random.next() % (4 - first)
        let (page, range) = ("\(first)", "\(first)..\(last)")
        let byte = "0x\(String(1 + random.next() % 0xf0, radix: 16))"
        let alias = pick(["", "", "shared:"])
        let vcpu = "vcpu\(random.next() % 4)"
        let state = pick(["private", "shared"])
        switch random.next() % 16 {
        case 0...3:
            guard vm == "snp" else { return ["\(vcpu) accept \(range)\(pick(["", "", "", " large"]))"] }
            return ["\(vcpu) pvalidate \(range)\(pick(["", "", "", " rescind", " large", " rescind large"]))"]
        case 4, 5: return ["\(vcpu) hypercall \(range) \(state)"]
        case 6, 7: return ["\(vcpu) read \(alias)\(page)"]
        case 8: return ["\(vcpu) write \(alias)\(page) \(byte)"]
        case 9: return ["\(vcpu) fill \(alias)\(range) \(byte)"]
        case 10: return ["host write \(page) \(byte)", "host read \(page)"]
        case 11: return ["host read \(page)"]
        case 12: return ["host convert \(range) \(state) \(pick(["unspecified", "zero", "preserve"]))"]
        case 13: return ["host punch \(page)"]
        case 14:
            let more =
                vm == "tdx" ? ["host ve", "host block \(page)", "host track", "host remove \(page)"] : []
            return [
                pick(
                    [
                        "host take \(page)", "host remap \(page) to \(random.next() % 4)",
                        "host remap \(page) to \(page)",
                    ]
                        + more)
            ]
        default:
            // The answer belongs to the next request.
            return ["host answer \(pick([0, 1, 11, 22]))", "\(vcpu) hypercall \(range) \(state)"]
        }
    }
}

/// Whether the engine is installed.
private let hasCPU = if case .missing = SoftKVM().engineStatus { false } else { true }
