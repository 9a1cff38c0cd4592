// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// The monitor's response to a memory fault.
public enum FaultPolicy: String, Sendable, CaseIterable {
    /// Converts the page to the state that the access wants.
    case convert
    /// Enters the guest again without converting: demonstrates hazard A34.
    case reenter
    /// Ends the guest: an access is no request. The default for SNP and TDX, where a conversion loses the page (hazard V26).
    case refuse
}

/// A way in which a host is hostile or careless towards an SNP or TDX guest. A run shows whether the guest notices.
public enum HostBehaviour: String, Sendable, CaseIterable {
    /// Tells the guest that each request for free RAM was done, and does nothing.
    case lie
    /// Refuses each request of the guest for free RAM.
    case refuse
    /// Swaps the host pages of two guest pages when the guest calls `HC_HOST_ACTS`.
    case swapPages = "swap-pages"
    /// Takes private pages from the guest when it calls `HC_HOST_ACTS`.
    case takePages = "take-pages"
    /// SNP: does the first entry of each page state change, and makes the list in shared memory end there.
    case shrinkList = "shrink-list"
    /// Answers each request of the guest for free RAM with `hypercall.ret` = 1, which is no errno that KVM accepts there.
    case wrongRet = "wrong-ret"
}

/// The configuration of a machine.
public struct MachineConfiguration: Sendable {
    /// The type of the VM. SNP and TDX have two aliases, and every conversion loses the contents.
    public var vmType = VMType.softwareProtected
    /// The behaviour of the host towards the guest of an SNP or TDX VM. Empty is an honest host.
    public var host: Set<HostBehaviour> = []
    /// TDX: the touch of a page that is not accepted raises #VE in the guest (SEPT_VE_DISABLE is clear).
    public var raisesVE = false
    /// The machine has KVM's interrupt controllers and timer, and COM1 drives line 4.
    public var hasInterruptControllers = false
    /// Bytes.
    public var ramSize: UInt64 = 16 << 20
    /// The number of regions of RAM, each with its own guest_memfd.
    public var regions = 1
    /// From 1 to 16 (``GuestLayout/vcpuBounds``).
    public var vcpus = 1
    /// With two, the backend must distinguish private and shared accesses by address.
    public var aliases = Aliases.one
    /// The reaction to a memory fault with two aliases. With one, every memory fault is treated as a
    /// race.
    public var faultPolicy = FaultPolicy.convert
    /// The content policy of conversions that do not specify one.
    public var contents = ContentPolicy.preserve
    /// Whether the guest works only if conversions can preserve contents.
    public var needsPreservation = false
    /// For every conversion of the machine, including the guest's.
    public var retry = RetryPolicy()
    /// The largest single conversion call, in bytes.
    public var chunk = Converter.defaultChunk
    /// Whether VMMCALL or VMCALL reaches the monitor, as found by the probe.
    public var hypercallInstruction = false

    /// 16 MiB of RAM in one region, one vCPU and one alias; conversions preserve contents.
    public init() {}

    /// Sets the type, and what follows from it: an SNP or TDX VM has two aliases, nobody can preserve contents, and an access
    /// is no request.
    public mutating func setType(_ type: VMType) {
        vmType = type
        guard type.isConfidential else { return }
        aliases = .two
        contents = .unspecified
        needsPreservation = false
        faultPolicy = .refuse
    }
}

/// A guest with its RAM, its vCPUs and its devices. It is booted in place and runs once.
///
/// Any thread may call ``stop(_:)`` and read ``memory``; call ``run(timeout:interrupts:)`` only once.
public final class Machine: Sendable {
    /// Every result of the machine must name this backend's ``Backend/identity``.
    public let backend: any Backend
    /// The configuration that was passed in; it does not change.
    public let configuration: MachineConfiguration
    /// The addresses of image, stacks, page tables and free RAM.
    public let layout: GuestLayout
    /// RAM, with the monitor's map of the private pages.
    public let memory: GuestMemory
    /// Converts for the guest and for the host. Its ``Converter/holds`` are the references that the host has taken at
    /// the guest's request.
    public let converter: Converter
    /// The output of the guest's COM1 and port 0xe9.
    public let console: Console
    let trace: Trace?
    let observer: (any ExitObserver)?
    package let vm: any KVMVirtualMachine
    package let vcpus: [any KVMVCPU]
    /// The first outcome wins.
    private let ending = Mutex<Outcome?>(nil)
    private let stopping = Atomic<Bool>(false)
    private let cancellation: Cancellation
    private let finished: EventDescriptor
    private let counters = Mutex(RunStatistics())

