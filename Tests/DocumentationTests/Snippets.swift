// SPDX-License-Identifier: MIT
import CKVMShim
import Exercises
import Foundation
import GuestPayloads
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage
import Testing

private let hasCPU = if case .available = SoftKVM().engineStatus { true } else { false }

/// The Swift of the articles, compiled and run: ``DocumentationTests`` compares the articles with this file.
@Suite("Snippets of the articles", .enabled(if: hasCPU, "needs the Unicorn engine"))
struct Snippets {
    private func hello() throws -> [UInt8] { try #require(Catalogue.named("hello")).image }

    @Test func overview() throws {
        let image = try hello()
        let machine = try Machine(
            backend: SoftKVM(), configuration: MachineConfiguration(), image: .flat(image),
            console: Console(nil))
        let outcome = machine.run(timeout: .seconds(60))
        #expect(outcome.exitStatus == 0)
    }

    @Test func aMachineAndAConversion() throws {
        let image = try hello()
        let configuration = MachineConfiguration()
        let console = Console(nil, keeps: true)
        let machine = try Machine(
            backend: SoftKVM(), configuration: configuration, image: .flat(image), console: console)
        let outcome = machine.run(timeout: .seconds(60))
        guard case .exited(0) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(!console.text.isEmpty)
        let page = try #require(PageRange(start: machine.layout.free.lowerBound, size: pageSize))
        try machine.converter.convert(.init(range: page, to: .shared, contents: .preserve), by: .monitor)
        try machine.memory.writeWord(gpa: page.start, 42)
        try machine.converter.convert(.init(range: page, to: .private, contents: .preserve), by: .monitor)
        #expect(throws: HostAccessError.self) { try machine.memory.readWord(gpa: page.start) }
    }

    @Test func aTraceAndARetryPolicy() throws {
        let image = try hello()
        let path = FilePath("/tmp/minivmm-snippet-\(UInt64.random(in: 0 ... .max)).jsonl")
        let file = try FileDescriptor.open(
            path, .readWrite, options: [.create, .exclusiveCreate], permissions: .ownerReadWrite)
        defer {
            try? file.close()
            try? FileManager.default.removeItem(atPath: path.string)
        }
        let backend = SoftKVM()
        var configuration = MachineConfiguration()
        configuration.retry = RetryPolicy(attempts: 3, deadline: .milliseconds(100), inUse: .bisect)
        let trace = Trace(backend: backend, sinks: [JSONLinesTrace(file)])
        let machine = try Machine(
            backend: backend, configuration: configuration, image: .flat(image), console: Console(nil),
            trace: trace)
        #expect(machine.run(timeout: .seconds(60)).exitStatus == 0)
        let lines = try String(contentsOfFile: path.string, encoding: .utf8)
        #expect(lines.contains("\"schema\":\"minivmm.trace/1\"") && lines.contains("\"event\":\"stop\""))
    }

    @Test func aBackendThatCounts() throws {
        let backend = CountingBackend(SoftKVM())
        let payload = try #require(Catalogue.named("explicit"))
        let machine = try Machine(
            backend: backend, configuration: payload.machineConfiguration, image: .flat(payload.image),
            console: Console(nil))
        #expect(machine.run(timeout: .seconds(60)).exitStatus == 0)
        #expect(backend.calls.load(ordering: .relaxed) > 3)
    }
}

final class CountingBackend: Backend {
    let base: any Backend
    let calls = Atomic<Int>(0)

    init(_ base: any Backend) { self.base = base }

    var identity: BackendIdentity {
        BackendIdentity(name: "CountingBackend", host: base.identity.description, kind: base.identity.kind)
    }
    var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    func now() -> UInt64 { base.now() }
    func sleep(for duration: Duration) { base.sleep(for: duration) }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }
    func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        CountingVM(try base.createVM(type, sharedBit: sharedBit), self)
    }
}

private final class CountingVM: KVMVirtualMachine {
    let base: any KVMVirtualMachine
    let backend: CountingBackend

    init(_ base: any KVMVirtualMachine, _ backend: CountingBackend) {
        self.base = base
        self.backend = backend
    }

    var contentPromise: ContentPromise { base.contentPromise }
    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }
    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }
    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        CountingFile(try base.createGuestMemfd(size: size, flags: flags), backend)
    }
    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try base.setUserMemoryRegion2(region)
    }
    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU { try base.createVCPU(id: id) }
}

private final class CountingFile: KVMGuestMemfd {
    let base: any KVMGuestMemfd
    let backend: CountingBackend

    init(_ base: any KVMGuestMemfd, _ backend: CountingBackend) {
        self.base = base
        self.backend = backend
    }

    var descriptor: Int32 { base.descriptor }
    var size: UInt64 { base.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        backend.calls.add(1, ordering: .relaxed)
        try base.setMemoryAttributes2(&request)
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try base.map(offset: offset, length: length)
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try base.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}

/// The converter of docs/exercises.md.
@Suite("Snippets of the exercises")
struct ExerciseSnippets {
    @Test func aConverter() {
        func convert(_ request: MonitorTrial.Request, _ kernel: inout MonitorTrial.Kernel) {
            for memory in kernel.memories {
                var next = max(memory.lowerBound, request.pages.lowerBound)
                let end = min(memory.upperBound, request.pages.upperBound)
                while next < end {
                    // Leaves the loop if the call has succeeded, or has failed with another errno.
                    guard
                        case .inUse(let page) = kernel.convert(
                            next..<end, to: request.target, preserving: true)
                    else { break }
                    // The pages before that one are not in use.
                    if page > next { _ = kernel.convert(next..<page, to: request.target, preserving: true) }
                    next = page + 1
                }
            }
        }
        let result = MonitorTrial(seed: 42).check(convert)
        #expect(result.isRight, "\(result.refutation)")
    }
}
