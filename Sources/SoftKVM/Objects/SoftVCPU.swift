// SPDX-License-Identifier: MIT
public import CKVMShim
import CUnicornShim
import ConversionModel
public import MiniVMM
public import SystemPackage

/// A vCPU of ``SoftKVM``.
///
/// Between an exit and the next run it looks as on hardware: RIP names the instruction that left for a
/// port, for MMIO or for a hypercall, and the next run completes it and steps over it, unless the VMM has moved
/// RIP in between. After HLT it names the next one. Guarded by the model's lock, and the engine runs under it: a
/// time slice is short. ``kick()`` takes no lock.
///
/// The engine is in a process of its own, which begins with the first run. If it fails the exit is
/// `KVM_EXIT_INTERNAL_ERROR`, and ``failure`` says why.
@safe public final class SoftVCPU: SoftwareVCPU, @unchecked Sendable {
    /// 0 to 255, as it was given to ``SoftVM/createVCPU(id:)``.
    public let id: Int
    /// 8192 bytes, of which the second half has the data of a `KVM_EXIT_IO`. Valid as long as this object
    /// lives.
    public let runPage: RunPage
    let vm: SoftVM
    private let library: EngineLibrary
    /// `kvm_run`, and from ``ioDataOffset`` on the bytes of a port access.
    let page: UnsafeMutableRawPointer
    static let pageLength = 8192
    static let ioDataOffset = 4096

    /// Nil until the first run.
    private(set) var engine: Engine?
    /// While an engine runs it has the registers; at any other time they are here.
    var registersNow = ckvm_regs()
    var special = ckvm_sregs()
    var table = CPUIDTable(entries: [])
    /// The engine's copy of ``special`` is old.
    var specialChanged = true
    var kernelGSBase: UInt64 = 0
    /// Where KVM's clock is, guest-physical, and whether it is to be written.
    var clock: (gpa: UInt64, isDue: Bool)?
    /// DR0 to DR3, DR6, DR7. They are kept, and no breakpoint in them ever strikes.
    var debugRegisters = DebugRegisters()
    /// What the next run has to complete.
    var pending: Pending?
    /// Set by ``run()``. An instruction that the engine could not execute is forgotten by the next run, any
    /// other failure stays.
    public private(set) var failure: CPUFailure?
    /// The process that its engine runs in; nil before the first run.
    public var process: Int32? { vm.model.look { engine?.process } }

    /// The page of a file that this vCPU brought into the tables last, in this run.
    private var broughtIn: (file: FileID, page: UInt64)?
    /// The reference that it holds on one.
    private var fault: (file: FileID, page: UInt64)?

    /// An exit that waits for its completion, and the RIP that it belongs to.
    enum Pending {
        case port(PortAccess)
        /// An element of a string instruction that KVM took for MMIO.
        case element(PortAccess)
        case hypercall(rip: UInt64, length: UInt64)
        case mmio(MMIOInstruction)
    }

    /// How a step of ``run()`` ended.
    enum Step {
        /// Nothing for the VMM yet.
        case goOn
        /// `KVM_RUN` returns 0; the reason is in the page.
        case exit
        /// `KVM_RUN` fails.
        case fail(Errno)
    }

    init(_ vm: SoftVM, id: Int, library: EngineLibrary) {
        self.vm = vm
        self.id = id
        self.library = library
        unsafe page = .allocate(byteCount: Self.pageLength, alignment: 4096)
        unsafe page.initializeMemory(as: UInt8.self, repeating: 0, count: Self.pageLength)
        runPage = unsafe RunPage(
            page.bindMemory(to: ckvm_run.self, capacity: 1), length: Self.pageLength)
        registersNow.rflags = 2
        registersNow.rip = 0xfff0
        special.cr0 = 0x6000_0010
        special.cs.base = 0xffff_0000
        special.cs.selector = 0xf000
    }

    deinit {
        vm.model.look {
            if let engine { vm.remove(engine) }
        }
        unsafe page.deallocate()
    }

    /// `KVM_RUN`, for at most one time slice. The virtual clock advances by 1 ns for every instruction.
    ///
    /// - Throws: `EINTR` at the end of the time slice and when kicked; `EFAULT` or `EHWPOISON` with
    ///   `KVM_EXIT_MEMORY_FAULT`, or `EFAULT` alone for a page that cannot be had; `EOPNOTSUPP` without an
    ///   engine, where ``SoftKVM/engineStatus`` says what to install.
    public func run() throws(Errno) {
        runPage.exitReason = CKVM_EXIT_UNKNOWN
        try vm.model.call { () throws(Errno) in
            endFault()
            writeClock()
            switch runToEnd() {
            case .exit, .goOn: return
            case .fail(.interrupted):
                beginFault()
                throw .interrupted
            case .fail(let errno): throw errno
            }
        }
    }

