// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

/// The faults that the tests in litmus/ detect.
@Suite("The library of litmus tests", .timeLimit(.minutes(120)), .serialized)
struct LibraryTests {
    static let search = try? FaultSearch(RunnerTests.files.map(RunnerTests.source))

    /// A planted fault that fails no test shows that no test checks its rule.
    @Test(.enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU), arguments: PlantedFault.allCases)
    func everyPlantedFaultIsCaught(_ fault: PlantedFault) throws {
        let search = try #require(Self.search)
        #expect(!search.catching(fault, limit: 1).isEmpty)
    }

    private func verdict(_ name: String, _ configuration: SoftKVM.Configuration) throws -> Verdict {
        let file = try #require(RunnerTests.files.first { $0.lastPathComponent == name + ".litmus" })
        return Runner(SoftKVM(configuration)).run(try RunnerTests.source(file))
    }

    private func fails(_ verdict: Verdict) -> Bool { if case .failed = verdict { true } else { false } }

    /// A historic hazard shows in the versions that had it, and in no other.
    @Test(
        .enabled(if: RunnerTests.hasCPU, RunnerTests.noCPU),
        arguments: [
            (1, [ABIProfile.rfcV2, .rfcV4]), (2, [.rfcV1, .rfcV2, .rfcV4, .rfcV5]), (22, [.rfcV4, .rfcV5]),
            (24, [.rfcV1]),
        ] as [(UInt16, [ABIProfile])])
    func historicHazardsShowWhereTheyWere(_ hazard: UInt16, _ versions: [ABIProfile]) throws {
        let sources = try RunnerTests.files.map(RunnerTests.source).filter {
            $0.test.hazards.contains(Hazard(.historic, number: hazard))
        }
        #expect(!sources.isEmpty)
        for abi in ABIProfile.allCases {
            let runner = Runner(SoftKVM(.init(abi: abi)))
            let shows = sources.contains { fails(runner.run($0)) }
            #expect(shows == versions.contains(abi), "\(abi.name)")
        }
    }

    @Test func versionsDifferWhereTheyShould() throws {
        let source = try Source(
            parsing: """
                test "x"
                memory 2 pages shared
                host convert 0 private error_offset 0x1000
                host convert @0+4097 shared
                host convert 1 private flags 2
                host read 1
                """)
        let versions: [ABIProfile] = [.rfcV1, .rfcV2, .rfcV4, .linux74]
        let rows = Comparison(versions.map { SoftKVM.Configuration(abi: $0) }).differences(source)
        #expect(rows.map(\.line) == [3, 4, 5, 6])
        #expect(rows[0].answers == ["ok", "EINVAL", "EINVAL", "ok"])
        #expect(rows[1].answers == ["ok", "EINVAL", "EINVAL", "EINVAL"])
        #expect(rows[2].answers == ["EINVAL", "EINVAL", "ok", "EINVAL"])
        #expect(rows[3].answers == ["0x0", "0x0", "SIGBUS", "0x0"])
        #expect(Comparison([.init(), .init()]).differences(source).isEmpty)
    }
}
