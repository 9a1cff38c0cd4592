// SPDX-License-Identifier: MIT
import GuestPayloads
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// The built-in guests on backends where conversions lose contents.
@Suite("Payloads without preservation", .serialized)
struct PreservationTests {
    /// A backend whose conversions scramble contents, or lose them.
    @Test(arguments: [ContentPromise.undefined, .lost], Catalogue.all)
    func whereContentsAreNotPreserved(promise: ContentPromise, payload: Payload) throws {
        _ = try BackendUnderTest.software.required()
        let console = Console(nil, keeps: true)
        do {
            let machine = try Machine(
                backend: SoftKVM(.init(seed: 3, contentPromise: promise)),
                configuration: payload.machineConfiguration, image: try .flat(payload.image),
                console: console)
            #expect(!payload.needsPreservation)
            let outcome = machine.run(
                timeout: payload.ending == .timeLimit ? .milliseconds(200) : .seconds(600))
            #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        } catch let error as MachineError {
            guard case .unsupported(.preservation, _) = error else { throw error }
            #expect(payload.needsPreservation)
        }
    }

    /// The built-in guests on every posted version: they end as documented, or do not run because contents are not
    /// preserved.
    @Test(arguments: ABIProfile.allCases.filter { $0 != .linux74 }, Catalogue.all)
    func onEarlierVersions(abi: ABIProfile, payload: Payload) throws {
        _ = try BackendUnderTest.software.required()
        let console = Console(nil, keeps: true)
        do {
            let machine = try Machine(
                backend: SoftKVM(.init(seed: 3, abi: abi)), configuration: payload.machineConfiguration,
                image: try .flat(payload.image), console: console)
            let outcome = machine.run(
                timeout: payload.ending == .timeLimit ? .milliseconds(200) : .seconds(600))
            #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        } catch let error as MachineError {
            guard case .unsupported = error else { throw error }
            // The model has SNP and TDX VMs with the interface of Linux 7.4 only.
            let isConfidential = payload.vmType.isConfidential
            #expect(isConfidential || payload.needsPreservation && (abi == .rfcV1 || abi == .rfcV2))
        }
    }

    /// A guest that uses both aliases does not depend on where its RAM is or how it is mapped.
    @Test(arguments: [4 << 20, 64 << 20, 5 << 30] as [UInt64], [1, 16])
    func twoAliasesWithoutPreservationOnMachinesOfAllSizes(ram: UInt64, vcpus: Int) throws {
        _ = try BackendUnderTest.software.required()
        for promise in [ContentPromise.undefined, .lost] {
            let payload = try #require(Catalogue.named("forget"))
            var configuration = payload.machineConfiguration
            configuration.ramSize = ram
            configuration.vcpus = vcpus
            let console = Console(nil, keeps: true)
            let machine = try Machine(
                backend: SoftKVM(.init(contentPromise: promise)), configuration: configuration,
                image: try .flat(payload.image), console: console)
            let outcome = machine.run(timeout: .seconds(600))
            #expect(outcome.exitStatus == 0, "\(outcome)\n\(console.text)")
        }
    }
}
