// SPDX-License-Identifier: MIT
import CBaseline
import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// The reason why costs cannot be measured.
enum CostError: Error {
    /// A system call failed.
    case call(String, Errno)
    /// The kernel converts neither in place nor by per-VM attributes.
    case noConversion
    /// A measured call had another answer than it must have: a value, or a negative errno.
    case answer(String, expected: Int64, seen: Int64)
    /// KVM_RUN returned for another reason.
    case exit(String, expected: UInt32, seen: UInt32)
}

/// A VM by raw ioctls, with one file of guest memory and one vCPU in real mode. Used by one thread.
///
/// A page of code is at the guest-physical address ``codeAddress``, a page of ordinary memory behind it, and the guest's
/// memory at 1 GiB, where the data segment begins.
final class CostMachine {
    static let codeAddress: UInt64 = 0x1000
    private static let plainAddress: UInt64 = 0x2000
    private static let memoryAddress: UInt64 = 1 << 30
    /// Where the host maps the guest's memory. Page tables of 1 GiB that it shares with no other mapping cost the same in
    /// every process: where the kernel puts a mapping is random.
    private static let mappingAddress: UInt64 = 1 << 40

    /// The loops that the guest can run, by their address.
    enum Program: UInt64 {
        /// out %al, $0xf4; jmp
        case exits = 0x1000
        /// mov $12, %eax (KVM_HC_MAP_GPA_RANGE); vmmcall; jmp
        case hypercalls = 0x1010
        /// mov (0), %al; out %al, $0xf4; jmp: reads the first page of the guest's memory
        case readsMemory = 0x1020
        /// mov %cs:(0x2000), %al; out %al, $0xf4; jmp: reads the page of ordinary memory
        case readsPlain = 0x1030

        var code: [UInt8] {
            switch self {
            case .exits: [0xe6, 0xf4, 0xeb, 0xfc]
            case .hypercalls: [0x66, 0xb8, 12, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xeb, 0xf5]
            case .readsMemory: [0xa0, 0, 0, 0xe6, 0xf4, 0xeb, 0xf9]
            case .readsPlain: [0x2e, 0xa0, 0x00, 0x20, 0xe6, 0xf4, 0xeb, 0xf8]
            }
        }
    }

    let interface: ConversionInterface
    private let system: OwnedDescriptor
    private let vm: OwnedDescriptor
    private let file: OwnedDescriptor
    private let vcpu: OwnedDescriptor
    /// The ordinary memory behind `mapping`: the guest's shared pages with per-VM attributes. Nil in place.
    private let sharedFile: OwnedDescriptor?
    private let codeMapping: OwnedMapping
    /// How the host reaches shared pages.
    private let mapping: OwnedMapping
    private let runMapping: OwnedMapping

    private var held: HeldPage?

    // Prepared arguments of the measured calls.
    private var inPlaceCall = ckvm_memory_attributes2()
    private var perVMCall = ckvm_memory_attributes()

    private static func call(_ name: String, _ body: @autoclosure () -> Int) throws(CostError) -> Int32 {
        let result = body()
        guard result >= 0 else { throw .call(name, Errno(rawValue: CInt(truncatingIfNeeded: -result))) }
        return Int32(truncatingIfNeeded: result)
    }

    private static func call<Argument>(
        _ name: String, _ descriptor: Int32, _ request: UInt, _ argument: Argument
    ) throws(CostError) -> Int32 {
        var argument = argument
        return try call(
            name,
            unsafe withUnsafeMutablePointer(to: &argument) { unsafe ckvm_ioctl(descriptor, request, $0) })
    }

    /// - Parameter address: where; nil leaves the choice to the kernel.
    private static func map(
        _ name: String, _ descriptor: borrowing OwnedDescriptor, _ length: UInt64, at address: UInt64? = nil
    ) throws(CostError) -> OwnedMapping {
        do {
            guard let address else { return try OwnedMapping(descriptor, length: length) }
            _ = try value(Int(ckvm_mmap_shared_at(address, length, descriptor.rawValue, 0)))
            return try OwnedMapping(owning: address, length: length)
        } catch {
            throw .call("mmap of \(name)", error)
        }
    }

