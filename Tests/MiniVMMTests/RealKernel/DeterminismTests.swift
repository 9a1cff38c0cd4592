// SPDX-License-Identifier: MIT
import Foundation
import GuestPayloads
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("SoftKVM's traces")
struct DeterminismTests {
    /// The JSON trace of a payload, byte for byte.
    private func trace(_ payload: Payload, seed: UInt64) throws -> [UInt8] {
        let path = FilePath("/tmp/minivmm-determinism-\(UUID().uuidString)")
        let file = try FileDescriptor.open(
            path, .readWrite, options: [.create, .exclusiveCreate], permissions: .ownerReadWrite)
        defer {
            try? file.close()
            unlink(path.string)
        }
        var configuration = payload.machineConfiguration
        configuration.hypercallInstruction = true
        let backend = SoftKVM(SoftKVM.Configuration(seed: seed, timeSlice: 500))
        let machine = try Machine(
            backend: backend, configuration: configuration, image: .flat(payload.image),
            console: Console(nil),
            trace: Trace(backend: backend, sinks: [JSONLinesTrace(file)]))
        #expect(machine.run(timeout: .seconds(600)).exitStatus == 0)
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path.string)))
    }

    @Test(
        .enabled(if: BackendUnderTest.software.absence == nil, BackendUnderTest.software.absence ?? ""),
        arguments: ["smp", "implicit", "forget", "pinned", "contents"])
    func sameInputAndSeedSameTrace(name: String) throws {
        let payload = try #require(Catalogue.named(name))
        let first = try trace(payload, seed: 7)
        #expect(first.count > 10_000)
        #expect(try trace(payload, seed: 7) == first)
    }
}
