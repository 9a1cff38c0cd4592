// SPDX-License-Identifier: MIT
import GuestPayloads
import SystemPackage
import Testing

@testable import MiniVMM

/// The built-in guests: the same test body on every available backend.
@Suite("Payloads", .serialized)
struct PayloadTests {
    private func machine(
        _ payload: Payload, _ console: Console = Console(nil, keeps: true),
        on backend: BackendUnderTest = .trap,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> Machine {
        var configuration = payload.machineConfiguration
        configuration.hypercallInstruction = backend.hypercallInstruction
        change(&configuration)
        return try Machine(
            backend: backend.required(aliases: configuration.aliases), configuration: configuration,
            image: try .flat(payload.image),
            console: console)
    }

    private func expectEnd(of payload: Payload, on backend: BackendUnderTest) throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(payload, console, on: backend)
        let limit: Duration = payload.ending == .timeLimit ? .milliseconds(200) : .seconds(600)
        let outcome = machine.run(timeout: limit)
        #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        switch payload.ending {
        case .exit: #expect(outcome.kind == "exited")
        case .crash: #expect(outcome.kind == "crashed")
        case .faultLoop: #expect(outcome.kind == "fault-loop")
        case .timeLimit: #expect(outcome.kind == "time-limit")
        }
    }

    /// If the backend lacks a feature that a guest needs, the machine is refused before it is built.
    @Test(arguments: Catalogue.all, BackendUnderTest.asked())
    func endsWithItsDocumentedStatus(_ payload: Payload, on backend: BackendUnderTest) throws {
        guard backend == .perVM, payload.needsPreservation else {
            return try expectEnd(of: payload, on: backend)
        }
        do {
            _ = try machine(payload, on: backend)
            Issue.record("built")
        } catch let error as MachineError {
            guard case .unsupported = error else { throw error }
        }
    }

    @Test(arguments: [2, 3, 7, 64], BackendUnderTest.asked(of: [.inPlace, .trap]))
    func severalRegionsAreOneRAM(regions: Int, on backend: BackendUnderTest) throws {
        for name in ["explicit", "implicit", "sweep"] {
            let console = Console(nil, keeps: true)
            let machine = try machine(
                try #require(Catalogue.named(name)), console, on: backend
            ) { $0.regions = regions }
            let outcome = machine.run(timeout: .seconds(600))
            #expect(outcome.exitStatus == 0, "\(name): \(outcome)\n\(console.text)")
        }
    }

    @Test(arguments: BackendUnderTest.asked(of: [.inPlace, .trap]))
    func sixteenVCPUsConvertAtTheSameTime(on backend: BackendUnderTest) throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(
            try #require(Catalogue.named("smp")), console, on: backend
        ) { $0.vcpus = 16 }
        let outcome = machine.run(timeout: .seconds(600))
        #expect(outcome.exitStatus == 0, "\(outcome)\n\(console.text)")
    }

    @Test(arguments: BackendUnderTest.asked(of: [.inPlace, .trap]))
    func stopFromAnotherThreadEndsAGuestWithoutExits(on backend: BackendUnderTest) throws {
        for vcpus in [1, 4] {
            let machine = try machine(try #require(Catalogue.named("hang")), on: backend) { $0.vcpus = vcpus }
            let threads = TrapThreads()
            let outcomes = Collected<Outcome>()
            threads.start { outcomes.add(machine.run(timeout: .seconds(600))) }
            machine.backend.sleep(for: .milliseconds(20))
            machine.stop(.interrupted(signal: 2))
            #expect(threads.join(seconds: 600))
            #expect(outcomes.all.map(\.exitStatus) == [130])
        }
    }
}
