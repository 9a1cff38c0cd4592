// SPDX-License-Identifier: MIT
import CKVMShim
import GuestPayloads
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// The guest ``LitmusAgent``, which performs the steps of vCPUs. It reads an order from ``AgentMemory``, makes one access or
/// one hypercall, and writes the answer to a port. ``AgentRun`` is its monitor.
///
/// One vCPU is used by one thread at a time; different vCPUs can run on different threads.
final class Agent: Sendable {
    /// The monitor's answer to a memory fault.
    enum FaultAnswer {
        /// The page is converted, or needs no conversion: the vCPU enters again.
        case entersAgain
        /// The conversion has failed.
        case isFailed(Errno, page: UInt64?)
    }
    typealias FaultHandler = (MemoryFault) throws(Stop) -> FaultAnswer

    /// A vCPU.
    @safe private final class CPU: @unchecked Sendable {
        let vcpu: any KVMVCPU
        /// Guest memory, valid as long as the agent. Written by the thread that runs the vCPU, before it is entered.
        let order: UnsafeMutablePointer<LitmusAgent.OrderWords>
        /// Whether an access has stopped without completing.
        let isStuck = Atomic<Bool>(false)
        /// Whether a memory fault stopped the access, so that none of it was done.
        let isAtFault = Atomic<Bool>(false)
        /// The stopped access, if ``World`` can repeat it. Used by the thread that runs the vCPU.
        let pending = Mutex<Step?>(nil)

        init(_ vcpu: any KVMVCPU, _ order: UnsafeMutablePointer<LitmusAgent.OrderWords>) {
            self.vcpu = vcpu
            unsafe self.order = order
        }
    }

    private let vm: any KVMVirtualMachine
    private let memory: AgentMemory
    private let method: HypercallMethod
    private let cpuid: CPUIDTable
    private let deadline: TestDeadline
    /// Whether a vCPU can be restarted after a memory fault. That needs a kernel that reports the fault itself: an
    /// adapter keeps the access for the next run.
    private let canRewind: Bool
    private let entersAgainWithoutMemory: Bool
    private let vcpus = Mutex<[Int: CPU]>([:])

    /// - Parameters:
    ///   - sharedBit: the shared bit of a VM with two aliases, whose guest pages are private.
    ///   - entersAgainWithoutMemory: whether a vCPU enters again after `ENOMEM`.
    init(
        on vm: any KVMVirtualMachine, sharedBit: Int?, _ facts: BackendFacts, _ deadline: TestDeadline,
        entersAgainWithoutMemory: Bool
    ) throws(Stop) {
        self.entersAgainWithoutMemory = entersAgainWithoutMemory
        self.vm = vm
        self.deadline = deadline
        method = facts.hypercallMethod
        canRewind = facts.isLinux
        do throws(Errno) {
            cpuid = try facts.supportedCPUID()
            if method != .port {
                try vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
            }
            memory = try AgentMemory(on: vm, sharedBit: sharedBit, facts)
        } catch {
            throw .absent(
                "the guest that performs the steps of vCPUs cannot be loaded (\(error.name))",
                "the guest that performs the steps of vCPUs", error)
        }
    }

    deinit { removeVCPUs() }

    private func removeVCPUs() {
        let gone = vcpus.withLock { vcpus in
            defer { vcpus = [:] }
            return vcpus.values.map(\.vcpu)
        }
        for vcpu in gone { deadline.remove(vcpu) }
    }

    /// - Parameter deletesSlot: pass true if the VM is used again.
    func close(deletesSlot: Bool) {
        removeVCPUs()
        if deletesSlot { try? memory.deleteSlot() }
    }

    /// Removes the agent's pages from the second-stage tables, as if no vCPU had run. No vCPU may be running.
    func unmapPages() throws(Errno) { try memory.unmapPages() }

    /// Restarts every stopped vCPU, so that it reads its next order. No vCPU may be running.
    ///
    /// - Returns: whether all were restarted.
    func rewind() -> Bool {
        for cpu in vcpus.withLock({ Array($0.values) }) where cpu.isStuck.load(ordering: .relaxed) {
            // Only a memory fault leaves nothing behind in the kernel or in an adapter.
            guard cpu.isAtFault.load(ordering: .relaxed), canRewind else { return false }
            // Everything else is as it was at the start.
            do throws(Errno) { try setStart(cpu.vcpu) } catch { return false }
            cpu.isStuck.store(false, ordering: .relaxed)
            cpu.pending.withLock { $0 = nil }
        }
        return true
    }

    // MARK: steps

    /// Accesses bytes.
    ///
    /// - Parameters:
    ///   - extent: guest-physical.
    ///   - isRacing: if true, the vCPU enters again after a memory fault, because a concurrent conversion can cause
    ///     one.
    ///   - onFault: what the monitor does on a memory fault; nil leaves the vCPU stopped.
    func access(
        _ extent: Extent, _ step: Step, vcpu number: Int, isRacing: Bool, onFault: FaultHandler? = nil
    ) throws(Stop) -> Observation {
        let action = step.action
        try GuestReach.check(extent)
        guard extent.size <= GuestReach.mostBytes else {
            throw .guestStepTooLong
        }
        let alias = extent.name == .shared ? AgentMemory.sharedAlias : 0
        let order = (UInt32(extent.offset + alias), UInt32(extent.size), action.order, UInt32(0))
        let (seen, isDone) = try run(order, number, isRacing, onFault: onFault)
        if !isDone { try cpu(number).pending.withLock { $0 = action.isSingle ? step : nil } }
        guard isDone, case .check = action, case .errno(let past, _) = seen else { return Observation(seen) }
        // The answer is an offset, not an errno.
        return Observation(.differs(at: UInt64(UInt32(bitPattern: 0 &- past)) &- alias &- 1))
    }

