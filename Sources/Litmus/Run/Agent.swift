import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// The guest that does the steps of vCPUs: it asks for an address and an order by port, makes one access to one byte or one
/// hypercall, and says what came of it.
///
/// It lives in a guest_memfd of its own, far above the memory of tests, which no step can name. A vCPU acts on one thread at a
/// time; different ones may on different threads.
final class Agent: Sendable {
    private static func code(_ method: HypercallMethod) -> [UInt8] {
        let call: [UInt8] =
            switch method {
            case .vmmcall: [0x0f, 0x01, 0xd9]
            case .vmcall: [0x0f, 0x01, 0xc1]
            case .port: [0xe7, 0xe8, 0x90]  // out %eax, $0xe8; nop
            }
        return [
            0xe5, 0xf5,  //              1: in   $0xf5, %eax
            0x89, 0xc7,  //                 mov  %eax, %edi      the address
            0xe5, 0xf5,  //                 in   $0xf5, %eax
            0x89, 0xc1,  //                 mov  %eax, %ecx      bytes, or pages
            0xe5, 0xf5,  //                 in   $0xf5, %eax     the order in AH, a byte in AL
            0x84, 0xe4, 0x74, 0x1f,  //     test %ah, %ah;  jz read
            0x80, 0xfc, 0x01, 0x74, 0x20,  // cmp $1, %ah;  je write
            0x80, 0xfc, 0x02, 0x74, 0x1f,  // cmp $2, %ah;  je fill
            0x80, 0xfc, 0x03, 0x74, 0x20,  // cmp $3, %ah;  je check
            0x89, 0xfb,  //                 mov  %edi, %ebx      a call
            0xe5, 0xf5,  //                 in   $0xf5, %eax
            0x89, 0xc2,  //                 mov  %eax, %edx      attributes
            0xb8, 0x0c, 0x00, 0x00, 0x00,  // mov $12, %eax      KVM_HC_MAP_GPA_RANGE
        ] + call + [
            0xeb, 0x1b,  //                 jmp  tell
            0x8a, 0x07,  //           read: mov  (%rdi), %al
            0xe6, 0xf4,  //                 out  %al, $0xf4      what was read
            0xeb, 0xcd,  //                 jmp  1b
            0x88, 0x07,  //          write: mov  %al, (%rdi)
            0xeb, 0x02,  //                 jmp  done
            0xf3, 0xaa,  //           fill: rep stosb
            0x31, 0xc0,  //           done: xor  %eax, %eax
            0xeb, 0x0b,  //                 jmp  tell
            0xf3, 0xae,  //          check: repe scasb
            0xb8, 0x00, 0x00, 0x00, 0x00,  // mov $0, %eax       all the same: 0
            0x74, 0x02,  //                 je   tell
            0x89, 0xf8,  //                 mov  %edi, %eax      or one past the first that is not
            0xe7, 0xf6,  //           tell: out  %eax, $0xf6     the answer
            0xeb, 0xb4,  //                 jmp  1b
        ]
    }
    private static let askPort: UInt16 = 0xf5
    private static let tellPort: UInt16 = 0xf4
    private static let answerPort: UInt16 = 0xf6
    private static let callPort: UInt16 = 0xe8
    /// Code, then three levels of tables: the first GiB is mapped to itself in pages of 2 MiB, the second one to the shared
    /// door, where there are two.
    private static let size = 5 * pageSize
    private static let sharedDoor: UInt64 = 1 << 30
    /// Guest-physical; tests have what is below.
    static let start: UInt64 = (1 << 30) - (1 << 20)
    private static let slot: UInt32 = 400
    /// So that a step ends soon on a kernel that interprets its guests.
    static let mostBytes = 4 * pageSize
    /// Memory faults after which an access of a racing vCPU is given up. A conversion that it meets on its way can be one.
    private static let mostRaces = 10_000

    /// `KVM_HC_MAP_GPA_RANGE` as the guest has asked for it.
    struct Call {
        let gpa: UInt64
        let pages: UInt64
        let attributes: UInt64
    }
    /// What the monitor makes of one: nil, or the errno and the page that it is about.
    typealias Answer = (errno: Errno, page: UInt64?)?