    /// Builds the machine and puts the image into its memory: it is written while the pages are shared, then they are
    /// converted to private in place, contents preserved. No copy is left behind. On a backend that loses contents,
    /// everything except free RAM stays shared, and with two aliases the guest's low addresses map to the shared alias.
    ///
    /// - Parameter cancellation: also ends the building, which takes long for much memory in small chunks.
    /// - Throws: ``MachineError/unsupported(_:_:)`` if the backend cannot have this machine,
    ///   ``MachineError/configuration(_:)`` and ``MachineError/image(_:)`` if no backend can,
    ///   ``MachineError/cancelled``, ``MachineError/backend(call:errno:attempted:hint:)`` and
    ///   ``MachineError/conversion(_:)`` if a call failed.
    public init(
        backend: any Backend, configuration: MachineConfiguration, image: BootImage, console: Console,
        trace: Trace? = nil, observer: (any ExitObserver)? = nil,
        cancellation: Cancellation = Cancellation()
    ) throws(MachineError) {
        self.backend = backend
        self.cancellation = cancellation
        self.configuration = configuration
        self.console = console
        self.trace = trace
        self.observer = observer
        if configuration.vmType.isConfidential, image.mode != .long {
            throw .configuration(.modeOfConfidentialVM(image.mode))
        }
        if image.format.startsOneCPU, configuration.vcpus > 1 {
            throw .configuration(.oneCPUOnly("\(image.format)"))
        }
        backend.prepareToRun()
        let cpuid = try calling("KVM_GET_SUPPORTED_CPUID", "the system descriptor") { () throws(Errno) in
            try backend.supportedCPUID()
        }
        let sharedBit = configuration.aliases == .two ? min(46, cpuid.physicalAddressBits - 1) : nil
        try GuestLayout.check(
            ramSize: configuration.ramSize, vcpus: configuration.vcpus, sharedBit: sharedBit)
        let vm = try Machine.buildVM(backend, sharedBit, configuration)
        layout = try GuestLayout(
            ramSize: configuration.ramSize, vcpus: configuration.vcpus, sharedBit: sharedBit,
            vmType: configuration.vmType, gigabytePages: cpuid.hasGigabytePages, image: image,
            imageStaysShared: !vm.contentPromise.toPrivate.canPreserve)
        self.vm = vm
        if configuration.hasInterruptControllers, let controllers = vm as? any InterruptControllers {
            console.connect { isHigh in
                let com1: UInt32 = 4
                do { try controllers.setInterruptLine(com1, isHigh) } catch {}
            }
        }
        memory = try Machine.buildMemory(backend, vm, configuration)
        converter = Converter(
            backend: backend, vm: vm, memory: memory, holds: HoldRegistry(), policy: configuration.retry,
            chunk: configuration.chunk, trace: trace, cancellation: cancellation)
        if configuration.hypercallInstruction || configuration.vmType.isConfidential {
            try calling("KVM_ENABLE_CAP", "KVM_CAP_EXIT_HYPERCALL") { () throws(Errno) in
                try vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
            }
        }
        let boot = BootState(layout: layout, registersOfImage: image.registers, imageBase: image.base)
        var vcpus: [any KVMVCPU] = []
        for id in 0..<configuration.vcpus {
            vcpus.append(try Machine.buildVCPU(vm, id, cpuid, boot))
        }
        self.vcpus = vcpus
        do throws(Errno) {
            finished = try EventDescriptor()
        } catch {
            throw .backend(
                call: "eventfd", errno: error, attempted: "the event that ends the machine", hint: nil)
        }
        try bootInPlace(boot, image, hasVMMCALL: cpuid.hasVMMCALL)
    }

