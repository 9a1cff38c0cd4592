// SPDX-License-Identifier: MIT
import CKVMShim
import Dispatch
import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import MiniVMM

/// The requirements of the tests of ``MemslotTrapKVM`` on this machine.
enum TrapHost {
    static let kvm: LinuxKVM? = try? LinuxKVM()
    /// Guest-physical addresses with bit 46, and enough memslots.
    static let canTrap: Bool = {
        guard let kvm, let cpuid = try? kvm.supportedCPUID() else { return false }
        return cpuid.physicalAddressBits > 46 && (try? kvm.checkExtension(.memslots)) ?? 0 >= 256
    }()
    static let reason: Comment = "needs a /dev/kvm with 47 or more physical address bits"
    static let sharedBit = 46
    static let shared: UInt64 = 1 << 46

    static func pause(milliseconds: UInt32) { usleep(milliseconds * 1000) }

    static let backings: [TrapBacking] =
        kvm.map { TrapBacking.best(on: $0).0 == .guestMemfd ? [.guestMemfd, .memfd] : [.memfd] } ?? []
}

/// A vCPU or a converter on a thread of its own, joined with a time limit.
final class TrapThreads: Sendable {
    private let group = DispatchGroup()

    func start(_ body: @escaping @Sendable () -> Void) {
        DispatchQueue(label: "trap").async(group: group) { body() }
    }

    /// - Returns: false if some still run after `seconds`.
    func join(seconds: Int) -> Bool { group.wait(timeout: .now() + .seconds(seconds)) == .success }
}

/// Kicks vCPUs that have not finished in time, so that a test fails instead of hanging.
final class TrapWatchdog {
    private let item: DispatchWorkItem

    init(seconds: Int, _ vcpus: [any KVMVCPU]) {
        // Weak, because a cancelled item stays queued until its time.
        let targets = vcpus.map { WeakVCPU(vcpu: $0) }
        item = DispatchWorkItem { for target in targets { target.vcpu?.kick() } }
        DispatchQueue(label: "watchdog").asyncAfter(deadline: .now() + .seconds(seconds), execute: item)
    }

    deinit { item.cancel() }

    private struct WeakVCPU {
        weak var vcpu: (any KVMVCPU)?
    }
}

extension ckvm_memory_attributes2 {
    static func conversion(_ offset: UInt64, _ size: UInt64, _ state: PageState) -> ckvm_memory_attributes2 {
        var request = ckvm_memory_attributes2()
        request.offset = offset
        request.size = size
        request.attributes = state == .private ? CKVM_MEMORY_ATTRIBUTE_PRIVATE : 0
        return request
    }
}

extension KVMGuestMemfd {
    func convert(_ offset: UInt64, _ size: UInt64 = pageSize, to state: PageState) throws(Errno) {
        var request = ckvm_memory_attributes2.conversion(offset, size, state)
        try setMemoryAttributes2(&request)
    }

    /// The errno, and error_offset if the call wrote it.
    func refusal(of request: ckvm_memory_attributes2) -> (errno: Errno?, errorOffset: UInt64?) {
        var request = request
        request.error_offset = .max
        do throws(Errno) {
            try setMemoryAttributes2(&request)
            return (nil, request.error_offset == .max ? nil : request.error_offset)
        } catch {
            return (error, request.error_offset == .max ? nil : request.error_offset)
        }
    }
}

extension HostMapping {
    func bytes(_ offset: UInt64, _ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let done = unsafe try bytes.withUnsafeMutableBytes { buffer in
            unsafe try read(at: offset, into: buffer)
        }
        return Array(bytes.prefix(done))
    }

    func put(_ offset: UInt64, _ bytes: [UInt8]) throws {
        let done = unsafe try bytes.withUnsafeBytes { buffer in
            unsafe try write(at: offset, from: buffer)
        }
        guard done == bytes.count else { throw Errno.badAddress }
    }

    func word(_ offset: UInt64) throws -> UInt64 {
        try bytes(offset, 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    func putWord(_ offset: UInt64, _ word: UInt64) throws {
        try put(offset, (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) })
    }
}

/// A guest of a few instructions on this machine's kernel: 64-bit mode, ring 0, both aliases identity
/// mapped with 2 MiB pages. The first MiB is private (page tables at 0x1000, code at 0x10000), the rest is shared.
final class TrapGuest {
    static let ram: UInt64 = 16 << 20
    static let code: UInt64 = 0x10000
    /// The tests' data: a page boundary far from the code.
    static let data: UInt64 = 4 << 20
    /// An unused page between code and page tables, in the middle of their memslot: converting it
    /// recreates that memslot.
    static let besideCode: UInt64 = 0x8000

    let vm: any KVMVirtualMachine
    let file: any KVMGuestMemfd
    let view: any HostMapping
    let vcpus: [any KVMVCPU]
    private let watchdog: TrapWatchdog

    var vcpu: any KVMVCPU { vcpus[0] }