    /// A vCPU.
    private final class CPU: Sendable {
        let vcpu: any KVMVCPU
        /// It stands before an access that it cannot finish.
        let isStuck = Atomic<Bool>(false)
        /// What has stopped it is a memory fault, so that nothing of the access was done.
        let isAtFault = Atomic<Bool>(false)
        /// The access, if ``World`` can have it made again. Used by the thread that runs the vCPU.
        let pending = Mutex<Action?>(nil)

        init(_ vcpu: any KVMVCPU) { self.vcpu = vcpu }
    }

    private let vm: any KVMVirtualMachine
    private let file: any KVMGuestMemfd
    private let view: any HostMapping
    private let method: HypercallMethod
    private let cpuid: CPUIDTable
    /// Guest-physical, as CR3 has it.
    private let tables: UInt64
    private let patience: Patience
    /// A vCPU that a memory fault has stopped can be started anew: the kernel itself says the fault, and no adapter keeps the
    /// access for the next run.
    private let canRewind: Bool
    private let vcpus = Mutex<[Int: CPU]>([:])

    /// - Parameter sharedBit: of a VM with two doors. The guest's own pages are private then.
    init(
        on vm: any KVMVirtualMachine, sharedBit: Int?, _ facts: KernelFacts, _ patience: Patience
    ) throws(Stop) {
        self.vm = vm
        self.patience = patience
        method = facts.hypercallMethod
        canRewind = facts.isLinux
        do throws(Errno) {
            cpuid = try facts.supportedCPUID()
            if method != .port {
                try vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
            }
            let (file, isPlain) = try Self.file(on: vm, facts.kernel)
            self.file = file
            view = try file.map(offset: 0, length: Self.size)
            try Self.write(Self.code(method), at: 0, view)
            let door = sharedBit.map { UInt64(1) << UInt64($0) } ?? 0
            // Private like the rest of such a guest, where its bytes survive that; else it stays shared, and is reached so. KVM
            // has to read them where there is no memslot, to emulate the access, and reads no private page.
            // A kernel that was told to have no memory for a conversion (`kernel runs`) refuses this one as well.
            let hasMemory = facts.soft.map { $0.configuration.maximumAttributeRuns > 2 } ?? true
            let isPrivate =
                sharedBit != nil && vm.contentPromise.canPreserve && !facts.isLinux && hasMemory
            let ownDoor = isPrivate ? 0 : door
            tables = (Self.start + pageSize) | ownDoor
            try Self.write(Self.bytes([tables + pageSize | 3]), at: pageSize, view)
            let directories = [tables + 2 * pageSize | 3, tables + 3 * pageSize | 3]
            try Self.write(Self.bytes(directories), at: 2 * pageSize, view)
            // Present, writable, a large page.
            let ownPage = Self.start >> 21
            let low = (0..<512).map { page in page << 21 | 0x83 | (page == ownPage ? ownDoor : 0) }
            try Self.write(Self.bytes(low), at: 3 * pageSize, view)
            try Self.write(Self.bytes((0..<512).map { $0 << 21 | door | 0x83 }), at: 4 * pageSize, view)
            if isPrivate {
                var request = ckvm_memory_attributes2()
                request.size = Self.size
                request.attributes = Attributes.private
                request.flags = vm.contentPromise.toPrivate == .byFlag ? ContentMode.preserve.rawValue : 0
                try file.convertInPlace(&request)
            }
            var region = ckvm_userspace_memory_region2()
            region.slot = Self.slot
            region.guest_phys_addr = Self.start
            region.memory_size = Self.size
            region.userspace_addr = view.address
            if !isPlain {
                region.flags = Binding.guestMemfd
                region.guest_memfd = UInt32(bitPattern: file.descriptor)
            }
            try vm.setUserMemoryRegion2(region)
        } catch {
            throw .absent(
                "the guest that does the steps of vCPUs cannot be loaded here (\(error.name))",
                "the guest that does the steps of vCPUs", error)
        }
    }

