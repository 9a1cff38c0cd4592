import GuestPayloads
import SystemPackage
import Testing

@testable import MiniVMM

/// The catalogue's guests on the kernel of this machine, by memslots, which work on any /dev/kvm.
@Suite("Payloads on this machine's KVM", .enabled(if: TrapHost.canTrap, TrapHost.reason), .serialized)
struct PayloadTests {
    private func machine(
        _ payload: Payload, _ console: Console = Console(nil, keeps: true),
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> Machine {
        var configuration = MachineConfiguration()
        configuration.ramSize = payload.ramSize
        configuration.vcpus = payload.vcpus
        configuration.doors = payload.doors
        configuration.faultPolicy = payload.faultPolicy
        change(&configuration)
        return try Machine(
            kernel: MemslotTrapKVM(over: try #require(TrapHost.kvm)), configuration: configuration,
            image: try .flat(payload.image), console: console)
    }

    @Test(arguments: Catalogue.all) func endsAsTheCatalogueSays(_ payload: Payload) throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(payload, console)
        let limit: UInt64 = payload.ending == .timeLimit ? 200_000_000 : 30_000_000_000
        let outcome = machine.run(timeout: limit)
        #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        switch payload.ending {
        case .exit: #expect(outcome.kind == "exited")
        case .crash: #expect(outcome.kind == "crashed")
        case .faultLoop: #expect(outcome.kind == "fault-loop")
        case .timeLimit: #expect(outcome.kind == "time-limit")
        }
    }

    @Test(arguments: [2, 3, 7, 64]) func severalRegionsAreOneRAM(regions: Int) throws {
        for name in ["explicit", "implicit", "sweep"] {
            let console = Console(nil, keeps: true)
            let machine = try machine(try #require(Catalogue.named(name)), console) { $0.regions = regions }
            let outcome = machine.run(timeout: 30_000_000_000)
            #expect(outcome.exitStatus == 0, "\(name): \(outcome)\n\(console.text)")
        }
    }

    @Test func sixteenVCPUsConvertAtTheSameTime() throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(try #require(Catalogue.named("smp")), console) { $0.vcpus = 16 }
        let outcome = machine.run(timeout: 60_000_000_000)
        #expect(outcome.exitStatus == 0, "\(outcome)\n\(console.text)")
    }

    @Test func stopFromAnotherThreadEndsAGuestThatNeverLeaves() throws {
        for vcpus in [1, 4] {
            let machine = try machine(try #require(Catalogue.named("hang"))) { $0.vcpus = vcpus }
            let threads = TrapThreads()
            let outcomes = Collected<Outcome>()
            threads.start { outcomes.add(machine.run(timeout: 20_000_000_000)) }
            machine.kernel.sleep(nanoseconds: 20_000_000)
            machine.stop(.interrupted(signal: 2))
            #expect(threads.join(seconds: 30))
            #expect(outcomes.all.map(\.exitStatus) == [130])
        }
    }
}