    /// A memfd of `length` bytes.
    private static func memory(_ name: String, _ length: UInt64) throws(CostError) -> OwnedDescriptor {
        let memory = OwnedDescriptor(
            owning: try call("memfd_create", unsafe ckvm_memfd_create(name)))
        guard ftruncate(memory.rawValue, Int(length)) == 0 else {
            throw .call("ftruncate", Errno(rawValue: errno))
        }
        return memory
    }

    /// A software-protected VM whose memory is all shared, or a default VM whose memory is all private.
    ///
    /// - Parameters:
    ///   - pages: of guest memory.
    ///   - isProtected: false makes the default VM, which exists only for ``ConversionInterface/inPlace``.
    init(pages: UInt64, isProtected: Bool) throws(CostError) {
        let size = pages * pageSize
        system = OwnedDescriptor(
            owning: try Self.call(
                "open of /dev/kvm", Int(unsafe open("/dev/kvm", O_RDWR | O_CLOEXEC)).orErrno))
        vm = OwnedDescriptor(
            owning: try Self.call(
                "KVM_CREATE_VM",
                ckvm_ioctl_value(
                    system.rawValue, CKVM_CREATE_VM, isProtected ? VMType.softwareProtected.rawValue : 0)))
        func supports(_ machine: borrowing OwnedDescriptor, _ capability: Capability) -> Bool {
            let attributes = ckvm_ioctl_value(
                machine.rawValue, CKVM_CHECK_EXTENSION, UInt(capability.rawValue))
            return attributes > 0 && UInt64(attributes) & CKVM_MEMORY_ATTRIBUTE_PRIVATE != 0
        }
        if !isProtected || supports(vm, .guestMemfdMemoryAttributes) {
            interface = .inPlace
        } else if supports(vm, .memoryAttributes) {
            interface = .perVM
        } else {
            throw .noConversion
        }
        var request = ckvm_create_guest_memfd()
        request.size = size
        if interface == .inPlace {
            request.flags = CKVM_GUEST_MEMFD_FLAG_MMAP | (isProtected ? CKVM_GUEST_MEMFD_FLAG_INIT_SHARED : 0)
        }
        file = OwnedDescriptor(
            owning: try Self.call("KVM_CREATE_GUEST_MEMFD", vm.rawValue, CKVM_CREATE_GUEST_MEMFD, request))
        let address = isProtected ? Self.mappingAddress : 2 * Self.mappingAddress
        if interface == .inPlace {
            sharedFile = nil
            mapping = try Self.map("the guest_memfd", file, size, at: address)
        } else {
            let memory = try Self.memory("shared", size)
            mapping = try Self.map("the shared memory", memory, size, at: address)
            sharedFile = consume memory
        }
        codeMapping = try Self.map("the code", try Self.memory("code", 2 * pageSize), 2 * pageSize)
        for program in [Program.exits, .hypercalls, .readsMemory, .readsPlain] {
            for (index, byte) in program.code.enumerated() {
                unsafe codeMapping.base.storeBytes(
                    of: byte, toByteOffset: Int(program.rawValue - Self.codeAddress) + index, as: UInt8.self)
            }
        }
        var slot = ckvm_userspace_memory_region2()
        slot.guest_phys_addr = Self.codeAddress
        slot.memory_size = 2 * pageSize
        slot.userspace_addr = codeMapping.address
        _ = try Self.call(
            "KVM_SET_USER_MEMORY_REGION2", vm.rawValue, CKVM_SET_USER_MEMORY_REGION2, slot)
        slot = ckvm_userspace_memory_region2()
        slot.slot = 1
        slot.flags = CKVM_MEM_GUEST_MEMFD
        slot.guest_phys_addr = Self.memoryAddress
        slot.memory_size = size
        slot.userspace_addr = mapping.address
        slot.guest_memfd = UInt32(bitPattern: file.rawValue)
        _ = try Self.call(
            "KVM_SET_USER_MEMORY_REGION2", vm.rawValue, CKVM_SET_USER_MEMORY_REGION2, slot)
        vcpu = OwnedDescriptor(
            owning: try Self.call("KVM_CREATE_VCPU", ckvm_ioctl_value(vm.rawValue, CKVM_CREATE_VCPU, 0)))
        let length = try Self.call(
            "KVM_GET_VCPU_MMAP_SIZE", ckvm_ioctl_value(system.rawValue, CKVM_GET_VCPU_MMAP_SIZE, 0))
        guard Int(length) >= MemoryLayout<ckvm_run>.size else {
            throw .call("KVM_GET_VCPU_MMAP_SIZE", .invalidArgument)
        }
        runMapping = try Self.map("the kvm_run page", vcpu, UInt64(length))
        var capability = ckvm_enable_cap()
        capability.cap = Capability.exitHypercall.rawValue
        capability.args.0 = 1 << CKVM_HC_MAP_GPA_RANGE
        _ = try Self.call("KVM_ENABLE_CAP", vm.rawValue, CKVM_ENABLE_CAP, capability)
        var registers = ckvm_sregs()
        _ = try Self.call(
            "KVM_GET_SREGS",
            unsafe withUnsafeMutablePointer(to: &registers) {
                unsafe ckvm_ioctl(vcpu.rawValue, CKVM_GET_SREGS, $0)
            })
        registers.cs.base = 0
        registers.cs.selector = 0
        registers.ds.base = Self.memoryAddress
        _ = try Self.call("KVM_SET_SREGS", vcpu.rawValue, CKVM_SET_SREGS, registers)
    }

