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
    /// This machine's /dev/kvm with its per-VM attributes.
    case perVM

    /// Why it cannot be had here; nil if it can.
    var absence: Comment? {
        switch self {
        case .trap: return TrapHost.canTrap ? nil : TrapHost.reason
        case .software, .trapOverSoftware:
            if case .missing(let message) = SoftKVM().engineStatus { return Comment(rawValue: message) }
            return nil
        case .perVM:
            guard let kvm = TrapHost.kvm else { return "needs /dev/kvm" }
            return KernelProbe(PerVMAttributesKVM(over: kvm)).conversionFailure().map {
                "needs a /dev/kvm with per-VM attributes (Linux 6.8 to 7.3, KVM_SW_PROTECTED_VM); here \($0.call) is \($0.errno.name)"
            }
        }
    }

    func open() throws -> any KVMInterface {
        switch self {
        case .trap: MemslotTrapKVM(over: try #require(TrapHost.kvm))
        case .software: SoftKVM()
        case .trapOverSoftware: MemslotTrapKVM(over: SoftKVM())
        case .perVM: PerVMAttributesKVM(over: try #require(TrapHost.kvm))
        }
    }

    /// VMMCALL returns and reaches the monitor.
    var hypercallInstruction: Bool { self == .software }
}

/// The catalogue's guests: one body, every kernel at hand.
@Suite("Payloads", .serialized)
struct PayloadTests {
    private func machine(
        _ payload: Payload, _ console: Console = Console(nil, keeps: true),
        on kernel: KernelUnderTest = .trap,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> Machine {
        var configuration = payload.machineConfiguration
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

    private static let perVM = ConditionTrait.enabled(
        if: KernelUnderTest.perVM.absence == nil, KernelUnderTest.perVM.absence ?? "")

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

    /// Those that need one door and nothing preserved run; the others are refused before they are built.
    @Test(perVM, arguments: Catalogue.all) func onPerVMAttributes(_ payload: Payload) throws {
        guard payload.doors == .two || payload.needsPreservation else {
            return try endsAsTheCatalogueSays(payload, on: .perVM)
        }
        do {
            _ = try machine(payload, on: .perVM)
            Issue.record("built")
        } catch let error as MachineError {
            guard case .unsupported = error else { throw error }
        }
    }

    /// A kernel whose conversions scramble contents, or lose them.
    @Test(software, arguments: [ContentPromise.undefined, .lost], Catalogue.all)
    func whereContentsAreNotPreserved(promise: ContentPromise, payload: Payload) throws {
        let console = Console(nil, keeps: true)
        do {
            let machine = try Machine(
                kernel: SoftKVM(.init(seed: 3, contentPromise: promise)),
                configuration: payload.machineConfiguration, image: try .flat(payload.image),
                console: console)
            #expect(!payload.needsPreservation)
            let outcome = machine.run(
                timeout: payload.ending == .timeLimit ? 200_000_000 : 60_000_000_000)
            #expect(outcome.exitStatus == Int32(payload.ending.exitStatus), "\(outcome)\n\(console.text)")
        } catch let error as MachineError {
            guard case .unsupported(let why) = error else { throw error }
            #expect(payload.needsPreservation && why.contains("does not preserve contents"))
        }
    }

    /// What a guest does through both doors does not depend on where its RAM lies, nor on how it is mapped.
    @Test(software, arguments: [4 << 20, 64 << 20, 5 << 30] as [UInt64], [1, 16])
    func twoDoorsWithoutPreservationOnMachinesOfAllSizes(ram: UInt64, vcpus: Int) throws {
        for promise in [ContentPromise.undefined, .lost] {
            let payload = try #require(Catalogue.named("forget"))
            var configuration = payload.machineConfiguration
            configuration.ramSize = ram
            configuration.vcpus = vcpus
            let console = Console(nil, keeps: true)
            let machine = try Machine(
                kernel: SoftKVM(.init(contentPromise: promise)), configuration: configuration,
                image: try .flat(payload.image), console: console)
            let outcome = machine.run(timeout: 60_000_000_000)
            #expect(outcome.exitStatus == 0, "\(outcome)\n\(console.text)")
        }
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
