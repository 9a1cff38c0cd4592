// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage
import Testing

@testable import Litmus

/// A real kernel's machine is used for the next test if the last one left nothing behind.
@Suite("Reuse of machines", .timeLimit(.minutes(120)))
struct ReuseTests {
    private static let head = "memory 2 pages shared\nmemory other 1 pages private\n"

    private func source(_ body: String, _ head: String = head) throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)" + body)
    }

    /// Checks everything that a test can leave behind.
    private static let look = """
        host check 0..1 0
        host present 0..1 => 2
        host read other:0 => SIGBUS
        host convert 0..1 private
        host read 0 => SIGBUS
        host convert other:0 shared
        host read other:0 => 0
        host hold other:0 as h
        host convert other:0 private => EAGAIN at 0
        host release h
        host bind slot 2 to ram:0 at 9 => EEXIST
        host unbind slot 2 => EINVAL
        host bind slot 0 to ram:0 at 9 => EINVAL
        host unbind slot 0
        host bind slot 2 to ram:0 at 0
        host create f 1 pages mmap
        host map 0 as v
        """

    private static let bodies = [
        "host fill 0..1 7\nhost convert 0..1 private",
        "host convert 1 private",
        "host convert other:0 shared\nhost write other:0 9",
        "host hold 0..1 as h",
        "host hold 1 as h\nhost punch 0..1",
        "host create f 2 pages mmap\nhost bind slot 5 to f:0..1 at 20",
        "host create f 1 pages mmap init_shared\nhost map f:0 as v\nhost write v:0 1\nhost close f",
        "host map 0..1 as v\nhost unmap v\nhost map 1 as w",
        "host unbind slot 0",
        "host unbind slot 0\nhost bind slot 0 to ram:1 at 8",
        "host unbind slot 1\nhost unbind slot 0\nhost bind slot 1 to ram:0..1 at 0",
        "host close other",
        "host close ram\nhost convert 0 private => EBADF",
        "host unbind slot 0\nhost unmap ram\nhost read 0 => SIGBUS",
        "host unbind slot 0\nhost mremap ram to 2 pages as w\nhost write w:1 5\nhost write 0 1 => SIGBUS",
        "host create f 1 pages mmap on second",
        "host allocate 0..1\nhost punch 0\nhost madvise 1 remove",
        "host madvise 0..1 populate_write\nhost madvise 0 dontneed",
    ]

    /// On a model whose calls are counted, nothing that a test can leave behind is visible to the next test.
    @Test(arguments: bodies) func nothingIsLeftForTheNextTest(_ body: String) throws {
        let backend = CountingBackend(SoftKVM())
        let runner = Runner(backend)
        #expect(runner.run(try source(body)) == .passed)
        for _ in 0..<3 { #expect(runner.run(try source(Self.look)) == .passed) }
        #expect(runner.contradicted == 0)
        // The machine, and a VM that the test itself creates.
        #expect(backend.machines == (body.contains("second") ? 2 : 1))
    }

    /// The same on this machine's KVM, with the adapter.
    @Test(.enabled(if: ParallelTests.real != nil, ParallelTests.noReal))
    func nothingIsLeftForTheNextTestOnKVM() throws {
        let runner = Runner(try #require(ParallelTests.real))
        let look = Self.look.split(separator: "\n").filter { !$0.contains("present") }.joined(separator: "\n")
        for body in Self.bodies {
            let first = runner.run(try source(body))
            if case .failed(let failure) = first { Issue.record("\(body): \(failure)") }
            #expect(runner.run(try source(look)) == .passed, "\(body)")
        }
        #expect(runner.contradicted == 0)
    }

    @Test(.enabled(if: ParallelTests.real != nil, ParallelTests.noReal))
    func vCPUsRunOnUsedMachines() throws {
        let backend = CountingBackend(try #require(ParallelTests.real))
        let runner = Runner(backend)
        for round in 0..<10 {
            let body = """
                vcpu0 read 0 => 0
                vcpu\(round % 3) write 1 7
                host read 1 => 7
                host convert 1 private
                """
            #expect(runner.run(try source(body)) == .passed)
        }
        #expect(runner.contradicted == 0 && backend.machines == 1)
    }

    /// KVM remembers MMIO pages, and an adapter keeps an access that has not completed.
    @Test(.enabled(if: ParallelTests.real != nil, ParallelTests.noReal))
    func anUnfinishedAccessDiscardsTheMachine() throws {
        let backend = CountingBackend(try #require(ParallelTests.real))
        let runner = Runner(backend)
        for round in 1...3 {
            #expect(runner.run(try source("host unbind slot 0\nvcpu0 read 0 => mmio")) == .passed)
            #expect(backend.machines == round)
        }
        #expect(runner.contradicted == 0)
    }

    /// A test without vCPUs gets a machine without the agent, which has its own memslot.
    @Test func machinesOfDifferentKindsAreKeptApart() throws {
        let backend = CountingBackend(SoftKVM())
        let runner = Runner(backend)
        for _ in 0..<3 {
            for head in ["memory 1 pages shared\n", "vm default\nmemory 1 pages shared\n"] {
                #expect(runner.run(try source("host read 0 => 0", head)) == .passed)
            }
        }
        #expect(backend.machines == 2)
    }

    /// If there are enough machines of a kind, one of them gets other files.
    @Test func newMemoryIsCreatedOnTheSameVM() throws {
        let backend = CountingBackend(SoftKVM())
        let runner = Runner(backend)
        for _ in 0..<2 {
            for pages in 1...15 {
                let body = "host check 0..\(pages - 1) 0\nhost fill 0..\(pages - 1) 5\nhost convert 0 private"
                #expect(runner.run(try source(body, "memory \(pages) pages shared\n")) == .passed)
            }
        }
        #expect(backend.machines <= 4)
        #expect(runner.contradicted == 0)
    }

    /// A machine is discarded if something cannot be reverted, or is not verifiably reverted.
    @Test(arguments: CountingBackend.Flaw.allCases) func aMachineWithLeftoversIsNotUsed(
        _ flaw: CountingBackend.Flaw
    ) throws {
        let backend = CountingBackend(SoftKVM(), flaw)
        let runner = Runner(backend)
        for round in 1...4 {
            #expect(runner.run(try source("host fill 0..1 7\nhost convert 1 private")) == .passed)
            #expect(backend.machines == round)
        }
        #expect(runner.contradicted == 0)
    }

    @Test func aMachineOfAFailedTestIsNotUsed() throws {
        let backend = CountingBackend(SoftKVM())
        let runner = Runner(backend)
        for round in 1...3 {
            guard case .failed = runner.run(try source("host read 0 => 9")) else {
                Issue.record("passed")
                return
            }
            #expect(backend.machines == round)
        }
    }

    /// A failure seen only on a used machine does not count. It is recorded, and then every test gets a new machine.
    @Test func failuresAreConfirmedOnANewMachine() throws {
        let backend = CountingBackend(SoftKVM(), .tires)
        let runner = Runner(backend)
        let test = try source("host convert 0 private\nhost convert 0 shared")
        for _ in 0..<40 { #expect(runner.run(test) == .passed) }
        #expect(runner.contradicted == 1)
        #expect(runner.firstContradiction?.seen.contains { $0.contains("EBUSY") } == true)
        #expect(runner.firstContradiction?.before?.test == test.test)
        #expect(backend.machines > 30)
    }
}

/// Counts VMs, and can be made unable to revert things.
final class CountingBackend: ForwardingBackend, @unchecked Sendable {
    enum Flaw: CaseIterable {
        /// Punching a hole removes no page.
        case punchDoesNothing
        /// No page becomes shared again, without an error.
        case staysPrivate
        /// A converted page cannot be shared again.
        case refusesToShare
        /// A file fails after a number of conversions.
        case tires

        static let allCases: [Flaw] = [.punchDoesNothing, .staysPrivate, .refusesToShare]
    }
    private let flaw: Flaw?
    private let created = Atomic<Int>(0)
    var machines: Int { created.load(ordering: .relaxed) }

    init(_ base: any Backend, _ flaw: Flaw? = nil) {
        self.flaw = flaw
        super.init(base)
    }

    override func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        created.add(1, ordering: .relaxed)
        return CountingVM(try base.createVM(type, sharedBit: sharedBit), flaw)
    }
}

private final class CountingVM: ForwardingVM, @unchecked Sendable {
    private let flaw: CountingBackend.Flaw?

    init(_ base: any KVMVirtualMachine, _ flaw: CountingBackend.Flaw?) {
        self.flaw = flaw
        super.init(base)
    }

    override func createGuestMemfd(
        size: UInt64, flags: GuestMemfdFlags
    ) throws(Errno) -> any KVMGuestMemfd {
        let file = try base.createGuestMemfd(size: size, flags: flags)
        return flaw.map { FlawedFile(file, $0) } ?? file
    }
}

private final class FlawedFile: KVMGuestMemfd {
    private let base: any KVMGuestMemfd
    private let flaw: CountingBackend.Flaw
    private let conversions = Atomic<Int>(0)

    init(_ base: any KVMGuestMemfd, _ flaw: CountingBackend.Flaw) {
        self.base = base
        self.flaw = flaw
    }

    var descriptor: Int32 { base.descriptor }
    var size: UInt64 { base.size }
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let toShared = request.attributes == 0
        let count = conversions.add(1, ordering: .relaxed).newValue
        switch flaw {
        case .staysPrivate where toShared: return
        case .refusesToShare where toShared: throw .resourceBusy
        case .tires where count > 18: throw .resourceBusy
        default: try base.setMemoryAttributes2(&request)
        }
    }
    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try base.map(offset: offset, length: length)
    }
    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        if punchHole, flaw == .punchDoesNothing { return }
        try base.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}