    // MARK: preparation

    /// Allocates the pages of a range.
    func allocate(_ range: Range<UInt64>) throws(CostError) { try allocate(range, punching: false) }

    /// Frees the pages of a range.
    func free(_ range: Range<UInt64>) throws(CostError) { try allocate(range, punching: true) }

    private func allocate(_ range: Range<UInt64>, punching: Bool) throws(CostError) {
        func allocate(_ descriptor: Int32) throws(CostError) {
            _ = try Self.call(
                "fallocate",
                ckvm_fallocate(
                    descriptor, punching, Int64(range.lowerBound * pageSize),
                    Int64(UInt64(range.count) * pageSize)))
        }
        try allocate(file.rawValue)
        switch sharedFile {
        case .none: break
        case .some(let shared): try allocate(shared.rawValue)
        }
    }

    /// Writes to every page of a range.
    func touch(_ range: Range<UInt64>) {
        cbaseline_touch(mapping.address + range.lowerBound * pageSize, UInt64(range.count))
    }

    /// Maps a range in the guest.
    func mapInGuest(_ range: Range<UInt64>) throws(CostError) {
        var request = ckvm_pre_fault_memory()
        request.gpa = Self.memoryAddress + range.lowerBound * pageSize
        request.size = UInt64(range.count) * pageSize
        while request.size > 0 {
            _ = try Self.call(
                "KVM_PRE_FAULT_MEMORY",
                unsafe withUnsafeMutablePointer(to: &request) {
                    unsafe ckvm_ioctl(vcpu.rawValue, CKVM_PRE_FAULT_MEMORY, $0)
                })
        }
    }

    /// Converts without measuring.
    func convert(_ range: Range<UInt64>, to target: Operation.Target) throws(CostError) {
        prepareConversion(range, to: target)
        let (_, answer) = countConversion()
        try expect("conversion", 0, answer)
    }

    /// Puts a page into a pipe, which holds it until ``release()``.
    func hold(_ page: UInt64) throws(CostError) {
        do { held = try HeldPage(mapping.address + page * pageSize) } catch { throw .call("vmsplice", error) }
    }

    func release() { held = nil }

    func makePlainPage(_ target: Operation.Target) throws(CostError) {
        preparePlainConversion(to: target)
        let (_, answer) = countConversion()
        try expect("conversion", 0, answer)
    }

