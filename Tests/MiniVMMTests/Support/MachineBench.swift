// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

@testable import MiniVMM

/// A machine on a fake backend whose vCPUs play scripts.
final class MachineBench {
    let backend: FakeBackend
    let machine: Machine
    let console: Console
    let events = EventList()

    init(
        _ backend: FakeBackend = FakeBackend(), image: BootImage? = nil,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws {
        self.backend = backend
        var configuration = MachineConfiguration()
        configuration.ramSize = 4 << 20
        change(&configuration)
        console = Console(nil, keeps: true)
        machine = try Machine(
            backend: backend, configuration: configuration, image: try image ?? .flat([0xf4]),
            console: console,
            trace: Trace(backend: backend, sinks: [events]))
    }

    var vcpu: FakeVCPU { backend.vm.vcpus[0] }
    var file: FakeFile { backend.vm.files[0] }

    /// Runs the script to its end, with a time limit so that a bug is a failure and not a hang.
    func run() -> Outcome { machine.run(timeout: .seconds(600)) }
}

/// A trace that keeps the names of its events, and the verdicts of memory faults.
final class EventList: TraceSink {
    private let names = Collected<String>()
    var all: [String] { names.all }
    func begin(backend: BackendIdentity, time: UInt64) {}
    func flush() {}
    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        var fields = Fields()
        event.describe(to: &fields)
        names.add(fields.text)
    }

    private struct Fields: TraceFields {
        var text = ""
        mutating func begin(_ name: EventName) { text = name.spelling.description }
        mutating func number(_ key: EventKey, _ value: UInt64) {}
        mutating func signed(_ key: EventKey, _ value: Int64) {}
        mutating func flag(_ key: EventKey, _ value: Bool) {}
        mutating func text(_ key: EventKey, _ value: String) {
            if key == .verdict { text += " " + value }
        }
    }
}
