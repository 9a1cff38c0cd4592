// SPDX-License-Identifier: MIT
public import CKVMShim
import CUnicornShim
import ConversionModel
public import MiniVMM
public import SystemPackage

/// A vCPU of ``SoftKVM``.
///
/// Between an exit and the next run the state is as on hardware: RIP points to the instruction that exited for a
/// port, for MMIO or for a hypercall, and the next run completes it and steps over it, unless the monitor has
/// changed RIP in between. After HLT, RIP points to the next instruction. Guarded by the model's lock, which is
/// held while the engine runs; a time slice is short. ``kick()`` takes no lock.
///
/// The engine runs in a process of its own, which starts at the first run. If it fails, the exit is
/// `KVM_EXIT_INTERNAL_ERROR`, and ``failure`` has the reason.
@safe public final class SoftVCPU: SoftwareVCPU, @unchecked Sendable {
    /// 0 to 255, as passed to ``SoftVM/createVCPU(id:)``.
    public let id: Int
    /// 8192 bytes. The second half contains the data of a `KVM_EXIT_IO`. Valid as long as this object exists.
    public let runPage: RunPage
    let vm: SoftVM
    private let library: EngineLibrary
    /// `kvm_run`, with the data of a port access from ``ioDataOffset`` on.
    let page: UnsafeMutableRawPointer
    static let pageLength = 8192
    static let ioDataOffset = 4096

    /// Nil until the first run.
    private(set) var engine: Engine?
    /// The registers. While the engine runs, the engine has them instead.
    var registersNow = ckvm_regs()
    var special = ckvm_sregs()
    var table = CPUIDTable(entries: [])
    /// Whether the engine's copy of ``special`` is out of date.
    var specialChanged = true
    var kernelGSBase: UInt64 = 0
    /// The page attribute table, with its value after a reset.
    var pageAttributes: UInt64 = 0x0007_0406_0007_0406
    /// Guest-physical address of KVM's clock, and whether it must be written.
    var clock: (gpa: UInt64, isDue: Bool)?
    /// DR0 to DR3, DR6 and DR7. They hold their values, but breakpoints never trigger.
    var debugRegisters = DebugRegisters()
    /// What `KVM_SET_GUEST_DEBUG` has set.
    var debug = ckvm_guest_debug()
    /// SNP: MSR C001_0130, and the page that the guest has registered.
    var ghcb = SoftVCPU.initialGHCB
    var registeredGHCB: UInt64?
    /// TDX: the information about a #VE that the guest has not read yet.
    var virtualization: VirtualizationInformation?
    /// The operation that the next run must complete.
    var pending: Pending?
    /// Set by ``run()``. The next run clears an instruction that the engine could not execute; any other failure is
    /// permanent.
    public private(set) var failure: CPUFailure?
    /// Set by ``run()`` when it ends with `KVM_EXIT_SHUTDOWN`.
    public private(set) var unhandled: UnhandledException?
    /// Identifier of the process that the engine runs in; nil before the first run.
    public var process: Int32? { vm.model.withLock { engine?.process } }

    /// The page that this vCPU faulted in last during this run.
    private var lastFaultedIn: (file: FileID, page: UInt64)?
    /// The page on which this vCPU holds a reference (hazard H2).
    private var fault: (file: FileID, page: UInt64)?

    /// An exit that the next run must complete, with the RIP that it belongs to.
    enum Pending {
        case port(PortAccess)
        /// An element of a string instruction that KVM treats as MMIO.
        case element(PortAccess)
        case hypercall(rip: UInt64, length: UInt64)
        case mmio(MMIOInstruction)
        case ghcb(rip: UInt64, length: UInt64, GHCBRequest)
        case module(rip: UInt64, length: UInt64, TDXRequest)
    }

    /// How one step of ``run()`` ended.
    enum Step {
        /// The run continues.
        case proceed
        /// `KVM_RUN` returns 0, with the exit reason in the run page.
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
        vm.model.withLock {
            if let engine { vm.remove(engine) }
        }
        unsafe page.deallocate()
    }