    private static func buildVM(
        _ backend: any Backend, _ sharedBit: Int?, _ configuration: MachineConfiguration
    ) throws(MachineError) -> any KVMVirtualMachine {
        let vm: any KVMVirtualMachine
        do throws(Errno) {
            vm = try backend.createVM(configuration.vmType, sharedBit: sharedBit)
        } catch .invalidArgument where configuration.vmType.isConfidential {
            throw .unsupported(.confidentialVM, backend.identity)
        } catch .invalidArgument {
            throw .unsupported(sharedBit == nil ? .privateMemory : .aliases, backend.identity)
        } catch {
            throw .backend(
                call: "KVM_CREATE_VM", errno: error,
                attempted: "a software-protected VM" + (sharedBit.map { " with shared bit \($0)" } ?? ""),
                hint: nil)
        }
        guard !configuration.vmType.isConfidential || vm is any ConfidentialVirtualMachine else {
            throw .unsupported(.confidentialVM, backend.identity)
        }
        if configuration.hasInterruptControllers { try createInterruptControllers(of: vm, backend) }
        guard !configuration.needsPreservation || vm.contentPromise.canPreserve else {
            throw .unsupported(.preservation, backend.identity)
        }
        return vm
    }

    private static func createInterruptControllers(
        of vm: any KVMVirtualMachine, _ backend: any Backend
    ) throws(MachineError) {
        guard let vm = vm as? any InterruptControllers else {
            throw .unsupported(.interruptControllers, backend.identity)
        }
        do throws(Errno) {
            try vm.createInterruptControllers()
        } catch .notSupported, .inappropriateIOCTLForDevice {
            throw .unsupported(.interruptControllers, backend.identity)
        } catch {
            throw .backend(
                call: "KVM_CREATE_IRQCHIP", errno: error, attempted: "KVM's interrupt controllers", hint: nil)
        }
    }

    private static func buildMemory(
        _ backend: any Backend, _ vm: any KVMVirtualMachine, _ configuration: MachineConfiguration
    ) throws(MachineError) -> GuestMemory {
        let pages = configuration.ramSize / pageSize
        guard configuration.regions >= 1, configuration.regions <= 64, UInt64(configuration.regions) <= pages
        else {
            throw .configuration(.regions(configuration.regions))
        }
        var regions: [MemoryRegion] = []
        var start: UInt64 = 0
        for index in 0..<UInt64(configuration.regions) {
            let end = pages * (index + 1) / UInt64(configuration.regions) * pageSize
            guard let gpa = PageRange(start: start, size: end - start) else { break }
            start = end
            let file = try buildFile(backend, vm, size: gpa.size)
            let mapping = try calling("mmap", "a guest_memfd of \(gpa.size) bytes") { () throws(Errno) in
                try file.map(offset: 0, length: gpa.size)
            }
            var slot = ckvm_userspace_memory_region2()
            slot.slot = UInt32(index)
            slot.flags = CKVM_MEM_GUEST_MEMFD
            slot.guest_phys_addr = gpa.start
            slot.memory_size = gpa.size
            slot.userspace_addr = mapping.address
            slot.guest_memfd = UInt32(bitPattern: file.descriptor)
            try calling("KVM_SET_USER_MEMORY_REGION2", "slot \(index), \(gpa)") { () throws(Errno) in
                try vm.setUserMemoryRegion2(slot)
            }
            regions.append(MemoryRegion(gpa: gpa, file: file, mapping: mapping))
        }
        return GuestMemory(regions: regions, initial: .shared)
    }

    private static func buildFile(
        _ backend: any Backend, _ vm: any KVMVirtualMachine, size: UInt64
    ) throws(MachineError) -> any KVMGuestMemfd {
        do throws(Errno) {
            return try vm.createGuestMemfd(size: size, flags: [.mmap, .initShared])
        } catch .invalidArgument {
            // Private memory that can be shared later needs conversion in place.
            throw .unsupported(.sharedGuestMemfd, backend.identity)
        } catch {
            throw .backend(
                call: "KVM_CREATE_GUEST_MEMFD", errno: error,
                attempted: "\(size) bytes, MMAP | INIT_SHARED", hint: nil)
        }
    }