    /// A file that the host can write, and whether its memslot has to do without it: a VM with private memory that does not
    /// convert in place has none whose pages are shared at first, and gets the mapping of a default VM's.
    private static func file(
        on vm: any KVMVirtualMachine, _ kernel: any KVMInterface
    ) throws(Errno) -> (any KVMGuestMemfd, isPlain: Bool) {
        let flags: GuestMemfdFlags = [.mmap, .initShared]
        do throws(Errno) {
            return (try vm.createGuestMemfd(size: size, flags: flags), isPlain: false)
        } catch {
            guard error == .invalidArgument else { throw error }
            let other = try kernel.createVM(.default, sharedBit: nil)
            return (try other.createGuestMemfd(size: size, flags: flags), isPlain: true)
        }
    }

    deinit { removeVCPUs() }

    private func removeVCPUs() {
        let gone = vcpus.withLock { vcpus in
            defer { vcpus = [:] }
            return vcpus.values.map(\.vcpu)
        }
        for vcpu in gone { patience.remove(vcpu) }
    }

    /// - Parameter deletesSlot: the VM may live on.
    func close(deletesSlot: Bool) {
        removeVCPUs()
        guard deletesSlot else { return }
        var region = ckvm_userspace_memory_region2()
        region.slot = Self.slot
        region.flags = Binding.guestMemfd
        try? vm.setUserMemoryRegion2(region)
    }

    /// Has every vCPU stand where it asks for its next order. No vCPU runs.
    ///
    /// - Returns: whether they do.
    func rewind() -> Bool {
        for cpu in vcpus.withLock({ Array($0.values) }) where cpu.isStuck.load(ordering: .relaxed) {
            // What else has stopped a vCPU may leave something in the kernel or in an adapter.
            guard cpu.isAtFault.load(ordering: .relaxed), canRewind else { return false }
            do throws(Errno) { try start(cpu.vcpu) } catch { return false }
            cpu.isStuck.store(false, ordering: .relaxed)
            cpu.pending.withLock { $0 = nil }
        }
        return true
    }

    /// Most pages that its guest's memory can have in the second-stage tables.
    static let pages = size / pageSize

    // MARK: steps

    /// An access to bytes, or a part of one.
    ///
    /// - Parameters:
    ///   - extent: guest-physical.
    ///   - isRacing: a memory fault may be a conversion met on the way, so the vCPU enters again, as any monitor would.
    func access(
        _ extent: Extent, _ action: Action, vcpu number: Int, isRacing: Bool
    ) throws(Stop) -> Observation {
        try Self.check(extent)
        guard extent.size <= Self.mostBytes else {
            throw .guestStepTooLong
        }
        let door = extent.name == .shared ? Self.sharedDoor : 0
        let orders = [UInt32(extent.offset + door), UInt32(extent.size), action.order]
        let (seen, isDone) = try run(orders, number, isRacing) { _ in nil }
        if !isDone, action.isSingle { try cpu(number).pending.withLock { $0 = action } }
        guard isDone, case .check = action, case .errno(let past, _) = seen else { return Observation(seen) }
        // The answer is a place, and no errno.
        return Observation(.differs(at: UInt64(UInt32(bitPattern: 0 &- past)) &- door &- 1))
    }