    /// `KVM_RUN`, for at most one time slice. The virtual clock advances by 1 ns for every instruction.
    ///
    /// - Throws: `EINTR` at the end of the time slice and when kicked; `EFAULT` or `EHWPOISON` with
    ///   `KVM_EXIT_MEMORY_FAULT`, or `EFAULT` without an exit for an inaccessible page; `EINVAL` before the end of the
    ///   launch of an SNP or TDX VM, `EIO` if that VM is dead; `EOPNOTSUPP` if the engine is not installed:
    ///   ``SoftKVM/engineStatus`` says what to install.
    public func run() throws(Errno) {
        runPage.exitReason = CKVM_EXIT_UNKNOWN
        try vm.model.call { () throws(Errno) in
            if let error = vm.model.kernel.runError(vm.number) { throw Errno(error) }
            endFault()
            writeClock()
            switch runToEnd() {
            case .exit, .proceed: return
            case .fail(.interrupted):
                beginFault()
                throw .interrupted
            case .fail(let errno): throw errno
            }
        }
    }

    /// The time slice ended during a fault: takes the reference that a vCPU holds on the page then (``ABIProfile``,
    /// hazard H2).
    private func beginFault() {
        guard let (file, page) = lastFaultedIn else { return }
        vm.model.kernel.beginVCPUFault(file, page: page)
        fault = (file, page)
    }

    private func endFault() {
        lastFaultedIn = nil
        guard let (file, page) = fault else { return }
        vm.model.kernel.endVCPUFault(file, page: page)
        fault = nil
    }

    /// - Parameter library: file name of the engine's library.
    /// - Throws: ``CPUFailure`` if the host lacks a resource for the process.
    private func openEngine(_ library: String) throws(CPUFailure) -> Engine {
        let new = try Engine(library)
        engine = new
        vm.add(new)
        return new
    }

    /// `kvm_run.immediate_exit`. Another thread may set it at any time.
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
        // Writes in this time slice to pages from which other vCPUs have translated code must be recorded again.
        if vm.model.lastRunner != ObjectIdentifier(self) { engine.forgetTouches() }
        vm.model.lastRunner = ObjectIdentifier(self)
        guard special.isValid else { return failEntry() }
        if case .instruction = failure?.reason { failure = nil }

        let (rip, count) = (registersNow.rip, registersNow.rcx)
        let completion = completePending(engine)
        guard case .proceed = completion else { return completion }
        // An iteration of a string instruction is a step too.
        if isSingleStepping, rip != registersNow.rip || count != registersNow.rcx { return stepped() }
        engine.set(breakpoints)
        if runPage.immediateExit { return .fail(.interrupted) }