    /// The time slice is over in the midst of a fault: the page has a reference more (``ABIProfile``, hazard H2).
    private func beginFault() {
        guard let (file, page) = broughtIn else { return }
        vm.model.kernel.beginVCPUFault(file, page: page)
        fault = (file, page)
    }

    private func endFault() {
        broughtIn = nil
        guard let (file, page) = fault else { return }
        vm.model.kernel.endVCPUFault(file, page: page)
        fault = nil
    }

    /// - Parameter library: its name.
    /// - Throws: ``CPUFailure`` where the host does not give it what it takes.
    private func openEngine(_ library: String) throws(CPUFailure) -> Engine {
        let new = try Engine(library)
        engine = new
        vm.add(new)
        return new
    }

    /// `kvm_run.immediate_exit`, which another thread may set at any time.
    var immediateExit: UnsafePointer<UInt8> {
        unsafe UnsafePointer(page.assumingMemoryBound(to: UInt8.self)) + immediateExitOffset
    }

    private func runToEnd() -> Step {
        if let engine { return run(on: engine) }
        do throws(CPUFailure) {
            switch library.search() {
            case .found(let name, _): return run(on: try openEngine(name))
            case .missing: return .fail(.notSupported)
            case .failed(let errno): throw CPUFailure(.notLaunched(errno), rip: 0, code: [])
            }
        } catch {
            return engineFailed(CPUFailure(error.reason, rip: registersNow.rip, code: []))
        }
    }

    private func run(on engine: Engine) -> Step {
        // Writes of this slice to what others have translated are to be seen again.
        if vm.model.lastRunner != ObjectIdentifier(self) { engine.forgetTouches() }
        vm.model.lastRunner = ObjectIdentifier(self)
        guard special.isLongMode else { return failEntry() }
        if case .instruction = failure?.reason { failure = nil }

        let completion = completePending(engine)
        guard case .goOn = completion else { return completion }
        if runPage.immediateExit { return .fail(.interrupted) }

        var left = vm.model.configuration.timeSlice
        var stopsInARow = 0
        while left > 0 {
            if specialChanged { loadSpecial(into: engine) }
            engine.registers = registersNow
            let (stop, executed) = unsafe engine.run(limit: UInt64(left), immediateExit: immediateExit)
            if let failure = engine.failure { return engineFailed(failure) }
            registersNow = engine.registers
            left -= Int(executed)
            vm.model.clock &+= executed
            takeTouches(engine)
            let step: Step
            switch stop {
            case CUC_STOP_LIMIT, CUC_STOP_KICK: return .fail(.interrupted)
            case CUC_STOP_NOTES: step = .goOn
            case CUC_STOP_MEMORY: step = serve(unsafe cuc_fault(engine.cpu), engine)
            case CUC_STOP_PRIVILEGED:
                left -= 1
                vm.model.clock &+= 1
                step = doPrivileged(engine)
            case CUC_STOP_EXCEPTION: step = shutdown()
            default: step = internalError()
            }
            guard case .goOn = step else { return step }
            // Every stop repairs what it was for, so the guest moves; were it ever not so, say it.
            stopsInARow = executed > 0 || stop == CUC_STOP_PRIVILEGED ? 0 : stopsInARow + 1
            if stopsInARow > 1000 { return internalError() }
        }
        return .fail(.interrupted)
    }

    private func completePending(_ engine: Engine) -> Step {
        switch pending {
        case nil: return .goOn
        case .hypercall(let rip, let length):
            pending = nil
            if registersNow.rip == rip {
                registersNow.rax = runPage.hypercall.ret
                if let failure = failedStepOver() { return failure }
                registersNow.rip = rip &+ length
            }
            return .goOn
        case .port(let access):
            pending = nil
            return registersNow.rip == access.rip ? complete(access, engine) : .goOn
        case .element(let access):
            pending = nil
            return registersNow.rip == access.rip ? completeElement(access, engine) : .goOn
        case .mmio(let instruction):
            pending = nil
            return registersNow.rip == instruction.rip ? complete(instruction, engine) : .goOn
        }
    }

    func takeTouches(_ engine: Engine) {
        let (model, number) = (vm.model, vm.number)
        engine.takeTouches { gpa, isWrite in
            if let new = model.kernel.noteGuestTouch(number, at: gpa, isWrite: isWrite) { broughtIn = new }
            // Another vCPU, or this one through another address, may have code from that page.
            if isWrite { model.kernel.noteGuestWrite(number, at: gpa) }
        }
        model.applyEffects()
    }

    // MARK: exits without completion

    func shutdown() -> Step {
        runPage.exitReason = CKVM_EXIT_SHUTDOWN
        return .exit
    }

