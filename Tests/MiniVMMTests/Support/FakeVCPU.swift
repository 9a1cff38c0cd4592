// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

@testable import MiniVMM

/// A vCPU whose every entry is the next step of a script, using a real `kvm_run` page. The end of the script
/// is HLT.
final class FakeVCPU: KVMVCPU {
    typealias Step = @Sendable (FakeVCPU) throws(Errno) -> Void

    let id: Int
    let runPage: RunPage
    private let memory: PageMemory
    private let state = Mutex(State())

    private struct State {
        var script: [Step] = []
        /// Repeated forever once the script has ended.
        var loop: Step?
        var registers = ckvm_regs()
        var special = ckvm_sregs()
        var entries = 0
        var refusesRegisters = false
        var refusesNewRegisters = false
    }

    /// The offset of the data of port accesses: after the struct, in the next page.
    static let dataOffset = 4096
    static let length = 8192

    @safe private struct PageMemory: ~Copyable, @unchecked Sendable {
        let pointer: UnsafeMutableRawPointer
        init() {
            unsafe pointer = .allocate(byteCount: FakeVCPU.length, alignment: 4096)
            unsafe pointer.initializeMemory(as: UInt8.self, repeating: 0, count: FakeVCPU.length)
        }
        deinit { unsafe pointer.deallocate() }
    }

    init(id: Int) {
        self.id = id
        memory = PageMemory()
        runPage = unsafe RunPage(
            memory.pointer.bindMemory(to: ckvm_run.self, capacity: 1), length: Self.length)
    }

    var entries: Int { state.withLock { $0.entries } }
    func then(_ step: @escaping Step) { state.withLock { $0.script.append(step) } }
    func forEver(_ step: @escaping Step) { state.withLock { $0.loop = step } }
    func refuseRegisters() { state.withLock { $0.refusesRegisters = true } }
    func refuseNewRegisters() { state.withLock { $0.refusesNewRegisters = true } }
    func change(_ body: (inout ckvm_regs) -> Void) { state.withLock { body(&$0.registers) } }

    func run() throws(Errno) {
        runPage.exitReason = CKVM_EXIT_UNKNOWN
        if runPage.immediateExit { throw .interrupted }
        let step = state.withLock { state -> Step? in
            state.entries += 1
            return state.script.isEmpty ? state.loop : state.script.removeFirst()
        }
        guard let step else {
            runPage.exitReason = CKVM_EXIT_HLT
            return
        }
        try step(self)
    }

    func kick() { runPage.setImmediateExit() }
    func registers() throws(Errno) -> ckvm_regs {
        let (registers, refuses) = state.withLock { ($0.registers, $0.refusesRegisters) }
        if refuses { throw .ioError }
        return registers
    }
    func setRegisters(_ registers: ckvm_regs) throws(Errno) {
        if state.withLock({ $0.refusesNewRegisters }) { throw .ioError }
        state.withLock { $0.registers = registers }
    }
    func specialRegisters() throws(Errno) -> ckvm_sregs { state.withLock { $0.special } }
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        state.withLock { $0.special = registers }
    }
    func setCPUID(_ table: CPUIDTable) throws(Errno) {}
}

// MARK: exits

extension FakeVCPU {
    /// Exits with this reason and nothing else.
    func exit(_ reason: UInt32) { then { $0.runPage.exitReason = reason } }

    /// `OUT`; more bytes than `size` are a string OUT.
    func out(_ port: UInt16, _ bytes: [UInt8], size: UInt8 = 1) {
        then { $0.io(CKVM_EXIT_IO_OUT, port, size, bytes) }
    }

    /// `IN`; the next step passes on the monitor's answer.
    func input(
        _ port: UInt16, size: UInt8 = 1, count: UInt32 = 1, _ seen: @escaping @Sendable ([UInt8]) -> Void
    ) {
        then { $0.io(CKVM_EXIT_IO_IN, port, size, [UInt8](repeating: 0xaa, count: Int(size) * Int(count))) }
        then { vcpu in
            let io = vcpu.runPage.io
            seen(unsafe vcpu.runPage.withIOData(io) { unsafe Array($0) } ?? [])
            vcpu.runPage.exitReason = CKVM_EXIT_INTR
        }
    }

    fileprivate func io(_ direction: UInt8, _ port: UInt16, _ size: UInt8, _ bytes: [UInt8]) {
        var io = ckvm_run_io()
        io.direction = direction
        io.size = size
        io.port = port
        io.count = UInt32(bytes.count / max(1, Int(size)))
        io.data_offset = UInt64(Self.dataOffset)
        runPage.io = io
        runPage.exitReason = CKVM_EXIT_IO
        _ = unsafe runPage.withIOData(io) { unsafe $0.copyBytes(from: bytes.prefix($0.count)) }
    }

    /// An exit for port I/O, with exactly these fields.
    func raw(_ io: ckvm_run_io) {
        then { vcpu in
            vcpu.runPage.io = io
            vcpu.runPage.exitReason = CKVM_EXIT_IO
        }
    }

    /// `KVM_EXIT_MEMORY_FAULT`, with the errno of `KVM_RUN`.
    static func fault(
        _ gpa: UInt64, flags: UInt64, size: UInt64 = pageSize, _ errno: Errno = .badAddress
    ) -> Step {
        { vcpu throws(Errno) in
            var fault = ckvm_run_memory_fault()
            fault.gpa = gpa
            fault.size = size
            fault.flags = flags
            vcpu.runPage.memoryFault = fault
            vcpu.runPage.exitReason = CKVM_EXIT_MEMORY_FAULT
            throw errno
        }
    }

    /// A call through the port with the registers of a hypercall; the answer is (RAX, RCX).
    func call(
        _ number: UInt64, _ a0: UInt64 = 0, _ a1: UInt64 = 0, _ a2: UInt64 = 0,
        _ seen: @escaping @Sendable (Int64, UInt64) -> Void = { _, _ in }
    ) {
        then { vcpu in
            vcpu.change { registers in
                registers.rax = number
                registers.rbx = a0
                registers.rcx = a1
                registers.rdx = a2
            }
            vcpu.io(CKVM_EXIT_IO_OUT, 0xe8, 4, [0, 0, 0, 0])
        }
        then { vcpu throws(Errno) in
            let registers = try vcpu.registers()
            seen(Int64(bitPattern: registers.rax), registers.rcx)
            vcpu.runPage.exitReason = CKVM_EXIT_INTR
        }
    }
}

/// Collects values from other threads.
final class Collected<Element: Sendable>: Sendable {
    private let elements = Mutex<[Element]>([])
    func add(_ element: Element) { elements.withLock { $0.append(element) } }
    var all: [Element] { elements.withLock { $0 } }
}
