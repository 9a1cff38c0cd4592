// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SystemPackage

@testable import Litmus
@testable import SoftKVM

/// The machine of a test of an SNP or TDX VM whose vCPUs execute the real instructions on the software CPU. The steps of the host
/// are those of ``World``.
///
/// In an endless loop a vCPU loads its registers from a shared page, executes one instruction, stores its registers, and halts.
/// #VC and #VE are reported in the same way. A vCPU that has left with a memory fault is not used again, because the host cannot
/// set its registers; the next step has a new one.
final class InstructionMachine {
    private static let start: UInt64 = 0x3ff0_0000
    private static let tables = start + pageSize
    private static let interrupts = start + 5 * pageSize
    /// Code and data of ring 0, with the selectors 8 and 16.
    private static let descriptors = interrupts + 0x800
    private static let stack = start + 7 * pageSize
    private static let report = 7 * pageSize
    private static let ghcb = 8 * pageSize
    /// The second GiB of linear addresses is the shared alias of the first one.
    private static let shared: UInt64 = 1 << 30

    /// The words of the shared page.
    private enum Word: UInt64 {
        case routine = 0
        case rax = 8
        case rcx = 16
        case rdx = 24
        case rdi = 32
        case r10 = 40
        case r11 = 48
        case r12 = 56
        case r13 = 64
        case newRAX = 0x80
        case newR10 = 0x88
        case newR11 = 0x90
        case newRDI = 0x98
        case newFlags = 0xa0
        case vector = 0xa8
    }

    private enum Routine: CaseIterable { case read, write, fill, check, pvalidate, vmgexit, tdcall }

    /// How one instruction has ended.
    private enum End {
        case done
        /// #VC or #VE: RDI is the error code or the guest-physical address, RAX is CR2 or the reason.
        case exception
        case outcome(StepOutcome)
        case mmio
    }

    private let type: VMType
    private let world: World
    private let vm: SoftVM
    private let view: any HostMapping
    private let file: any KVMGuestMemfd
    private var unused: [SoftVCPU] = []
    private var vcpus: [Int: SoftVCPU] = [:]
    /// Accesses that a memory fault has stopped.
    private var stopped: [Int: Step] = [:]
    private var hasStopped: Set<Int> = []
    private var routines: [Routine: UInt64] = [:]
    private var nextAnswer: UInt64?

    struct Unsupported: Error { let what: String }

    /// - Parameter steps: the number of steps of vCPUs, each of which may use up a vCPU.
    init(_ test: LitmusTest, steps: Int, _ faults: Set<PlantedFault> = []) throws {
        type = test.vm
        var test = test
        test.hasTwoAliases = true
        world = try World(BackendFacts(SoftKVM(.init(plantedFaults: faults))), test, TestDeadline())
        guard let vm = try world.vm(nil) as? SoftVM else { throw Unsupported(what: "no SoftVM") }
        self.vm = vm
        try vm.enableCapability(.exitHypercall, argument: 1 << CKVM_HC_MAP_GPA_RANGE)
        file = try vm.createGuestMemfd(size: 9 * pageSize, flags: [.mmap, .initShared])
        view = try file.map(offset: 0, length: 9 * pageSize)
        try writeGuest()
        var region = ckvm_userspace_memory_region2()
        region.slot = 400
        region.flags = CKVM_MEM_GUEST_MEMFD
        region.guest_phys_addr = Self.start
        region.memory_size = 9 * pageSize
        region.userspace_addr = view.address
        region.guest_memfd = UInt32(bitPattern: file.descriptor)
        try vm.setUserMemoryRegion2(region)
        var request = ckvm_memory_attributes2()
        request.size = Self.report
        request.attributes = Attributes.private
        try file.setMemoryAttributes2(&request)
        if let own = PageRange(start: Self.start, size: Self.report) { try vm.launch(own) }
        for id in 0..<min(steps + 2, 250) {
            guard let vcpu = try vm.createVCPU(id: id) as? SoftVCPU else { continue }
            try vcpu.setCPUID(world.facts.supportedCPUID())
            var special = try vcpu.specialRegisters().inLongMode(tables: Self.tables)
            special.idt.base = Self.interrupts
            special.idt.limit = 0x7ff
            special.gdt.base = Self.descriptors
            special.gdt.limit = 0x17
            try vcpu.setSpecialRegisters(special)
            var registers = ckvm_regs()
            registers.rip = Self.start
            registers.rsp = Self.stack
            registers.rflags = 2
            try vcpu.setRegisters(registers)
            unused.append(vcpu)
        }
        if !test.steps.contains(where: { $0.action == .confidential(.finalize) }) { try vm.finalize() }
    }