        var left = vm.model.configuration.timeSlice
        var stopsInARow = 0
        while left > 0 {
            if specialChanged { loadSpecial(into: engine) }
            engine.registers = registersNow
            engine.enter(ring: currentRing)
            let lendsPrivilege = engine.lendsPrivilege
            let (stop, executed) = unsafe engine.run(
                limit: isSingleStepping || lendsPrivilege ? 1 : UInt64(left), immediateExit: immediateExit)
            if let failure = engine.failure { return engineFailed(failure) }
            registersNow = engine.registers
            storeSpecial()
            left -= Int(executed)
            vm.model.clock &+= executed
            takeTouches(engine)
            if lendsPrivilege, stop != CUC_STOP_MEMORY { engine.reclaimPrivilege() }
            if isSingleStepping, executed > 0 { return stepped(engine.breakpointHits(after: stop)) }
            let step: Step
            switch stop {
            case CUC_STOP_BREAKPOINT: return reachedBreakpoints(engine.breakpointHits(after: stop))
            case CUC_STOP_LIMIT where lendsPrivilege: step = .proceed
            case CUC_STOP_LIMIT, CUC_STOP_KICK: return .fail(.interrupted)
            case CUC_STOP_NOTES: step = .proceed
            case CUC_STOP_MEMORY: step = serve(unsafe cuc_fault(engine.cpu), engine)
            case CUC_STOP_PRIVILEGED:
                left -= 1
                vm.model.clock &+= 1
                step = doPrivileged(engine)
                if isSingleStepping, case .proceed = step { return stepped() }
            case CUC_STOP_EXCEPTION: step = exception(engine.exception)
            default: step = internalError()
            }
            guard case .proceed = step else { return step }
            // Every stop resolves its cause, so the guest makes progress. If it ever does not, report that.
            stopsInARow = executed > 0 || stop == CUC_STOP_PRIVILEGED ? 0 : stopsInARow + 1
            if stopsInARow > 1000 { return internalError() }
        }
        return .fail(.interrupted)
    }

    private func completePending(_ engine: Engine) -> Step {
        switch pending {
        case nil: return .proceed
        case .hypercall(let rip, let length):
            pending = nil
            if registersNow.rip == rip {
                registersNow.rax = runPage.hypercall.ret
                if let failure = failedStepOver() { return failure }
                stepOver(length)
            }
            return .proceed
        case .port(let access):
            pending = nil
            return registersNow.rip == access.rip ? complete(access, engine) : .proceed
        case .element(let access):
            pending = nil
            return registersNow.rip == access.rip ? completeElement(access, engine) : .proceed
        case .mmio(let instruction):
            pending = nil
            return registersNow.rip == instruction.rip ? complete(instruction, engine) : .proceed
        case .ghcb(let rip, let length, let request):
            pending = nil
            return registersNow.rip == rip ? complete(request, rip: rip, length: length) : .proceed
        case .module(let rip, let length, let request):
            pending = nil
            return registersNow.rip == rip ? complete(request, rip: rip, length: length) : .proceed
        }
    }

    func takeTouches(_ engine: Engine) {
        let (model, number) = (vm.model, vm.number)
        engine.takeTouches { gpa, isWrite in
            if let new = model.kernel.noteGuestTouch(number, at: gpa, isWrite: isWrite) {
                lastFaultedIn = new
            }
            // Another vCPU, or this one through another address, may have translated code from that page.
            if isWrite { model.kernel.noteGuestWrite(number, at: gpa) }
        }
        model.applyEffects()
    }

    // MARK: exits without completion

    /// - Parameter exception: the exception that cannot be delivered.
    func shutdown(_ exception: CPUException) -> Step {
        unhandled = UnhandledException(
            exception, code: codeAtRIP(), registersNow, pageTables: special.cr3)
        runPage.exitReason = CKVM_EXIT_SHUTDOWN
        return .exit
    }

    /// The engine, or its process, has failed.
    func engineFailed(_ failure: CPUFailure) -> Step {
        let isNew = self.failure == nil
        registersNow.rip = failure.rip
        self.failure = failure
        if failure.code.isEmpty { self.failure?.code = codeAtRIP() }
        // After a kick the caller expects `EINTR`. The failure is reported if the vCPU is run again.
        return isNew && failure.reason == .unresponsive ? .fail(.interrupted) : internalError()
    }

    /// An operation that KVM's emulator does not support either, such as executing code outside of memory.
    func internalError() -> Step {
        runPage.exitReason = CKVM_EXIT_INTERNAL_ERROR
        var error = ckvm_run_internal()
        error.suberror = CKVM_INTERNAL_ERROR_EMULATION
        runPage.internalError = error
        return .exit
    }

    /// - Parameter fault: nil for `EFAULT` without an exit.
    func memoryFault(_ fault: MemoryFault?) -> Step {
        guard let fault else { return .fail(.badAddress) }
        runPage.exitReason = CKVM_EXIT_MEMORY_FAULT
        runPage.memoryFault = ckvm_run_memory_fault(flags: fault.flags, gpa: fault.gpa, size: fault.size)
        return vm.model.kernel.rules.faults.contains(.faultReturnsSuccess)
            ? .exit : .fail(vm.errno(of: fault))
    }

    /// A CPU cannot have this state, or this one does not support it.
    private func failEntry() -> Step {
        runPage.exitReason = CKVM_EXIT_FAIL_ENTRY
        let invalidGuestState: UInt64 = 0x8000_0021
        unsafe page.assumingMemoryBound(to: ckvm_run.self).pointee.fail_entry.hardware_entry_failure_reason =
            invalidGuestState
        return .exit
    }

    /// The current ring of the guest.
    var currentRing: Int { special.cr0 & 1 == 0 ? 0 : Int(special.ss.dpl) }

    // MARK: the other calls

    /// `KVM_GET_REGS`.
    ///
    /// - Throws: `EINVAL` on an SNP or TDX VM after its launch, whose registers are encrypted.
    public func registers() throws(Errno) -> ckvm_regs {
        try vm.model.call { () throws(Errno) in
            guard !hasProtectedState else { throw .invalidArgument }
            return registersNow
        }
    }

    /// Whether the host can no longer see or set the registers.
    private var hasProtectedState: Bool {
        vm.encryptionBit != nil && vm.model.kernel.isFinalized(vm.number)
    }

    /// `KVM_SET_REGS`. Bit 1 of RFLAGS is always set.
    ///
    /// - Throws: `EINVAL` on an SNP or TDX VM after its launch.
    public func setRegisters(_ registers: ckvm_regs) throws(Errno) {
        try vm.model.call { () throws(Errno) in
            guard !hasProtectedState else { throw .invalidArgument }
            registersNow = registers
            registersNow.rflags |= 2
        }
    }

    /// The registers as set, with changes by the guest to control registers, EFER, segment registers and the
    /// descriptor table registers. LDTR and TR stay as set.
    ///
    /// - Throws: nothing.
    public func specialRegisters() throws(Errno) -> ckvm_sregs {
        vm.model.call {
            storeSpecial()
            return special
        }
    }

    /// `KVM_SET_SREGS`. A state that no CPU can have, or 5-level paging, is accepted, and the next run ends with
    /// `KVM_EXIT_FAIL_ENTRY`.
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
    /// - Throws: `EINVAL` for a different table after the vCPU has run, `E2BIG` for more than 256 entries.
    public func setCPUID(_ table: CPUIDTable) throws(Errno) {
        try vm.model.call { () throws(Errno) in
            guard table.entries.count <= Int(CKVM_CPUID_MAX_ENTRIES) else { throw .argListTooLong }
            guard engine == nil || table.isEqual(to: self.table) else { throw .invalidArgument }
            self.table = table
        }
    }

    /// `KVM_SET_GUEST_DEBUG`: single step, INT3 and the debug registers. Instructions that the monitor emulates do not
    /// reach data breakpoints.
    ///
    /// - Throws: `EINVAL` for an unknown flag, and on an SNP or TDX VM after its launch.
    public func setGuestDebug(_ request: ckvm_guest_debug) throws(Errno) {
        try vm.model.call { () throws(Errno) in
            guard !hasProtectedState, request.control & ~Self.debugControls == 0 else {
                throw .invalidArgument
            }
            debug = request
        }
    }

    /// Takes no lock: the vCPU may be running and checks the flag before every instruction.
    public func kick() { runPage.setImmediateExit() }
}

