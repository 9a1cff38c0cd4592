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
        on backend: BackendUnderTest = .trap, events: (any TraceSink)? = nil,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws -> Machine {
        var configuration = payload.machineConfiguration
        configuration.hypercallInstruction = backend.hypercallInstruction
        change(&configuration)
        let backend = try backend.required(aliases: configuration.aliases)
        return try Machine(
            backend: backend, configuration: configuration, image: try .flat(payload.image), console: console,
            trace: events.map { Trace(backend: backend, sinks: [$0]) })
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
        let isRefused =
            backend == .perVM && payload.needsPreservation
            || payload.vmType.isConfidential
                && ![.software, .trapOverSoftware, .aliasesOverSoftware].contains(backend)
        guard isRefused else {
            return try expectEnd(of: payload, on: backend)
        }
        do {
            _ = try machine(payload, on: backend)
            Issue.record("built")
        } catch let error as MachineError {
            guard case .unsupported = error else { throw error }
        }
    }

    /// A guest of an SNP or TDX VM with an honest or a hostile host, its status, and a part of what it says.
    struct Pair: Sendable, CustomTestStringConvertible {
        let name: String
        let type: VMType
        var host: Set<HostBehaviour> = []
        var onFault = FaultPolicy.refuse
        var raisesVE = false
        let status: Int32
        let says: String
        var testDescription: String { "\(name) on \(type), \(host) \(onFault)" }
    }

    static let pairs: [Pair] = [
        Pair(name: "discover", type: .snp, status: 0, says: "SEV_STATUS 0x7, CPUID raises #VC 0x72"),
        Pair(name: "discover", type: .tdx, status: 0, says: "addresses of 0x30 bits"),
        Pair(name: "first-touch", type: .snp, status: 0, says: "exception, code 0x404 at 0x200000"),
        Pair(name: "first-touch", type: .tdx, status: 126, says: "before taking it: "),
        Pair(name: "take-then-use", type: .snp, status: 0, says: "taken: the guest reads 0x"),
        Pair(name: "take-then-use", type: .tdx, status: 0, says: "taken: the guest reads 0x0\n"),
        Pair(
            name: "take-twice", type: .snp, status: 0,
            says: "answer 0x0, carry 0x1; the page still holds 0x4242"),
        Pair(name: "take-twice", type: .tdx, status: 0, says: "answer 0xb0a00000000, carry 0x0"),
        Pair(name: "shared-buffer", type: .snp, status: 0, says: "cannot read the private page: EFAULT"),
        Pair(name: "shared-buffer", type: .tdx, status: 0, says: "cannot read the private page: EFAULT"),
        Pair(name: "shared-buffer", type: .snp, host: [.lie], status: 126, says: ""),
        Pair(name: "leaked-secret", type: .snp, status: 0, says: "the host reads 0x"),
        Pair(name: "leaked-secret", type: .tdx, status: 0, says: "the host reads 0x0\n"),
        Pair(name: "wrong-alias", type: .snp, status: 126, says: "through the shared alias"),
        Pair(name: "wrong-alias", type: .snp, onFault: .convert, status: 1, says: "data is gone"),
        Pair(name: "wrong-alias", type: .tdx, onFault: .convert, status: 1, says: "data is gone"),
        Pair(
            name: "kexec", type: .snp, onFault: .convert, status: 3, says: "unexpected #VC, error code 0x404"),
        Pair(name: "kexec", type: .tdx, onFault: .convert, status: 126, says: "still shared"),
        Pair(
            name: "double-validation", type: .snp, host: [.swapPages], status: 2,
            says: "wrote 2, and reads 0x1"),
        Pair(name: "double-validation", type: .snp, host: [.takePages], status: 3, says: "unexpected #VC"),
        Pair(
            name: "double-validation", type: .tdx, host: [.swapPages], status: 126, says: "reading the page: "
        ),
        Pair(name: "record", type: .snp, host: [.swapPages], status: 126, says: "is not valid: terminating"),
        Pair(name: "record", type: .snp, host: [.takePages], status: 126, says: "is not valid: terminating"),
        Pair(name: "record", type: .snp, status: 0, says: "still there"),
        Pair(
            name: "partial", type: .snp, host: [.refuse], status: 0,
            says: "answer 0x10000000000, to go on from 0x0;"),
        Pair(
            name: "partial", type: .tdx, host: [.refuse], status: 0,
            says: "answer 0x8000000000000000, to go on from 0x800000200000;"),
        Pair(
            name: "shrunk-list", type: .snp, host: [.shrinkList], status: 0,
            says: "cur_entry 0x1, end_entry 0x0\nby the guest's own count: 0x10 pages after 0x10 requests"),
        Pair(
            name: "shrunk-list", type: .snp, status: 0,
            says: "cur_entry 0x10, end_entry 0xf\nby the guest's own count: 0x10 pages after 0x1 requests"),
        Pair(name: "shrunk-list", type: .tdx, status: 0, says: "no list"),
        Pair(
            name: "lazy-accept", type: .tdx, raisesVE: true, status: 0,
            says: "0x40 pages touched, 0x40 accepted by the handler of #VE"),
        Pair(name: "lazy-accept", type: .tdx, status: 126, says: ""),
        Pair(name: "lazy-accept", type: .snp, status: 0, says: "an SNP guest"),
        Pair(
            name: "first-touch", type: .tdx, raisesVE: true, status: 0,
            says: "exception, code 0x30 at 0x200000"),
        Pair(name: "partial", type: .snp, host: [.wrongRet], status: 125, says: ""),
        Pair(name: "partial", type: .tdx, host: [.wrongRet], status: 125, says: ""),
        Pair(name: "thousand", type: .snp, status: 0, says: "1000 pages"),
        Pair(name: "thousand", type: .tdx, status: 0, says: "1000 pages"),
    ]

    /// The same guest on both architectures, and with a host that means ill.
    @Test(arguments: pairs) func guestsOfSNPAndTDX(_ pair: Pair) throws {
        let console = Console(nil, keeps: true)
        let machine = try machine(#require(Catalogue.named(pair.name)), console, on: .software) {
            $0.setType(pair.type)
            $0.host = pair.host
            $0.faultPolicy = pair.onFault
            $0.raisesVE = pair.raisesVE
        }
        let outcome = machine.run(timeout: .seconds(600))
        #expect(
            outcome.exitStatus == pair.status && (pair.says.isEmpty || console.text.contains(pair.says)),
            "\(outcome)\n\(console.text)")
    }

    /// The states in the trace of the first page of free RAM, which guests use.
    @Test(
        arguments: [
            ("first-touch", .snp, [], ["unassigned", "unvalidated", "taken"]),
            ("first-touch", .tdx, [], ["unassigned", "pending", "taken"]),
            ("take-then-use", .tdx, [], ["unassigned", "unassigned", "pending", "taken"]),
            (
                "double-validation", .snp, [.takePages],
                // The guest calls twice, and validates the page again in between.
                [
                    "unassigned", "unvalidated", "taken", "unassigned", "unvalidated", "taken", "unassigned",
                    "unvalidated",
                ]
            ),
        ] as [(String, VMType, Set<HostBehaviour>, [String])])
    func theTraceHasWhatTheGuestDoesToItsPages(
        _ name: String, _ type: VMType, _ host: Set<HostBehaviour>, _ expected: [String]
    ) throws {
        let events = GuestPageList()
        let machine = try machine(#require(Catalogue.named(name)), on: .software, events: events) {
            $0.setType(type)
            $0.host = host
            $0.raisesVE = name == "first-touch" && type == .tdx
        }
        _ = machine.run(timeout: .seconds(600))
        let first = machine.layout.free.lowerBound
        #expect(events.all.filter { $0.range.contains(first) }.map(\.state.rawValue) == expected)
    }

    /// A trace that keeps how far the guest has taken its pages.
    private final class GuestPageList: TraceSink {
        private let pages = Collected<GuestPages>()
        var all: [GuestPages] { pages.all }
        func begin(backend: BackendIdentity, time: UInt64) {}
        func flush() {}
        func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
            if case .guestPages(let range, let state) = event {
                pages.add(GuestPages(range: range, state: state))
            }
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