    deinit { world.close() }

    // MARK: the guest

    private func put(_ bytes: [UInt8], at offset: UInt64) throws {
        _ = try bytes.withUnsafeBytes { bytes in try unsafe view.write(at: offset, from: bytes) }
    }

    private func put(_ word: UInt64, at offset: UInt64) throws { try put(Self.bytes(word), at: offset) }
    private func set(_ word: Word, _ value: UInt64) throws { try put(value, at: Self.report + word.rawValue) }

    private func word(at offset: UInt64) throws -> UInt64 {
        var bytes = [UInt8](repeating: 0, count: 8)
        _ = try bytes.withUnsafeMutableBytes { bytes in try unsafe view.read(at: offset, into: bytes) }
        return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private func get(_ word: Word) throws -> UInt64 { try self.word(at: Self.report + word.rawValue) }

    private static func bytes(_ word: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
    }

    /// Its code, page tables and interrupt table, and the marks in the GHCB that all fields are valid.
    private func writeGuest() throws {
        func half(_ value: UInt64) -> [UInt8] { Array(Self.bytes(value).prefix(4)) }
        func jump(to target: Int, from here: Int) -> [UInt8] {
            [0xe9] + half(UInt64(bitPattern: Int64(target - here - 5)))
        }
        let report = Self.shared + Self.start + Self.report
        let page: [UInt8] = [0x48, 0xbb] + Self.bytes(report)  // mov rbx, the shared page
        var code: [UInt8] = []
        if type == .snp {
            let gpa = Self.start + Self.ghcb
            func wrmsr(_ value: UInt64) -> [UInt8] {
                [0xb9] + half(0xc001_0130) + [0xb8] + half(value) + [0xba] + half(value >> 32) + [0x0f, 0x30]
            }
            code += wrmsr(gpa | 0x012) + Self.vmgexit + wrmsr(gpa)
        }
        let dispatch = code.count
        code += page + [0x48, 0xbc] + Self.bytes(Self.stack)  // mov rsp
        // mov rax, rcx, rdx, rdi, r10 to r13, [rbx + 8 and so on]; jmp [rbx]
        code += [
            0x48, 0x8b, 0x43, 0x08, 0x48, 0x8b, 0x4b, 0x10, 0x48, 0x8b, 0x53, 0x18, 0x48, 0x8b, 0x7b, 0x20,
            0x4c, 0x8b, 0x53, 0x28, 0x4c, 0x8b, 0x5b, 0x30, 0x4c, 0x8b, 0x63, 0x38, 0x4c, 0x8b, 0x6b, 0x40,
            0xff, 0x23,
        ]
        let finish = code.count
        // pushfq; mov [rbx + 0x80 and so on], rax, r10, r11, rdi; pop [rbx + 0xa0]
        code +=
            [0x9c] + page + [
                0x48, 0x89, 0x83, 0x80, 0, 0, 0, 0x4c, 0x89, 0x93, 0x88, 0, 0, 0, 0x4c, 0x89, 0x9b, 0x90, 0,
                0, 0,
                0x48, 0x89, 0xbb, 0x98, 0, 0, 0, 0x8f, 0x83, 0xa0, 0, 0, 0,
            ]
        if type == .snp {
            // SW_EXITCODE = HLT, SW_EXITINFO1 and 2 = 0, in the page behind the report.
            for (field, value) in [(0x390, 0x78), (0x398, 0), (0x3a0, 0)] as [(UInt64, UInt64)] {
                code += [0x48, 0xc7, 0x83] + half(pageSize + field) + half(value)
            }
            code += Self.vmgexit
        } else {
            // xor eax, eax; xor r10d, r10d; mov r11d, HLT
            code += [0x31, 0xc0, 0x45, 0x31, 0xd2, 0x41, 0xbb] + half(12) + Self.tdcall
        }
        code += jump(to: dispatch, from: code.count)
        let handler = code.count
        if type == .snp {
            // pop rdi; mov rax, cr2; vector 29
            code += [0x5f, 0x0f, 0x20, 0xd0] + page + [0x48, 0xc7, 0x83, 0xa8, 0, 0, 0] + half(29)
        } else {
            // VEINFO.GET; mov rdi, r9; mov rax, rcx; vector 20
            code += [0xb8] + half(3) + Self.tdcall + [0x4c, 0x89, 0xcf, 0x48, 0x89, 0xc8] + page
            code += [0x48, 0xc7, 0x83, 0xa8, 0, 0, 0] + half(20)
        }
        code += jump(to: finish, from: code.count)
        for routine in Routine.allCases {
            routines[routine] = Self.start + UInt64(code.count)
            switch routine {
            case .read: code += [0x8a, 0x07]
            case .write: code += [0x88, 0x07]
            case .fill: code += [0xf3, 0xaa]
            case .check: code += [0xf3, 0xae]
            case .pvalidate: code += [0xf2, 0x0f, 0x01, 0xff]
            // mov rax, SW_EXITINFO2: the exit that follows uses the same page.
            case .vmgexit: code += Self.vmgexit + page + [0x48, 0x8b, 0x83] + half(pageSize + 0x3a0)
            case .tdcall: code += Self.tdcall
            }
            code += jump(to: finish, from: code.count)
        }
        try put(code, at: 0)
        let own: UInt64 = type == .snp ? 1 << 51 : 0
        let other: UInt64 = type == .snp ? 0 : 1 << 47
        try put((Self.tables + pageSize) | 3, at: pageSize)
        try put((Self.tables + 2 * pageSize) | 3, at: 2 * pageSize)
        try put((Self.tables + 3 * pageSize) | 3, at: 2 * pageSize + 8)
        for page in 0..<UInt64(512) {
            try put(page << 21 | 0x83 | own, at: 3 * pageSize + page * 8)
            try put(page << 21 | 0x83 | other, at: 4 * pageSize + page * 8)
        }
        let entry = Self.start + UInt64(handler)
        let selector: UInt64 = 8  // as in ``ckvm_sregs/inLongMode(tables:)``
        let gate = entry & 0xffff | selector << 16 | 0x8e00 << 32 | (entry >> 16 & 0xffff) << 48
        for vector in [20, 29] as [UInt64] { try put(gate, at: 5 * pageSize + vector * 16) }
        try put(0x00af_9b00_0000_ffff, at: Self.descriptors - Self.start + 8)
        try put(0x00cf_9300_0000_ffff, at: Self.descriptors - Self.start + 16)
        for word in 0..<2 as Range<UInt64> { try put(.max, at: Self.ghcb + 0x3f0 + word * 8) }
    }

    private static let vmgexit: [UInt8] = [0xf3, 0x0f, 0x01, 0xd9]
    private static let tdcall: [UInt8] = [0x66, 0x0f, 0x01, 0xcc]

    // MARK: steps

    /// - Throws: ``Unsupported`` for a step that this machine does not have.
    func perform(_ step: Step) throws -> StepOutcome {
        if case .confidential(let action) = step.action, !action.isOfGuest { return try perform(action) }
        guard case .vcpu(let number) = step.actor else { return try world.perform(step).outcome }
        switch step.action {
        case .again:
            guard let old = stopped[number] else { throw Unsupported(what: "\(step)") }
            return try access(old, number, isRepeated: true)
        case .read, .write, .fill, .check: return try access(step, number)
        case .hypercall(let extent, let attributes):
            guard let state = Attributes.state(attributes) else { throw Unsupported(what: "\(step)") }
            return type == .snp
                ? try changeState(extent, state, number) : try mapGPA(extent, state, number)
        case .confidential(let action): return try take(action, number)
        default: throw Unsupported(what: "\(step)")
        }
    }

    /// A step of the hypervisor.
    private func perform(_ action: ConfidentialAction) throws -> StepOutcome {
        let range = action.extent.flatMap { PageRange(start: $0.offset, size: $0.size) }
        do throws(Errno) {
            switch (action, range) {
            case (.finalize, _): try vm.finalize()
            case (.raiseVE, _): vm.raiseVE()
            case (.answer(let number), _): nextAnswer = number
            case (.launch, let range?): try vm.launch(range)
            case (.take, let range?): try vm.take(range)
            // The first memory begins at guest-physical address 0.
            case (.remap(let gpa, let place), _): try vm.remap(gpa, to: place.offset)
            case (.track, _): vm.model.withLock { vm.model.kernel.track(vm.number) }
            case (.block, let range?), (.remove, let range?):
                guard let refusal = vm.model.withLock({ refusal(of: action, range) }) else { return .ok }
                return .status(refusal, at: range.start)
            default: return .errno(Errno.invalidArgument.rawValue)
            }
            return .ok
        } catch {
            return .errno(error.rawValue)
        }
    }

    /// The answer of the TDX module to BLOCK or REMOVE; nil if it has done it.
    private func refusal(of action: ConfidentialAction, _ range: PageRange) -> ArchitectureStatus? {
        do throws(TDXRefusal) {
            if case .block = action {
                try vm.model.kernel.block(vm.number, range)
            } else {
                try vm.model.kernel.remove(vm.number, range)
            }
            return nil
        } catch {
            return switch error {
            case .notBlocked: .notBlocked
            case .notTracked: .notTracked
            case .wrongState: .wrongState
            }
        }
    }

    private func access(_ step: Step, _ number: Int, isRepeated: Bool = false) throws -> StepOutcome {
        guard let extent = step.action.extent else { throw Unsupported(what: "\(step)") }
        let alias = extent.name == .shared ? Self.shared : 0
        try set(.rdi, extent.offset + alias)
        try set(.rcx, extent.size)
        let (routine, byte): (Routine, UInt8) =
            switch step.action {
            case .write(_, let byte): (.write, byte)
            case .fill(_, let byte): (.fill, byte)
            case .check(_, let byte): (.check, byte)
            default: (.read, 0)
            }
        try set(.rax, UInt64(byte))
        switch try run(number, isRepeated ? nil : routine, step) {
        case .outcome(let outcome): return outcome
        case .mmio: return .mmio
        case .exception: return try exception(alias)
        case .done: break
        }
        switch step.action {
        case .read: return .value(UInt8(truncatingIfNeeded: try get(.newRAX)))
        case .check where try get(.newFlags) & 0x40 == 0:
            return .differs(at: try get(.newRDI) - 1 - alias)
        default: return .ok
        }
    }

    /// #VC or #VE of an access.
    private func exception(_ alias: UInt64) throws -> StepOutcome {
        let (first, second) = (try get(.newRDI), try get(.newRAX))
        if type == .snp {
            let page = (second - alias) & ~(pageSize - 1)
            return first == 0x400 ? .mmio : .status(.vc, at: page)
        }
        let bit: UInt64 = 1 << 47
        return first & bit != 0 ? .mmio : .status(.ve, at: first & ~(pageSize - 1))
    }

    /// PVALIDATE or ACCEPT of each page, until one has another answer than success.
    private func take(_ action: ConfidentialAction, _ number: Int) throws -> StepOutcome {
        guard let extent = action.extent, let range = PageRange(start: extent.offset, size: extent.size)
        else {
            throw Unsupported(what: action.word)
        }
        for page in range.chunks(of: pageSize) {
            var isLarge = false
            let status: ArchitectureStatus?
            switch action {
            case .validate(_, let isValid, let large):
                isLarge = large
                try set(.rax, page.start)
                try set(.rcx, large ? 1 : 0)
                try set(.rdx, isValid ? 1 : 0)
                if let end = try stop(run(number, .pvalidate)) { return end }
                let carry = try get(.newFlags) & 1 != 0
                status =
                    switch (try get(.newRAX), carry) {
                    case (0, false): nil
                    case (0, true): .unchanged
                    case (6, _): .sizeMismatch
                    default: .invalid
                    }
            case .accept(_, let large):
                isLarge = large
                try set(.rax, 6)
                try set(.rcx, page.start | (large ? 1 : 0))
                if let end = try stop(run(number, .tdcall)) { return end }
                status =
                    switch try get(.newRAX) >> 32 {
                    case 0: nil
                    case 0xb0a: .unchanged
                    case 0xc000_0b0b: .sizeMismatch
                    default: .invalid
                    }
            default: throw Unsupported(what: action.word)
            }
            if let status { return .status(status, at: page.start) }
            if isLarge { break }
        }
        return .ok
    }

    private func stop(_ end: End) throws -> StepOutcome? {
        switch end {
        case .done: nil
        case .outcome(let outcome): outcome
        case .mmio: .mmio
        case .exception: try exception(0)
        }
    }

    private func changeState(_ extent: Extent, _ state: PageState, _ number: Int) throws -> StepOutcome {
        guard let range = PageRange(start: extent.offset, size: extent.size) else {
            throw Unsupported(what: "\(extent)")
        }
        for part in range.chunks(of: 253 * pageSize) {
            let count = part.size / pageSize
            let buffer = Self.ghcb + 0x800
            try put((count - 1) << 16, at: buffer)
            for index in 0..<count {
                let entry = (part.start + index * pageSize) | (state == .private ? 1 : 2) << 52
                try put(entry, at: buffer + 8 + index * 8)
            }
            for (field, value) in [
                (0x390, 0x8000_0010), (0x398, 0), (0x3a0, 0), (0x3a8, Self.start + buffer),
            ] as [(UInt64, UInt64)] {
                try put(value, at: Self.ghcb + field)
            }
            if let end = try stop(run(number, .vmgexit)) { return end }
            let current = try word(at: buffer) & 0xffff
            guard try get(.newRAX) == 0 else { return .status(.refused, at: part.start + current * pageSize) }
        }
        return .ok
    }

    private func mapGPA(_ extent: Extent, _ state: PageState, _ number: Int) throws -> StepOutcome {
        let bit: UInt64 = 1 << 47
        try set(.rax, 0)
        try set(.rcx, 0xffcc)
        try set(.r10, 0)
        try set(.r11, 0x10001)
        try set(.r12, extent.offset | (state == .shared ? bit : 0))
        try set(.r13, extent.size)
        if let end = try stop(run(number, .tdcall)) { return end }
        let (answer, place) = (try get(.newR10), try get(.newR11) & ~bit)
        return switch answer {
        case 0: .ok
        case 1: .status(.retry, at: place)
        default: .status(.invalid, at: place)
        }
    }

    // MARK: exits

    private func vcpu(_ number: Int) throws -> SoftVCPU {
        if let vcpu = vcpus[number] { return vcpu }
        guard let new = unused.popLast() else { throw Unsupported(what: "no vCPU is left") }
        vcpus[number] = new
        return new
    }

    /// Executes one instruction.
    ///
    /// - Parameters:
    ///   - routine: nil repeats the instruction that a memory fault stopped.
    ///   - step: the access, which may be repeated.
    private func run(_ number: Int, _ routine: Routine?, _ step: Step? = nil) throws -> End {
        if let routine {
            if hasStopped.remove(number) != nil { vcpus[number] = nil }
            try set(.routine, routines[routine] ?? 0)
        }
        stopped[number] = nil
        try set(.vector, 0)
        let vcpu = try vcpu(number)
        for _ in 0..<10_000 {
            switch vcpu.runToExit() {
            case .interrupted: continue
            case .halt: return try get(.vector) == 0 ? .done : .exception
            case .hypercall(let call): try answer(call, vcpu)
            case .memoryFault(let fault, _):
                if let onFault = step?.onFault {
                    let (answer, _) = try world.convert(for: fault, onFault)
                    if case .isFailed(let errno, let page) = answer {
                        return stopped(number, step, .errno(errno.rawValue, at: page))
                    }
                    continue
                }
                return stopped(number, step, .fault(fault.wants, at: fault.gpa))
            case .failed(let errno): return stopped(number, step, .errno(errno.rawValue))
            case let exit: throw Unsupported(what: "\(exit)")
            }
        }
        throw Unsupported(what: "no end")
    }

    private func stopped(_ number: Int, _ step: Step?, _ outcome: StepOutcome) -> End {
        stopped[number] = step
        hasStopped.insert(number)
        return .outcome(outcome)
    }

    /// The monitor's answer to one exit of a page state change or MapGPA.
    private func answer(_ call: ckvm_run_hypercall, _ vcpu: SoftVCPU) throws {
        var call = call
        if let given = nextAnswer {
            nextAnswer = nil
            call.ret = given
        } else {
            let asked = GuestCall(number: call.nr, arguments: (call.args.0, call.args.1, call.args.2))
            guard let request = MapRequest(asked.arguments) else {
                throw Unsupported(what: "a malformed request")
            }
            let failure = try world.mapGPARange(request)
            let isBusy = failure?.errno == .resourceTemporarilyUnavailable
            let errno = isBusy ? Errno.resourceTemporarilyUnavailable : .invalidArgument
            call.ret = failure == nil ? 0 : UInt64(errno.rawValue)
        }
        vcpu.runPage.hypercall = call
    }
}