/// The offset of `immediate_exit` in `struct kvm_run`.
private let immediateExitOffset = MemoryLayout<ckvm_run>.offset(of: \.immediate_exit) ?? 1

extension ckvm_sregs {
    var isPaging: Bool { cr0 & 1 << 31 != 0 }
    /// EFER.LMA: 64-bit mode or compatibility mode.
    var isLongModeActive: Bool { efer & 1 << 10 != 0 }
    var hasPhysicalAddressExtension: Bool { cr4 & 1 << 5 != 0 }

    /// The size of code: 16, 32 or 64 bits.
    var codeBits: Int { isLongModeActive && cs.l != 0 ? 64 : cs.db != 0 ? 32 : 16 }
    /// The bits of RIP that count.
    var codeMask: UInt64 { .max >> UInt64(64 - codeBits) }

    /// Whether a CPU can have this state, and this one supports it: real mode, protected mode with or without paging, and
    /// long mode with 4-level paging.
    var isValid: Bool {
        let isProtected = cr0 & 1 != 0
        let hasFiveLevels = cr4 & 1 << 12 != 0
        let isLongModeEnabled = efer & 1 << 8 != 0
        guard isProtected || !isPaging, !hasFiveLevels else { return false }
        guard isLongModeActive == (isLongModeEnabled && isPaging) else { return false }
        return isLongModeActive ? hasPhysicalAddressExtension : cs.l == 0
    }

    /// Sets CR0, and EFER.LMA as it follows from it.
    mutating func setCR0(_ value: UInt64) {
        cr0 = value | 1 << 4
        let isActive = isPaging && efer & 1 << 8 != 0
        efer = efer & ~(1 << 10) | (isActive ? 1 << 10 : 0)
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