    /// Enters again, before the access that the vCPU has left.
    func again(vcpu number: Int) throws(Stop) -> Observation {
        let cpu = try cpu(number)
        guard cpu.isStuck.load(ordering: .relaxed), cpu.pending.withLock({ $0 != nil }) else {
            throw .noAccessToRepeat(number)
        }
        cpu.isStuck.store(false, ordering: .relaxed)
        let (seen, isDone) = try run([], number, false) { _ in nil }
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
            throw .skip("an adapter's vCPUs have no such call")
        }
        do throws(Errno) {
            try call(vcpu)
            return Observation(.ok)
        } catch {
            return Observation(.errno(error.rawValue))
        }
    }

    /// - Parameter answer: what the monitor does for the call.
    func hypercall(
        _ extent: Extent, _ attributes: UInt64, vcpu number: Int, _ answer: (Call) throws(Stop) -> Answer
    ) throws(Stop) -> Observation {
        let call = try Call(extent, attributes)
        let orders = [call.gpa, call.pages, 0x400, call.attributes].map { UInt32(truncatingIfNeeded: $0) }
        let (seen, _) = try run(orders, number, true, answer)
        return Observation(seen)
    }

    static func check(_ extent: Extent) throws(Stop) {
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard !overflow, end <= start else {
            throw .broken("a vCPU reaches guest-physical addresses below \(hex(start))")
        }
    }

    /// - Parameter orders: what the guest asks for, in order.
    /// - Returns: what came of it, and whether the access was made.
    private func run(
        _ orders: [UInt32], _ number: Int, _ isRacing: Bool, _ monitor: (Call) throws(Stop) -> Answer
    ) throws(Stop) -> (StepOutcome, Bool) {
        let cpu = try cpu(number)
        guard !cpu.isStuck.load(ordering: .relaxed) else { throw .vcpuIsStuck(number) }
        let vcpu = cpu.vcpu
        let page = vcpu.runPage
        var asked = 0
        var races = 0
        var isMMIO = false
        var named: UInt64?
        var callInProgress: UInt64?
        func stop(_ outcome: StepOutcome) -> (StepOutcome, Bool) {
            var isAtFault = false
            if case .fault = outcome { isAtFault = true }
            cpu.isAtFault.store(isAtFault, ordering: .relaxed)
            cpu.isStuck.store(true, ordering: .relaxed)
            return (outcome, false)
        }
        func answer(_ call: Call) throws(Stop) -> Int64 {
            guard let (errno, page) = try monitor(call) else { return 0 }
            named = page
            return -Int64(errno.rawValue)
        }
        while true {
            switch vcpu.runToExit() {
            case .interrupted:
                // A time slice that ends is no exit; the agent is done after three that are.
                guard !patience.isOver else {
                    throw .broken("time is over, and vcpu\(number) has not come to an end")
                }
            case .io(let io) where io.port == Self.askPort && io.size == 4 && asked < orders.count:
                let order = orders[asked]
                asked += 1
                _ = unsafe page.withIOData(io) { bytes in unsafe bytes.storeBytes(of: order, as: UInt32.self)
                }
            case .io(let io) where io.port == Self.tellPort && io.size == 1:
                let byte = unsafe page.withIOData(io) { bytes in unsafe bytes.load(as: UInt8.self) } ?? 0
                return isMMIO ? (.mmio, false) : (.value(byte), true)
            case .io(let io) where io.port == Self.callPort && io.size == 4:
                do throws(Errno) {
                    var registers = try vcpu.registers()
                    let call = Call(
                        gpa: registers.rbx, pages: registers.rcx, attributes: registers.rdx)
                    var result: Int64 = 0
                    do throws(Stop) { result = try answer(call) } catch { throw Errno.ioError }
                    registers.rax = UInt64(bitPattern: result)
                    try vcpu.setRegisters(registers)
                } catch {
                    throw .broken("the call of vcpu\(number) could not be answered (\(error.name))")
                }
            case .hypercall(let call):
                var reply = call
                let asked = Call(gpa: call.args.0, pages: call.args.1, attributes: call.args.2)
                reply.ret = UInt64(bitPattern: try answer(asked))
                page.hypercall = reply
                callInProgress = try? vcpu.registers().rip
            case .internalError(CKVM_INTERNAL_ERROR_EMULATION)
            where Self.stepOver(callInProgress, vcpu):
                callInProgress = nil
            case .io(let io) where io.port == Self.answerPort && io.size == 4:
                let word = unsafe page.withIOData(io) { bytes in unsafe bytes.load(as: Int32.self) } ?? 0
                if isMMIO { return (.mmio, false) }
                return (word == 0 ? .ok : .errno(0 &- word, at: named), true)
            case .mmio: isMMIO = true
            case .memoryFault(let fault, let errno):
                races += 1
                if isRacing, errno == .badAddress, races < Self.mostRaces, !patience.isOver { continue }
                // What stops a step first is what it comes to.
                if isMMIO { return stop(.mmio) }
                return stop(
                    errno == .hardwarePoisoned
                        ? .errno(errno.rawValue, at: fault.gpa) : .fault(fault.wants, at: fault.gpa))
            case .failed(.notSupported): throw .skip("vCPUs cannot run here: this kernel has no CPU")
            case .failed(.resourceTemporarilyUnavailable): continue
            case .failed(let errno): return stop(isMMIO ? .mmio : .errno(errno.rawValue))
            case let other: throw Self.stop(other, vcpu, number)
            }
        }
    }

    /// An exit that no step comes to. A program that is a CPU may have failed, by the host or by the guest's code.
    private static func stop(_ exit: Exit, _ vcpu: any KVMVCPU, _ number: Int) -> Stop {
        guard let failure = (vcpu as? any SoftwareVCPU)?.failure else {
            return .broken("vcpu\(number) left with \(exit)")
        }
        let what = "vcpu\(number): \(failure)"
        return failure.hostErrno.map { .host(HostFailure(what, $0)) } ?? .broken(what)
    }

    /// A CPU that does not save the next RIP leaves it to KVM to read the instruction, which it cannot where the code is
    /// private: the answer is in RAX, and RIP still at the call.
    private static func stepOver(_ call: UInt64?, _ vcpu: any KVMVCPU) -> Bool {
        guard let call, var registers = try? vcpu.registers(), registers.rip == call else { return false }
        let length: UInt64 = 3
        registers.rip &+= length
        do throws(Errno) { try vcpu.setRegisters(registers) } catch { return false }
        return true
    }

    /// Makes the vCPU if there is none yet.
    func prepare(_ number: Int) throws(Stop) { _ = try cpu(number) }

    private func cpu(_ number: Int) throws(Stop) -> CPU {
        if let cpu = vcpus.withLock({ $0[number] }) { return cpu }
        do throws(Errno) {
            let vcpu = try vm.createVCPU(id: number)
            // A CPU has to have long mode, and as many physical address bits as a shared bit takes.
            try vcpu.setCPUID(cpuid)
            try start(vcpu)
            let cpu = CPU(vcpu)
            vcpus.withLock { $0[number] = cpu }
            patience.add(vcpu)
            return cpu
        } catch {
            throw .absent("vcpu\(number) cannot be had here (\(error.name))", "KVM_CREATE_VCPU", error)
        }
    }

    private func start(_ vcpu: any KVMVCPU) throws(Errno) {
        try vcpu.setSpecialRegisters(vcpu.specialRegisters().inLongMode(tables: tables))
        var registers = ckvm_regs()
        registers.rip = Self.start
        registers.rflags = 2
        try vcpu.setRegisters(registers)
    }

    private static func write(_ bytes: [UInt8], at offset: UInt64, _ view: any HostMapping) throws(Errno) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { unsafe buffer.deallocate() }
        unsafe buffer.copyBytes(from: bytes)
        let count = unsafe try view.write(at: offset, from: UnsafeRawBufferPointer(buffer))
        guard count == bytes.count else { throw .badAddress }
    }

    private static func bytes(_ words: [UInt64]) -> [UInt8] {
        words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (UInt64($0) * 8)) } }
    }
}