    private static func buildVCPU(
        _ vm: any KVMVirtualMachine, _ id: Int, _ cpuid: CPUIDTable, _ boot: BootState
    ) throws(MachineError) -> any KVMVCPU {
        let vcpu = try calling("KVM_CREATE_VCPU", "vCPU \(id)") { () throws(Errno) in
            try vm.createVCPU(id: id)
        }
        try calling("KVM_SET_CPUID2", "vCPU \(id)") { () throws(Errno) in try vcpu.setCPUID(cpuid) }
        try calling("KVM_SET_SREGS", "vCPU \(id)") { () throws(Errno) in
            try vcpu.setSpecialRegisters(boot.specialRegisters(vcpu: id, over: vcpu.specialRegisters()))
        }
        try calling("KVM_SET_REGS", "vCPU \(id)") { () throws(Errno) in
            try vcpu.setRegisters(boot.registers(vcpu: id))
        }
        return vcpu
    }

    /// Bytes of the image to write at a time.
    private static let slice = 1 << 24

    private func bootInPlace(
        _ boot: BootState, _ image: BootImage, hasVMMCALL: Bool
    ) throws(MachineError) {
        let information = BootInformation(
            instruction: configuration.hypercallInstruction && !configuration.vmType.isConfidential,
            isVMCALL: !hasVMMCALL, vmType: configuration.vmType)
        let pieces = boot.structures(boot: information) + image.segments.map { ($0.gpa, $0.bytes) }
        for (gpa, bytes) in pieces where !bytes.isEmpty {
            do throws(HostAccessError) {
                for start in stride(from: 0, to: bytes.count, by: Self.slice) {
                    guard !cancellation.isCancelled else { break }
                    let end = min(start + Self.slice, bytes.count)
                    try memory.write(gpa: gpa + UInt64(start), Array(bytes[start..<end]))
                }
            } catch {
                throw .backend(
                    call: "process_vm_writev", errno: error.errno,
                    attempted: "the image at \(hex(error.gpa)), through the host mapping",
                    hint: nil)
            }
        }
        guard !cancellation.isCancelled else { throw .cancelled }
        trace?.record(
            .booted(
                image: layout.image, entry: layout.entry, vcpus: vcpus.count, ram: layout.ramSize,
                sharedBit: layout.sharedBit), by: .monitor)
        traceGuestPages(by: .monitor)
        if layout.imageStaysShared {
            trace?.record(.imageLeftShared(end: layout.free.lowerBound), by: .monitor)
            try makePrivate(layout.free, .unspecified)
        } else {
            try makePrivate(0..<memory.size, .preserve)
        }
        try launch()
    }

    /// Measures everything but free RAM into an SNP or TDX guest, as its firmware would find it, and ends the launch.
    private func launch() throws(MachineError) {
        guard configuration.vmType.isConfidential, let vm = vm as? any ConfidentialVirtualMachine else {
            return
        }
        traceGuestPages(by: .monitor)
        if configuration.raisesVE { vm.raiseVE() }
        if configuration.host.contains(.shrinkList) { vm.shrinkLists() }
        for bytes in [0..<layout.free.lowerBound, layout.free.upperBound..<memory.size] {
            guard let range = PageRange(start: bytes.lowerBound, size: bytes.upperBound - bytes.lowerBound)
            else {
                continue
            }
            try calling("KVM_MEMORY_ENCRYPT_OP", "measuring in \(range)") { () throws(Errno) in
                try vm.launch(range)
            }
            trace?.record(.launched(range), by: .monitor)
        }
        // The `launch` events say that the guest has taken these pages.
        _ = vm.takeGuestPages()
        try calling("KVM_MEMORY_ENCRYPT_OP", "the end of the launch") { () throws(Errno) in try vm.finalize()
        }
    }