    /// The stopped access, if it can be repeated.
    func pending(vcpu number: Int) throws(Stop) -> Step {
        let cpu = try cpu(number)
        guard cpu.isStuck.load(ordering: .relaxed), let step = cpu.pending.withLock({ $0 }) else {
            throw .noAccessToRepeat(number)
        }
        return step
    }

    /// Enters the guest again, so that the vCPU repeats its stopped access.
    func again(vcpu number: Int, onFault: FaultHandler?) throws(Stop) -> Observation {
        let cpu = try cpu(number)
        cpu.isStuck.store(false, ordering: .relaxed)
        let (seen, isDone) = try run(nil, number, false, onFault: onFault)
        if isDone { cpu.pending.withLock { $0 = nil } }
        return Observation(seen)
    }

    func preFault(_ extent: Extent, vcpu number: Int) throws(Stop) -> Observation {
        var request = ckvm_pre_fault_memory()
        request.gpa = extent.offset
        request.size = extent.size
        return try examine(number) { vcpu throws(Errno) in try vcpu.preFault(&request) }
    }

    func setClock(at gpa: UInt64, vcpu number: Int) throws(Stop) -> Observation {
        try examine(number) { vcpu throws(Errno) in try vcpu.setClock(at: gpa) }
    }

    private func examine(
        _ number: Int, _ call: (any ExaminableVCPU) throws(Errno) -> Void
    ) throws(Stop) -> Observation {
        guard let vcpu = try cpu(number).vcpu as? any ExaminableVCPU else {
            throw .skip("an adapter's vCPUs do not support this call")
        }
        do throws(Errno) {
            try call(vcpu)
            return Observation(.ok)
        } catch {
            return Observation(.errno(error.rawValue))
        }
    }

    /// - Parameter monitor: carries out the call.
    func hypercall(
        _ extent: Extent, _ attributes: UInt64, vcpu number: Int,
        _ monitor: @escaping (MapRequest) throws(Stop) -> GuestAnswer
    ) throws(Stop) -> Observation {
        let (gpa, pages, word) = try GuestReach.hypercall(extent, attributes)
        let order = (
            UInt32(truncatingIfNeeded: gpa), UInt32(truncatingIfNeeded: pages), method.order.rawValue << 8,
            UInt32(truncatingIfNeeded: word)
        )
        return Observation(try run(order, number, true, monitor: monitor).outcome)
    }

    /// - Parameter order: nil continues the last one.
    /// - Returns: the outcome, and whether the access was made.
    private func run(
        _ order: LitmusAgent.OrderWords?, _ number: Int, _ isRacing: Bool, onFault: FaultHandler? = nil,
        monitor: ((MapRequest) throws(Stop) -> GuestAnswer)? = nil
    ) throws(Stop) -> (outcome: StepOutcome, isDone: Bool) {
        let cpu = try cpu(number)
        guard !cpu.isStuck.load(ordering: .relaxed) else { throw .vcpuIsStuck(number) }
        if let order { unsafe cpu.order.pointee = order }
        var run = AgentRun(
            cpu.vcpu, number, isRacing: isRacing,
            entersAgainWithoutMemory: entersAgainWithoutMemory, deadline, onFault: onFault, monitor)
        var exits = ExitLoop(cpu.vcpu)
        switch exits.run(&run) {
        case .done(let outcome): return (outcome, true)
        case .unfinished(let outcome): return (outcome, false)
        case .stuck(let outcome, let isAtFault):
            cpu.isAtFault.store(isAtFault, ordering: .relaxed)
            cpu.isStuck.store(true, ordering: .relaxed)
            return (outcome, false)
        case .failed(let stop): throw stop
        }
    }

    /// Creates the vCPU if it does not exist yet.
    func prepare(_ number: Int) throws(Stop) { _ = try cpu(number) }

    private func cpu(_ number: Int) throws(Stop) -> CPU {
        if let cpu = vcpus.withLock({ $0[number] }) { return cpu }
        do throws(Errno) {
            let vcpu = try vm.createVCPU(id: number)
            // The CPU needs long mode, and enough physical address bits for the shared bit.
            try vcpu.setCPUID(cpuid)
            try vcpu.setSpecialRegisters(vcpu.specialRegisters().inLongMode(tables: memory.tables))
            try setStart(vcpu)
            let cpu = unsafe CPU(vcpu, try memory.order(of: number))
            vcpus.withLock { $0[number] = cpu }
            deadline.add(vcpu)
            return cpu
        } catch {
            throw .absent("vcpu\(number) cannot be created (\(error.name))", "KVM_CREATE_VCPU", error)
        }
    }

    private func setStart(_ vcpu: any KVMVCPU) throws(Errno) {
        var registers = ckvm_regs()
        registers.rip = AgentMemory.start
        registers.rbp = memory.linearOrder(of: vcpu.id)
        registers.rflags = 2
        try vcpu.setRegisters(registers)
    }
}

extension HypercallMethod {
    fileprivate var order: LitmusAgent.Order {
        switch self {
        case .vmmcall: .vmmcall
        case .vmcall: .vmcall
        case .port: .callByPort
        }
    }
}

extension Action {
    /// The third word of an order: the operation and its byte.
    fileprivate var order: UInt32 {
        let (order, byte): (LitmusAgent.Order, UInt8) =
            switch self {
            case .write(_, let byte): (.write, byte)
            case .fill(_, let byte): (.fill, byte)
            case .check(_, let byte): (.check, byte)
            default: (.read, 0)
            }
        return order.rawValue << 8 | UInt32(byte)
    }
}