    /// Begins a program of the guest, with the arguments of its hypercall.
    func start(_ program: Program) throws(CostError) {
        var registers = ckvm_regs()
        registers.rip = program.rawValue
        registers.rflags = 2
        registers.rbx = Self.memoryAddress
        registers.rcx = 1
        registers.rdx = CKVM_MAP_GPA_RANGE_ENCRYPTED
        _ = try Self.call("KVM_SET_REGS", vcpu.rawValue, CKVM_SET_REGS, registers)
    }

    // MARK: measured

    func prepareConversion(_ range: Range<UInt64>, to target: Operation.Target) {
        let start = range.lowerBound * pageSize
        let size = UInt64(range.count) * pageSize
        let attributes = target == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
        inPlaceCall.offset = start
        inPlaceCall.size = size
        inPlaceCall.attributes = attributes
        inPlaceCall.error_offset = 0
        perVMCall.address = Self.memoryAddress + start
        perVMCall.size = size
        perVMCall.attributes = attributes
    }

    /// The page of ordinary memory. Only for ``ConversionInterface/perVM``.
    func preparePlainConversion(to target: Operation.Target) {
        perVMCall.address = Self.plainAddress
        perVMCall.size = pageSize
        perVMCall.attributes = target == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
    }

    /// The conversion that was prepared: what the counter advanced, and the kernel's answer.
    func countConversion() -> (count: UInt64, answer: Int64) {
        var answer: Int64 = 0
        let count =
            switch interface {
            case .inPlace:
                unsafe withUnsafeMutablePointer(to: &inPlaceCall) {
                    unsafe cbaseline_count_ioctl(file.rawValue, CKVM_SET_MEMORY_ATTRIBUTES2, $0, &answer)
                }
            case .perVM:
                unsafe withUnsafeMutablePointer(to: &perVMCall) {
                    unsafe cbaseline_count_ioctl(vm.rawValue, CKVM_SET_MEMORY_ATTRIBUTES, $0, &answer)
                }
            }
        return (count, answer)
    }

    /// The page that the last conversion named.
    var errorPage: UInt64 { inPlaceCall.error_offset / pageSize }

    /// One KVM_RUN: what the counter advanced, and the kernel's answer.
    func countRun() -> (count: UInt64, answer: Int64) {
        var answer: Int64 = 0
        let count = unsafe cbaseline_count_ioctl(vcpu.rawValue, CKVM_RUN, nil, &answer)
        return (count, answer)
    }

    /// Why the last KVM_RUN returned: a KVM_EXIT number.
    var exitReason: UInt32 {
        unsafe runMapping.base.assumingMemoryBound(to: ckvm_run.self).pointee.exit_reason
    }

    func expect(_ what: String, _ expected: Int64, _ seen: Int64) throws(CostError) {
        guard seen == expected else { throw .answer(what, expected: expected, seen: seen) }
    }

    func expectExit(_ what: String, _ expected: UInt32) throws(CostError) {
        guard exitReason == expected else { throw .exit(what, expected: expected, seen: exitReason) }
    }
}

/// A page that a pipe holds.
struct HeldPage: ~Copyable {
    private let reader: OwnedDescriptor
    private let writer: OwnedDescriptor

    init(_ address: UInt64) throws(Errno) {
        let ends: (readEnd: FileDescriptor, writeEnd: FileDescriptor)
        do { ends = try FileDescriptor.pipe() } catch { throw error as? Errno ?? .ioError }
        let reader = OwnedDescriptor(owning: ends.readEnd.rawValue)
        let writer = OwnedDescriptor(owning: ends.writeEnd.rawValue)
        _ = try value(ckvm_vmsplice(writer.rawValue, address, 1))
        self.reader = reader
        self.writer = writer
    }
}

extension Int {
    /// The value, or the negative errno for -1, right after a call of the C library.
    fileprivate var orErrno: Int { self >= 0 ? self : -Int(errno) }
}
