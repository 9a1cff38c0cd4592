// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A vCPU of ``MemslotTrapKVM``.
final class TrapVCPU: AdapterVCPU, PageFaultingVCPU {
    private let gated: GatedVCPU
    private let vm: CarvedVM<TrapFile>
    /// An access that left as MMIO and is not finished. Used only by the thread that runs the vCPU.
    private let pending = Mutex<ckvm_run_mmio?>(nil)
    /// Whether ``pending`` is nonnil. Used only by the same thread.
    private let hasPending = Atomic<Bool>(false)

    private func setPending(_ access: ckvm_run_mmio?) {
        pending.withLock { $0 = access }
        hasPending.store(access != nil, ordering: .relaxed)
    }

    init(over base: any KVMVCPU, of vm: CarvedVM<TrapFile>) {
        gated = GatedVCPU(base, behind: vm.gate)
        self.vm = vm
        runPage = base.runPage
    }

    var base: any KVMVCPU { gated.base }
    let runPage: RunPage
    func kick() { gated.kick() }

    // MARK: running

    func run() throws(Errno) {
        while true {
            guard try finishPending() else { return }
            let (errno, closings) = gated.run()
            if let errno {
                vm.translateFault(in: runPage)
                throw errno
            }
            switch runPage.exitReason {
            case CKVM_EXIT_MMIO:
                let access = runPage.mmio
                guard isMemory(access) else { return }
                setPending(access)
            case CKVM_EXIT_INTERNAL_ERROR
            where runPage.internalError.suberror == CKVM_INTERNAL_ERROR_EMULATION:
                guard try explain(isShutdown: false, since: closings) else { return }
            case CKVM_EXIT_SHUTDOWN:
                guard try explain(isShutdown: true, since: closings) else { return }
            default:
                return
            }
        }
    }

    /// Presents the memory fault that made the kernel give up.
    ///
    /// - Returns: whether to try again, because memslots have changed since the vCPU entered, so the cause
    ///   may be gone.
    private func explain(isShutdown: Bool, since closings: UInt64) throws(Errno) -> Bool {
        let walk = try GuestWalk(base)
        guard !(isShutdown && walk.isReset) else { return false }
        let fault = vm.memory.withLock { memory in
            walk.fault(fetchingFrom: memory)
                ?? (isShutdown ? walk.fault(walkingTo: walk.lastPageFault, from: memory) : nil)
        }
        if let fault { try present(fault, .badAddress) }
        return vm.gate.closings != closings
    }

    func memoryFault(walkingTo linear: UInt64) -> MemoryFault? {
        guard let walk = try? GuestWalk(base) else { return nil }
        return vm.memory.withLock { walk.fault(walkingTo: linear, from: $0) }
    }

    private func isMemory(_ access: ckvm_run_mmio) -> Bool {
        vm.memory.withLock { $0.place(of: access.phys_addr, length: UInt64(access.length)) != nil }
    }

    fileprivate enum Progress {
        case finished
        case fault(MemoryFault, Errno)
        /// The memslot is gone, so the caller has to answer the access as MMIO.
        case notMemory
    }

    /// Finishes the pending access, if there is one, as far as the states of its pages allow.
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
    /// Bytes; the kernel splits an access into pieces of at most 8.
    fileprivate var length: Int { min(Int(len), 8) }
}

extension CarvedMemory where File == TrapFile {
    /// Performs the guest's access: reads memory into `access`, or writes it from there. Check and copy are one
    /// step under the lock, so no conversion can happen in between.
    fileprivate func finish(_ access: inout ckvm_run_mmio) -> TrapVCPU.Progress {
        let length = access.length
        guard let place = place(of: access.phys_addr, length: UInt64(length)) else { return .notMemory }
        let memory = place.file.kernelMapping
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
            // The state matches but the page is not available: out of memory, or a memory error.
            let flags = place.alias == .private ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0
            let page = place.gpa - place.offset % pageSize
            return .fault(MemoryFault(gpa: page, size: pageSize, flags: flags), error)
        }
    }
}