    /// Records how far the guest has taken its pages since the last time. Only SoftKVM knows.
    func traceGuestPages(by actor: Actor) {
        guard let trace, configuration.vmType.isConfidential, let vm = vm as? any ConfidentialVirtualMachine
        else { return }
        for pages in vm.takeGuestPages() { trace.record(.guestPages(pages.range, pages.state), by: actor) }
    }

    /// Acts on two pages of the guest, as a hostile host does.
    ///
    /// - Throws: the errno of the kernel; `ENOSYS` if the host is honest.
    func act(on gpa: UInt64, _ other: UInt64) throws(Errno) {
        guard let vm = vm as? any ConfidentialVirtualMachine, let page = PageRange(start: gpa, size: pageSize)
        else {
            throw .noFunction
        }
        if configuration.host.contains(.swapPages) {
            try vm.remap(gpa, to: other)
        } else if configuration.host.contains(.takePages) {
            try vm.take(page)
        } else {
            throw .noFunction
        }
    }

    private func makePrivate(_ bytes: Range<UInt64>, _ contents: ContentPolicy) throws(MachineError) {
        guard let range = PageRange(start: bytes.lowerBound, size: bytes.upperBound - bytes.lowerBound) else {
            return
        }
        do throws(ConversionError) {
            let request = ConversionRequest(range: range, to: .private, contents: contents)
            try converter.convert(request, by: .monitor)
        } catch {
            if case .cancelled = error.reason { throw .cancelled }
            // Not as a pattern: that of Errno, which takes any error, would never match.
            guard case .backend(let number, _) = error.reason, number == .inappropriateIOCTLForDevice else {
                throw .conversion(error)
            }
            throw .unsupported(.conversion, backend.identity)
        }
    }

    // MARK: running

    /// True once the machine has to end; the run loops check it after each interruption.
    public var isStopping: Bool { stopping.load(ordering: .acquiring) }

    /// Ends the machine with an outcome, unless it already has one. Every vCPU is kicked.
    public func stop(_ outcome: Outcome) {
        let first = ending.withLock { ending in
            defer { ending = ending ?? outcome }
            return ending == nil
        }
        guard first else { return }
        stopping.store(true, ordering: .releasing)
        cancellation.cancel(outcome)
        observer?.stopping()
        for vcpu in vcpus { vcpu.kick() }
    }

    /// Counts so far; complete when ``run(timeout:interrupts:)`` has returned.
    public var statistics: RunStatistics { counters.withLock { $0 } }
    func add(_ statistics: RunStatistics) { counters.withLock { $0.add(statistics) } }

    /// Runs the guest until it ends.
    ///
    /// - Parameters:
    ///   - timeout: real time, or nil for no limit.
    ///   - interrupts: signals that end the machine.
    public func run(timeout: Duration? = nil, interrupts: SignalDescriptor? = nil) -> Outcome {
        cancellation.stopPolling()
        let groups = backend.runsVCPUsInTurns ? [vcpus] : vcpus.map { [$0] }
        let running = Atomic<Int>(groups.count)
        let threads = groups.map { group in
            HostThread { [self] in
                VCPUThread(machine: self, vcpus: group).run()
                if running.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { finished.signal() }
            }
        }
        for thread in threads where thread == nil {
            stop(
                .failed(
                    .backend(
                        call: "pthread_create", errno: .resourceTemporarilyUnavailable,
                        attempted: "a vCPU's thread",
                        hint: nil)))
            if running.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { finished.signal() }
        }
        switch finished.wait(timeout: timeout, interrupts: interrupts) {
        case .signalled: break
        case .timedOut: stop(.timeLimit(timeout ?? .zero))
        case .interrupted(let signal): stop(.interrupted(signal: signal))
        }
        for thread in threads { thread?.join() }
        // The host can still convert the memory that the guest has left.
        cancellation.reset()
        converter.holds.releaseAll { trace?.record(.released($0), by: .monitor) }
        console.flush()
        let outcome = ending.withLock { $0 } ?? .halted
        trace?.record(.stopped(outcome.description, status: outcome.exitStatus), by: .monitor)
        trace?.flush()
        return outcome
    }
}
