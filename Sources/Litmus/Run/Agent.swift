import CKVMShim
import MiniVMM
import SystemPackage

/// The guest that does the steps of vCPUs: it asks for an address and an order by port, makes one access to one byte, and
/// says what it read.
///
/// It lives in a guest_memfd of its own, far above the memory of tests, which no step can name.
final class Agent {
    private static let code: [UInt8] = [
        0xe5, 0xf5,  //         1: in   $0xf5, %eax
        0x89, 0xc6,  //            mov  %eax, %esi      the address
        0xe5, 0xf5,  //            in   $0xf5, %eax     the order: AH is 1 to write AL
        0x84, 0xe4,  //            test %ah, %ah
        0x75, 0x04,  //            jnz  2f
        0x8a, 0x06,  //            mov  (%rsi), %al
        0xeb, 0x02,  //            jmp  3f
        0x88, 0x06,  //         2: mov  %al, (%rsi)
        0xe6, 0xf4,  //         3: out  %al, $0xf4
        0xeb, 0xec,  //            jmp  1b
    ]
    private static let askPort: UInt16 = 0xf5
    private static let tellPort: UInt16 = 0xf4
    /// Code, then three levels of tables that map the first GiB to itself in pages of 2 MiB.
    private static let size = 4 * pageSize
    /// Guest-physical; tests have what is below.
    static let start: UInt64 = (1 << 30) - (1 << 20)
    private static let slot: UInt32 = 400
    /// A step of a vCPU costs three exits a byte.
    private static let mostBytes = 4 * pageSize

    private let vm: any KVMVirtualMachine
    private let file: any KVMGuestMemfd
    private let view: any HostMapping
    private var vcpus: [Int: any KVMVCPU] = [:]
    /// Those that stand before an access which they cannot finish.
    private var stuck: Set<Int> = []

    init(on vm: any KVMVirtualMachine) throws(Stop) {
        self.vm = vm
        do throws(Errno) {
            file = try vm.createGuestMemfd(size: Self.size, flags: [.mmap, .initShared])
            view = try file.map(offset: 0, length: Self.size)
            try Self.write(Self.code, at: 0, view)
            let tables = Self.start + pageSize
            try Self.write(Self.bytes([tables + pageSize | 3]), at: pageSize, view)
            try Self.write(Self.bytes([tables + 2 * pageSize | 3]), at: 2 * pageSize, view)
            // Present, writable, a large page.
            try Self.write(Self.bytes((0..<512).map { $0 << 21 | 0x83 }), at: 3 * pageSize, view)
            var region = ckvm_userspace_memory_region2()
            region.slot = Self.slot
            region.flags = Binding.guestMemfd
            region.guest_phys_addr = Self.start
            region.memory_size = Self.size
            region.userspace_addr = view.address
            region.guest_memfd = UInt32(bitPattern: file.descriptor)
            try vm.setUserMemoryRegion2(region)
        } catch {
            throw .skip("the guest that does the steps of vCPUs cannot be loaded here (\(error.name))")
        }
    }

    func close() {
        vcpus = [:]
        var region = ckvm_userspace_memory_region2()
        region.slot = Self.slot
        region.flags = Binding.guestMemfd
        try? vm.setUserMemoryRegion2(region)
    }

    func perform(_ action: Action, vcpu number: Int) throws(Stop) -> Observation {
        guard let extent = action.extent,
            let end = Optional(extent.offset.addingReportingOverflow(extent.size)),
            !end.overflow, end.partialValue <= Self.start
        else { throw .broken("a vCPU reaches guest-physical addresses below \(hex(Self.start))") }
        guard extent.size <= Self.mostBytes else {
            throw .skip("a vCPU touches at most \(Self.mostBytes / pageSize) pages in a step")
        }
        for address in extent.offset..<end.partialValue {
            let (seen, isDone) = try access(UInt32(address), action.order, number)
            guard isDone, case .value(let byte) = seen else { return Observation(seen) }
            switch action {
            case .read: return Observation(seen)
            case .check(_, let wanted) where wanted != byte: return Observation(.differs(at: address))
            default: break
            }
        }
        return Observation(.ok)
    }

    /// - Parameter order: the byte to write, and bit 8 to write it.
    /// - Returns: what was read or what came instead, and whether the access was made.
    private func access(
        _ address: UInt32, _ order: UInt32, _ number: Int
    ) throws(Stop) -> (StepOutcome, Bool) {
        guard !stuck.contains(number) else {
            throw .skip("vcpu\(number) stands before an access that it cannot finish")
        }
        let vcpu = try vcpu(number)
        let page = vcpu.runPage
        var answers = [address, order]
        var isMMIO = false
        // A time slice that ends is no exit; the agent is done after three that are.
        for _ in 0..<1000 {
            switch vcpu.runToExit() {
            case .interrupted: continue
            case .io(let io) where io.port == Self.askPort && io.size == 4 && !answers.isEmpty:
                let answer = answers.removeFirst()
                _ = unsafe page.withIOData(io) { bytes in unsafe bytes.storeBytes(of: answer, as: UInt32.self)
                }
            case .io(let io) where io.port == Self.tellPort && io.size == 1:
                let byte = unsafe page.withIOData(io) { bytes in unsafe bytes.load(as: UInt8.self) } ?? 0
                return isMMIO ? (.mmio, false) : (.value(byte), true)
            case .mmio: isMMIO = true
            case .memoryFault(let fault, _):
                stuck.insert(number)
                return (.fault(fault.wants), false)
            case .failed(.notSupported): throw .skip("vCPUs cannot run here: this kernel has no CPU")
            case .failed(let errno):
                stuck.insert(number)
                return (.errno(errno.rawValue), false)
            case let other: throw .broken("vcpu\(number) left with \(other)")
            }
        }
        throw .broken("vcpu\(number) did not come to the end of its access")
    }

    private func vcpu(_ number: Int) throws(Stop) -> any KVMVCPU {
        if let vcpu = vcpus[number] { return vcpu }
        do throws(Errno) {
            let vcpu = try vm.createVCPU(id: number)
            try vcpu.setSpecialRegisters(vcpu.specialRegisters().inLongMode(tables: Self.start + pageSize))
            var registers = ckvm_regs()
            registers.rip = Self.start
            registers.rflags = 2
            try vcpu.setRegisters(registers)
            vcpus[number] = vcpu
            return vcpu
        } catch {
            throw .skip("vcpu\(number) cannot be had here (\(error.name))")
        }
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

extension Action {
    fileprivate var order: UInt32 {
        switch self {
        case .write(_, let byte), .fill(_, let byte): 0x100 | UInt32(byte)
        default: 0
        }
    }
}
