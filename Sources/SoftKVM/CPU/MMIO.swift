// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

/// Up to 8 bytes in one page that the monitor must read or write: one `KVM_EXIT_MMIO`.
struct MMIOFragment {
    let linear: UInt64
    let gpa: UInt64
    /// Bytes.
    let size: Int
    let isWrite: Bool
    /// The value that is written, or that the monitor has read; little endian.
    var data: UInt64

    init(_ part: cuc_access, gpa: UInt64, isWrite: Bool) {
        linear = part.address
        self.gpa = gpa
        size = Int(part.size)
        self.isWrite = isWrite
        data = part.size < 8 ? part.value & (1 << (UInt64(part.size) * 8) - 1) : part.value
    }

    func covers(_ part: cuc_access) -> Bool {
        let (offset, isBelow) = part.address.subtractingReportingOverflow(linear)
        return isWrite == (part.is_write != 0) && !isBelow && offset + UInt64(part.size) <= UInt64(size)
    }
}

/// An instruction, or one element of a repeated one, some of whose accesses the monitor must perform.
///
/// The engine cannot stop in the middle of an instruction, so the instruction is executed again after the monitor
/// has answered, with scratch pages that contain the answers in place of the missing memory. If that run needs more
/// accesses, it is undone and the monitor is asked for those.
struct MMIOInstruction {
    let rip: UInt64
    /// Accesses that the monitor has performed.
    var done: [MMIOFragment] = []
    /// Accesses still to be performed. The monitor is working on the first one.
    var queue: [MMIOFragment]
}

extension SoftVCPU {
    /// Starts an instruction that needs these accesses.
    ///
    /// - Parameter known: accesses for which the monitor is not needed.
    func begin(_ fragments: [MMIOFragment], knowing known: [MMIOFragment] = [], _ engine: Engine) -> Step {
        if let failure = failedFetch() { return failure }
        let instruction = MMIOInstruction(rip: registersNow.rip, done: known, queue: fragments)
        return fragments.isEmpty ? executeAgain(instruction, engine) : ask(instruction)
    }

    private func ask(_ instruction: MMIOInstruction) -> Step {
        guard let fragment = instruction.queue.first else { return internalError() }
        runPage.exitReason = CKVM_EXIT_MMIO
        runPage.mmio = ckvm_run_mmio(
            gpa: fragment.gpa, size: fragment.size, writing: fragment.isWrite ? fragment.data : nil)
        pending = .mmio(instruction)
        return .exit
    }

    /// Continues after the monitor has performed the first access of the queue, or has resolved what the
    /// instruction stopped for.
    func complete(_ instruction: MMIOInstruction, _ engine: Engine) -> Step {
        var instruction = instruction
        if var fragment = instruction.queue.first {
            instruction.queue.removeFirst()
            if !fragment.isWrite { fragment.data = runPage.mmio.word }
            instruction.done.append(fragment)
        }
        return instruction.queue.isEmpty ? executeAgain(instruction, engine) : ask(instruction)
    }

    private func executeAgain(_ instruction: MMIOInstruction, _ engine: Engine) -> Step {
        var instruction = instruction
        // Every iteration but the last maps a page, and an instruction accesses few pages.
        for _ in 0..<16 {
            if specialChanged { loadSpecial(into: engine) }
            engine.registers = registersNow
            guard let attempt = Attempt(instruction, engine, vm) else { return internalError() }
            let outcome = unsafe attempt.run(immediateExit)
            takeTouches(engine)
            switch outcome {
            case .done:
                registersNow = engine.registers
                storeSpecial()
                vm.model.clock &+= 1
                return .proceed
            case .needs(let accesses):
                let known = instruction.done
                for part in accesses where !known.contains(where: { $0.covers(part) }) {
                    let page = part.address & ~(pageSize - 1)
                    guard let same = known.first(where: { $0.linear & ~(pageSize - 1) == page }) else {
                        continue
                    }
                    let gpa = same.gpa & ~(pageSize - 1) | part.address % pageSize
                    instruction.queue.append(MMIOFragment(part, gpa: gpa, isWrite: part.is_write != 0))
                }
                return ask(instruction)
            case .refused(let access):
                let kind = AccessKind(
                    isWrite: access.is_write != 0, isFetch: access.is_fetch != 0, isUser: currentRing == 3)
                for part in access.parts where !attempt.isScratch(part.address) {
                    switch reach(part.address, kind, engine, besides: attempt.pages) {
                    case .memory: continue
                    case .stop(let step):
                        // The answers are kept, so that the monitor is not asked twice.
                        if case .fail = step { pending = .mmio(instruction) }
                        return step
                    case .ciphertext(let gpa, let backing):
                        var fragment = MMIOFragment(part, gpa: gpa, isWrite: false)
                        fragment.data = vm.model.ciphertext(backing, at: gpa, count: fragment.size)
                        instruction.done.append(fragment)
                    case .mmio(let gpa):
                        instruction.queue.append(MMIOFragment(part, gpa: gpa, isWrite: kind.isWrite))
                    }
                }
                if !instruction.queue.isEmpty { return ask(instruction) }
            case .failed: return engine.failure.map(engineFailed) ?? internalError()
            }
        }
        return internalError()
    }
}

