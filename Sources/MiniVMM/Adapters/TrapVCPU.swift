import CKVMShim
import Synchronization
import SystemPackage

/// A vCPU of ``MemslotTrapKVM``.
final class TrapVCPU: KVMVCPU {
    private let base: any KVMVCPU
    private let vm: TrapVM
    private let kicks = Mutex(Kicks())
    /// Whether ``kicks`` says anything at all, so that an undisturbed run need not take its lock. Changes under
    /// that lock only.
    private let isKicked = Atomic<Bool>(false)
    /// Between ``VCPUGate/enter(_:)`` and ``VCPUGate/leave(_:)``; the gate's own.
    let isInside = Atomic<Bool>(false)
    /// An access that left as MMIO and is not finished. Touched by the thread that runs the vCPU only.
    private let pending = Mutex<ckvm_run_mmio?>(nil)
    /// Whether ``pending`` has one. Touched by the same thread only.
    private let hasPending = Atomic<Bool>(false)

    /// Who wants the vCPU out. `kvm_run.immediate_exit` is one flag for two kinds of kicks, so what it means is
    /// written down here, under one lock with the flag itself.
    private struct Kicks {
        /// ``kick()`` was called and the caller has not taken it back: `run()` has to end with `EINTR`.
        var byUser = false
        /// The gate closes: the vCPU has to leave the kernel, and comes back by itself.
        var byGate = false
        /// The gate's signal may come only after the vCPU had left, and interrupt the next entry.
        var signalMayBeLate = false

        var isEmpty: Bool { !byUser && !byGate && !signalMayBeLate }
    }

    private func changeKicks<R>(_ body: (inout Kicks) -> R) -> R {
        kicks.withLock { kicks in
            defer { isKicked.store(!kicks.isEmpty, ordering: .sequentiallyConsistent) }
            return body(&kicks)
        }
    }

    private func setPending(_ access: ckvm_run_mmio?) {
        pending.withLock { $0 = access }
        hasPending.store(access != nil, ordering: .relaxed)
    }

    init(over base: any KVMVCPU, of vm: TrapVM) {
        self.base = base
        self.vm = vm
        runPage = base.runPage
        vm.gate.add(self)
    }