    /// The engine, or the process that it is in, does not go on.
    func engineFailed(_ failure: CPUFailure) -> Step {
        let isNew = self.failure == nil
        registersNow.rip = failure.rip
        self.failure = failure
        if failure.code.isEmpty { self.failure?.code = codeAtRIP() }
        // Who kicked it wants to be back, and hears of the failure if it is run again.
        return isNew && failure.reason == .unresponsive ? .fail(.interrupted) : internalError()
    }

    /// Something that KVM's emulator cannot do either: code outside of memory, for instance.
    func internalError() -> Step {
        runPage.exitReason = CKVM_EXIT_INTERNAL_ERROR
        var error = ckvm_run_internal()
        error.suberror = CKVM_INTERNAL_ERROR_EMULATION
        runPage.internalError = error
        return .exit
    }

    /// - Parameter fault: nil for `EFAULT` that no exit explains.
    func memoryFault(_ fault: MemoryFault?) -> Step {
        guard let fault else { return .fail(.badAddress) }
        runPage.exitReason = CKVM_EXIT_MEMORY_FAULT
        runPage.memoryFault = ckvm_run_memory_fault(flags: fault.flags, gpa: fault.gpa, size: fault.size)
        return vm.model.kernel.rules.faults.contains(.faultReturnsSuccess)
            ? .exit : .fail(vm.errno(of: fault))
    }

    /// The guest state is none that this CPU can enter: it knows 64-bit mode only.
    private func failEntry() -> Step {
        runPage.exitReason = CKVM_EXIT_FAIL_ENTRY
        let invalidGuestState: UInt64 = 0x8000_0021
        unsafe page.assumingMemoryBound(to: ckvm_run.self).pointee.fail_entry.hardware_entry_failure_reason =
            invalidGuestState
        return .exit
    }

    /// The ring that the guest is in: 0 or 3.
    var currentRing: Int { Int(special.ss.dpl) }

    // MARK: the other calls

    /// `KVM_GET_REGS`.
    ///
    /// - Throws: nothing.
    public func registers() throws(Errno) -> ckvm_regs { vm.model.call { registersNow } }

    /// `KVM_SET_REGS`. Bit 1 of RFLAGS is always set.
    ///
    /// - Throws: nothing.
    public func setRegisters(_ registers: ckvm_regs) throws(Errno) {
        vm.model.call {
            registersNow = registers
            registersNow.rflags |= 2
        }
    }

    /// What was set, with what the guest changed since: control registers, EFER, FS and GS base, the descriptor
    /// table registers. Selectors stay as they were set.
    ///
    /// - Throws: nothing.
    public func specialRegisters() throws(Errno) -> ckvm_sregs {
        vm.model.call {
            storeSpecial()
            return special
        }
    }

    /// `KVM_SET_SREGS`. A state that is not 64-bit mode with 4-level paging is accepted, and the next run
    /// ends with `KVM_EXIT_FAIL_ENTRY`.
    ///
    /// - Throws: nothing.
    public func setSpecialRegisters(_ registers: ckvm_sregs) throws(Errno) {
        vm.model.call {
            special = registers
            specialChanged = true
            engine?.resetSegments()
            engine?.flush()
        }
    }

    /// `KVM_SET_CPUID2`.
    ///
    /// - Throws: `EINVAL` for another table once the vCPU has run, `E2BIG` for more than 256 entries.
    public func setCPUID(_ table: CPUIDTable) throws(Errno) {
        try vm.model.call { () throws(Errno) in
            guard table.entries.count <= Int(CKVM_CPUID_MAX_ENTRIES) else { throw .argListTooLong }
            guard engine == nil || table.isEqual(to: self.table) else { throw .invalidArgument }
            self.table = table
        }
    }

    /// Takes no lock: the vCPU may be inside, and looks at the flag before every instruction.
    public func kick() { runPage.setImmediateExit() }
}

/// The offset of `immediate_exit` in `struct kvm_run`.
private let immediateExitOffset = MemoryLayout<ckvm_run>.offset(of: \.immediate_exit) ?? 1

extension ckvm_sregs {
    /// 64-bit mode with 4-level paging, the only one there is here.
    var isLongMode: Bool {
        let needsCR0: UInt64 = 1 << 31 | 1
        let physicalAddressExtension: UInt64 = 1 << 5
        let fiveLevels: UInt64 = 1 << 12
        let longModeActive: UInt64 = 1 << 10
        return cr0 & needsCR0 == needsCR0 && cr4 & physicalAddressExtension != 0 && cr4 & fiveLevels == 0
            && efer & longModeActive != 0 && cs.l != 0
    }
}

extension CPUIDTable {
    fileprivate func isEqual(to other: CPUIDTable) -> Bool {
        entries.elementsEqual(other.entries) { one, two in
            one.function == two.function && one.index == two.index && one.flags == two.flags
                && one.eax == two.eax && one.ebx == two.ebx && one.ecx == two.ecx && one.edx == two.edx
        }
    }
}