    /// - Parameter ring: 0, or 3 with I/O privilege.
    init(
        _ code: [UInt8], vcpus count: Int = 1, ring: UInt8 = 0, backing: TrapBacking? = nil,
        slotLimit: Int? = nil, hasRegion2: Bool = true
    ) throws {
        let base = try LinuxKVM()
        let kvm = MemslotTrapKVM(
            over: base, backing: backing ?? TrapBacking.best(on: base).0, slotLimit: slotLimit,
            hasRegion2: hasRegion2)
        vm = try kvm.createVM(.softwareProtected, sharedBit: TrapHost.sharedBit)
        file = try vm.createGuestMemfd(size: Self.ram, flags: [.mmap, .initShared])
        view = try file.map(offset: 0, length: Self.ram)
        var region = TrapFileTests.region(file)
        region.userspace_addr = view.address
        try vm.setUserMemoryRegion2(region)

        // PML4 at 0x1000: [0] the low alias, [128] = bit 46 the high one; each a PDPT and a PD of 2 MiB pages.
        try view.putWord(0x1000, 0x2007)
        try view.putWord(0x1000 + 128 * 8, 0x4007)
        try view.putWord(0x2000, 0x3007)
        try view.putWord(0x4000, 0x5007)
        for index in 0..<Self.ram >> 21 {
            try view.putWord(0x3000 + index * 8, index << 21 | 0x87)
            try view.putWord(0x5000 + index * 8, TrapHost.shared | index << 21 | 0x87)
        }
        try view.put(Self.code, code)
        try file.convert(0, 1 << 20, to: .private)

        let cpuid = try kvm.supportedCPUID()
        vcpus = try (0..<count).map { [vm] id in
            let vcpu = try vm.createVCPU(id: id)
            try vcpu.setCPUID(cpuid)
            try vcpu.enterLongMode(ring: ring)
            return vcpu
        }
        watchdog = TrapWatchdog(seconds: 600, vcpus)
    }

    /// Enters at `rip` with these registers.
    func start(
        _ id: Int = 0, rip: UInt64 = TrapGuest.code, rax: UInt64 = 0, rcx: UInt64 = 0, rsi: UInt64 = 0,
        rdi: UInt64 = 0
    ) throws {
        var registers = ckvm_regs()
        registers.rip = rip
        registers.rflags = 0x3002  // IOPL 3
        registers.rsp = 0x9000
        registers.rax = rax
        registers.rcx = rcx
        registers.rsi = rsi
        registers.rdi = rdi
        try vcpus[id].setRegisters(registers)
    }

    /// Runs to the final OUT 0xf4 and converts the pages that fault.
    ///
    /// - Returns: the faults, in order; nil for any other exit.
    func finish(_ id: Int = 0, limit: Int = 100) throws -> [MemoryFault]? {
        var faults: [MemoryFault] = []
        while faults.count < limit {
            switch vcpus[id].runToExit() {
            case .memoryFault(let fault, .badAddress):
                faults.append(fault)
                try file.convert(fault.gpa, fault.size, to: fault.wants)
            case .io(let io) where io.port == 0xf4: return faults
            default: return nil
            }
        }
        return nil
    }

    /// The next exit, if it is a memory fault.
    func fault() -> MemoryFault? {
        if case .memoryFault(let fault, .badAddress) = vcpu.runToExit() { fault } else { nil }
    }

    /// Whether the next exit is the final OUT 0xf4.
    func ends() -> Bool {
        if case .io(let io) = vcpu.runToExit() { io.port == 0xf4 } else { false }
    }
}

extension KVMVCPU {
    /// Paging with the tables at 0x1000.
    func enterLongMode(ring: UInt8) throws(Errno) {
        var special = try specialRegisters()
        var segment = ckvm_segment()
        segment.limit = 0xffff_ffff
        segment.present = 1
        segment.s = 1
        segment.g = 1
        segment.dpl = ring
        special.cs = segment
        special.cs.selector = 8 | UInt16(ring)
        special.cs.type = 11
        special.cs.l = 1
        segment.selector = 16 | UInt16(ring)
        segment.type = 3
        segment.db = 1
        special.ds = segment
        special.es = segment
        special.ss = segment
        special.cr0 = 0x8005_0033  // PG WP NE ET MP PE
        special.cr3 = 0x1000
        special.cr4 = 0x620  // PAE OSFXSR OSXMMEXCPT
        special.efer = 0x500  // LME LMA
        try setSpecialRegisters(special)
    }
}

extension MemoryFault {
    /// The fault for an access of this kind to the page of `gpa`.
    static func on(_ gpa: UInt64, wanting state: PageState) -> MemoryFault {
        MemoryFault(
            gpa: gpa & ~(pageSize - 1), size: pageSize,
            flags: state == .private ? CKVM_MEMORY_EXIT_FLAG_PRIVATE : 0)
    }
}