/// One execution of an MMIO instruction on scratch pages. It is undone if it needs further accesses.
@safe private final class Attempt {
    enum Outcome {
        case done
        /// Accesses to scratch pages that no answer covers, in order, split at page boundaries.
        case needs([cuc_access])
        /// An access that is not mapped.
        case refused(cuc_access)
        case failed
    }

    private let engine: Engine
    private let done: [MMIOFragment]
    /// Linear addresses of the scratch pages.
    private(set) var pages: [UInt64] = []
    /// Scratch pages that stand for read-only memory: their bytes can be read, and only writes go to the monitor.
    private var readable: Set<UInt64> = []

    /// - Returns: nil if there are not enough scratch pages.
    init?(_ instruction: MMIOInstruction, _ engine: Engine, _ vm: SoftVM) {
        self.engine = engine
        done = instruction.done
        for fragment in done {
            let page = fragment.linear & ~(pageSize - 1)
            if !pages.contains(page) {
                guard pages.count < Int(CUC_SCRATCH_PAGES) else { return nil }
                engine.drop { $0.linear.contains(page) }
                let number = UInt32(pages.count)
                unsafe cuc_scratch(engine.cpu, number).update(repeating: 0, count: Int(pageSize))
                unsafe cuc_map_scratch(engine.cpu, page, number)
                pages.append(page)
                if let (file, offset) = vm.model.kernel.readOnlyPage(vm.number, at: fragment.gpa),
                    let start = unsafe vm.model.memory(of: file)?.bytes(at: offset)
                {
                    readable.insert(page)
                    let bytes = unsafe UnsafeRawBufferPointer(start: start, count: Int(pageSize))
                    unsafe UnsafeMutableRawBufferPointer(
                        start: cuc_scratch(engine.cpu, number), count: Int(pageSize)
                    ).copyMemory(from: bytes)
                }
            }
            guard !fragment.isWrite, let index = pages.firstIndex(of: page) else { continue }
            let bytes = unsafe cuc_scratch(engine.cpu, UInt32(index)) + Int(fragment.linear % pageSize)
            for byte in 0..<fragment.size {
                unsafe bytes[byte] = UInt8(truncatingIfNeeded: fragment.data >> (UInt64(byte) * 8))
            }
        }
    }

    deinit {
        for page in pages { unsafe cuc_unmap(engine.cpu, page, pageSize) }
    }

    func isScratch(_ address: UInt64) -> Bool { pages.contains(address & ~(pageSize - 1)) }

    func run(_ immediateExit: UnsafePointer<UInt8>) -> Outcome {
        unsafe cuc_set_careful(engine.cpu, true)
        let (stop, _) = unsafe engine.run(limit: 1, immediateExit: immediateExit)
        unsafe cuc_set_careful(engine.cpu, false)
        switch stop {
        case CUC_STOP_LIMIT, CUC_STOP_PRIVILEGED, CUC_STOP_NOTES: break
        case CUC_STOP_MEMORY: return .refused(unsafe cuc_fault(engine.cpu))
        default: return .failed
        }
        let count = unsafe cuc_log_count(engine.cpu)
        guard count <= UInt32(CUC_MAX_LOG) else {
            unsafe cuc_restore(engine.cpu)
            return .failed
        }
        let accesses = (0..<count).flatMap { unsafe cuc_log(engine.cpu, $0).parts }
        let missing = accesses.filter { part in
            let isThere = part.is_write == 0 && readable.contains(part.address & ~(pageSize - 1))
            return isScratch(part.address) && !isThere && !done.contains { $0.covers(part) }
        }
        guard missing.isEmpty else {
            unsafe cuc_restore(engine.cpu)
            // The value of a write may depend on a read that is still missing, so reads come first.
            let reads = missing.filter { $0.is_write == 0 }
            return .needs(reads.isEmpty ? missing : reads)
        }
        return .done
    }
}

extension ckvm_run_mmio {
    /// - Parameter value: the value to write; nil for a read.
    init(gpa: UInt64, size: Int, writing value: UInt64?) {
        self.init()
        phys_addr = gpa
        len = UInt32(size)
        is_write = value == nil ? 0 : 1
        if let value { word = value }
    }

    /// `data` as a number. Bytes past `len` are ignored.
    var word: UInt64 {
        get { unsafe withUnsafeBytes(of: data) { unsafe $0.loadUnaligned(as: UInt64.self) } }
        set {
            unsafe withUnsafeMutableBytes(of: &data) { unsafe $0.storeBytes(of: newValue, as: UInt64.self) }
        }
    }
}