extension Agent.Call {
    /// - Throws: where a guest cannot ask for that.
    init(_ extent: Extent, _ attributes: UInt64) throws(Stop) {
        guard extent.offset % pageSize == 0, extent.size % pageSize == 0 else {
            throw .broken("a hypercall names whole pages, and \(extent) is none")
        }
        let word = Attributes.hypercallWord(attributes)
        // What fits a register here; the pages may lie anywhere.
        guard extent.offset <= UInt32.max, extent.size / pageSize <= UInt32.max, word <= UInt32.max else {
            throw .broken("a hypercall names pages below 4 GiB, and attributes below 2^32")
        }
        self.init(gpa: extent.offset, pages: extent.size / pageSize, attributes: word)
    }
}

extension Attributes {
    /// The attributes of `KVM_HC_MAP_GPA_RANGE` for those of a conversion; a word that is none of its is as it is.
    static func hypercallWord(_ attributes: UInt64) -> UInt64 {
        switch state(attributes) {
        case .private?: CKVM_MAP_GPA_RANGE_ENCRYPTED
        case .shared?: 0
        case nil: attributes
        }
    }
}

extension Action {
    fileprivate var order: UInt32 {
        switch self {
        case .write(_, let byte): 0x100 | UInt32(byte)
        case .fill(_, let byte): 0x200 | UInt32(byte)
        case .check(_, let byte): 0x300 | UInt32(byte)
        default: 0
        }
    }
}
