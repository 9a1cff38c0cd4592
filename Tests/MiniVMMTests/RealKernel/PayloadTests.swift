import GuestPayloads
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// A kernel that the payloads run on.
enum KernelUnderTest: String, CaseIterable, Sendable {
    /// This machine's /dev/kvm, with memslots carved.
    case trap
    /// KVM in user space.
    case software
    /// The memslot adapter over a default VM of the software kernel: the same carving, deterministic.
    case trapOverSoftware
    /// Two doors made of memslots over a software kernel that converts by itself.
    case doorsOverSoftware

    /// Why it cannot be had here; nil if it can.
    var absence: Comment? {
        switch self {
        case .trap: return TrapHost.canTrap ? nil : TrapHost.reason
        case .software, .trapOverSoftware, .doorsOverSoftware:
            if case .missing(let message) = SoftKVM().engineStatus { return Comment(rawValue: message) }
            return nil
        }
    }

    func open() throws -> any KVMInterface {
        switch self {
        case .trap: MemslotTrapKVM(over: try #require(TrapHost.kvm))
        case .software: SoftKVM()
        case .trapOverSoftware: MemslotTrapKVM(over: SoftKVM())
        case .doorsOverSoftware: MemslotTrapKVM(doorsOver: SoftKVM())
        }
    }

    /// VMMCALL returns and reaches the monitor.
    var hypercallInstruction: Bool { self == .software || self == .doorsOverSoftware }
}

/// The catalogue's guests: one body, every kernel at hand.
@Suite("Payloads", .serialized)
struct PayloadTests {
    private func machine(
        _ payload: Payload, _ console: Console = Console(nil, keeps: true),
        on kernel: KernelUnderTest = .trap,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> Machine {
        var configuration = MachineConfiguration()
        configuration.ramSize = payload.ramSize
        configuration.vcpus = payload.vcpus
        configuration.doors = payload.doors
        configuration.faultPolicy = payload.faultPolicy
        configuration.hypercallInstruction = kernel.hypercallInstruction
        change(&configuration)
        return try Machine(
            kernel: kernel.open(), configuration: configuration, image: try .flat(payload.image),
            console: console)
    }

    private func endsAsTheCatalogueSays(_ payload: Payload, on kernel: KernelUnderTest) throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(payload, console, on: kernel)
        let limit: UInt64 = payload.ending == .timeLimit ? 200_000_000 : 60_000_000_000
        let outcome = machine.run(timeout: limit)
        #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        switch payload.ending {
        case .exit: #expect(outcome.kind == "exited")
        case .crash: #expect(outcome.kind == "crashed")
        case .faultLoop: #expect(outcome.kind == "fault-loop")
        case .timeLimit: #expect(outcome.kind == "time-limit")
        }
    }

    private static let trap = ConditionTrait.enabled(
        if: KernelUnderTest.trap.absence == nil, KernelUnderTest.trap.absence ?? "")
    private static let software = ConditionTrait.enabled(
        if: KernelUnderTest.software.absence == nil, KernelUnderTest.software.absence ?? "")

    @Test(trap, arguments: Catalogue.all) func onThisMachinesKVM(_ payload: Payload) throws {
        try endsAsTheCatalogueSays(payload, on: .trap)
    }

    @Test(software, arguments: Catalogue.all) func onTheSoftwareKernel(_ payload: Payload) throws {
        try endsAsTheCatalogueSays(payload, on: .software)
    }

    @Test(software, arguments: Catalogue.all) func onMemslotsOverTheSoftwareKernel(_ payload: Payload) throws
    {
        try endsAsTheCatalogueSays(payload, on: .trapOverSoftware)
    }

    @Test(software, arguments: Catalogue.all) func onDoorsOverTheSoftwareKernel(_ payload: Payload) throws {
        try endsAsTheCatalogueSays(payload, on: .doorsOverSoftware)
    }

    @Test(trap, arguments: [2, 3, 7, 64]) func severalRegionsAreOneRAM(regions: Int) throws {
        for name in ["explicit", "implicit", "sweep"] {
            let console = Console(nil, keeps: true)
            let machine = try machine(try #require(Catalogue.named(name)), console) { $0.regions = regions }
            let outcome = machine.run(timeout: 30_000_000_000)
            #expect(outcome.exitStatus == 0, "\(name): \(outcome)\n\(console.text)")
        }
    }

    @Test(trap) func sixteenVCPUsConvertAtTheSameTime() throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(try #require(Catalogue.named("smp")), console) { $0.vcpus = 16 }
        let outcome = machine.run(timeout: 60_000_000_000)
        #expect(outcome.exitStatus == 0, "\(outcome)\n\(console.text)")
    }

    @Test(trap) func stopFromAnotherThreadEndsAGuestThatNeverLeaves() throws {
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