    var id: Int { base.id }
    let runPage: RunPage
    func registers() throws(Errno) -> ckvm_regs { try base.registers() }
    func setRegisters(_ registers: ckvm_regs) throws(Errno) { try base.setRegisters(registers) }
    func specialRegisters() throws(Errno) -> ckvm_sregs { try base.specialRegisters() }
    func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        try base.setSpecialRegisters(registers)
    }
    func setCPUID(_ table: CPUIDTable) throws(Errno) { try base.setCPUID(table) }

    // MARK: kicks

    func kick() {
        changeKicks {
            $0.byUser = true
            base.kick()
        }
    }

    /// Called with the gate's lock held, while the vCPU is inside.
    func kickForGate() {
        changeKicks {
            $0.byGate = true
            base.kick()
        }
    }

    /// After ``VCPUGate/leave(_:)``: the gate does not kick any more.
    ///
    /// - Parameter interrupted: `KVM_RUN` gave `EINTR`.
    /// - Returns: whether that was the gate's doing alone.
    private func settleKicks(interrupted: Bool) -> Bool {
        guard interrupted || isKicked.load(ordering: .sequentiallyConsistent) else { return false }
        return changeKicks { kicks in
            let isGates = kicks.byGate || interrupted && kicks.signalMayBeLate
            if kicks.byGate {
                if !kicks.byUser { runPage.clearImmediateExit() }
                kicks.signalMayBeLate = true
            } else if interrupted {
                kicks.signalMayBeLate = false
            }
            kicks.byGate = false
            return interrupted && isGates && !kicks.byUser
        }
    }

    // MARK: running

    func run() throws(Errno) {
        // Between runs the flag is the user's alone; only the user takes it back, and tells nobody.
        if runPage.immediateExit || isKicked.load(ordering: .sequentiallyConsistent) {
            changeKicks { $0.byUser = runPage.immediateExit }
        }
        while true {
            guard try finishPending() else { return }
            let generation = vm.gate.enter(self)
            var outcome: Errno?
            do throws(Errno) { try base.run() } catch { outcome = error }
            vm.gate.leave(self)
            if settleKicks(interrupted: outcome == .interrupted) { continue }
            if let outcome {
                if runPage.exitReason == CKVM_EXIT_MEMORY_FAULT {
                    let fault = runPage.memoryFault
                    runPage.memoryFault = vm.memory.withLock { $0.throughDoor(fault) }
                }
                throw outcome
            }
            switch runPage.exitReason {
            case CKVM_EXIT_MMIO:
                let access = runPage.mmio
                guard isMemory(access) else { return }
                setPending(access)
            case CKVM_EXIT_INTERNAL_ERROR
            where runPage.internalError.suberror == CKVM_INTERNAL_ERROR_EMULATION:
                guard try explain(isShutdown: false, since: generation) else { return }
            case CKVM_EXIT_SHUTDOWN:
                guard try explain(isShutdown: true, since: generation) else { return }
            default:
                return
            }
        }
    }

    /// Presents the memory fault that made the kernel give up.
    ///
    /// - Returns: whether to try again, because memslots have changed since the vCPU went in: who was in the way
    ///   may be gone.
    private func explain(isShutdown: Bool, since generation: UInt64) throws(Errno) -> Bool {
        let walk = try GuestWalk(base)
        guard !(isShutdown && walk.isReset) else { return false }
        let fault = vm.memory.withLock { memory in
            walk.fault(fetchingFrom: memory) ?? (isShutdown ? walk.fault(walkingFrom: memory) : nil)
        }
        if let fault { try present(fault, .badAddress) }
        return vm.gate.closings != generation
    }

    private func isMemory(_ access: ckvm_run_mmio) -> Bool {
        vm.memory.withLock { $0.place(of: access.phys_addr, length: UInt64(access.length)) != nil }
    }

    fileprivate enum Progress {
        case finished
        case fault(MemoryFault, Errno)
        /// The memslot is gone: an access to nothing, which is the caller's to answer.
        case notMemory
    }

    /// Finishes the access that is pending, if one is, as far as the states of its pages allow.
    ///
    /// - Returns: false when it turned into an MMIO exit.
    private func finishPending() throws(Errno) -> Bool {
        guard hasPending.load(ordering: .relaxed), var access = pending.withLock({ $0 }) else { return true }
        if runPage.immediateExit {
            runPage.exitReason = CKVM_EXIT_UNKNOWN
            throw .interrupted
        }
        switch vm.memory.withLock({ $0.finish(&access) }) {
        case .fault(let fault, let errno): try present(fault, errno)
        case .finished: runPage.mmio = access
        case .notMemory:
            runPage.mmio = access
            runPage.exitReason = CKVM_EXIT_MMIO
            setPending(nil)
            return false
        }
        setPending(nil)
        return true
    }

    private func present(_ fault: MemoryFault, _ errno: Errno) throws(Errno) {
        var payload = ckvm_run_memory_fault()
        payload.gpa = fault.gpa
        payload.size = fault.size
        payload.flags = fault.flags
        runPage.memoryFault = payload
        runPage.exitReason = CKVM_EXIT_MEMORY_FAULT
        throw errno
    }
}

extension ckvm_run_mmio {
    /// Bytes; the kernel cuts an access into pieces of at most 8.
    fileprivate var length: Int { min(Int(len), 8) }
}

extension TrapMemory {
    /// Does what the guest wanted: reads memory into `access`, or writes it from there. Check and copy are one
    /// step under the lock, so no conversion comes between.
    fileprivate func finish(_ access: inout ckvm_run_mmio) -> TrapVCPU.Progress {
        let length = access.length
        guard let place = place(of: access.phys_addr, length: UInt64(length)),
            let memory = place.file.kernelView
        else { return .notMemory }
        if let fault = fault(at: place, length: UInt64(length)) { return .fault(fault, .badAddress) }
        let isWrite = access.is_write != 0
        do throws(Errno) {
            let count = unsafe try withUnsafeMutableBytes(of: &access.data) { bytes throws(Errno) in
                let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[..<length])
                return isWrite
                    ? unsafe try memory.write(at: place.offset, from: UnsafeRawBufferPointer(bytes))
                    : unsafe try memory.read(at: place.offset, into: bytes)
            }
            guard count == length else { throw .badAddress }
            return .finished
        } catch {
            // The state is right and the page cannot be had: no memory, or a memory error.
            let flags = place.door == .private ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0
            let page = place.gpa - place.offset % pageSize
            return .fault(MemoryFault(gpa: page, size: pageSize, flags: flags), error)
        }
    }
}
