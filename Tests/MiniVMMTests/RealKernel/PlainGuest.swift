// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// A guest of a few instructions with one plain memslot: 64-bit mode, ring 0, identity mapped with 2 MiB pages. Its
/// code and its page tables stay shared, so that a kernel which has to read an instruction can; tests use the pages
/// from ``data`` on.
struct PlainGuest {
    static let ram: UInt64 = 4 << 20
    static let code: UInt64 = 0x10000
    /// A word by which a test communicates with its running guest.
    static let mailbox: UInt64 = 0x20000
    static let data: UInt64 = 2 << 20

    let backend: any Backend
    let vm: any KVMVirtualMachine
    let file: any KVMGuestMemfd
    let view: any HostMapping
    let vcpus: [any KVMVCPU]

    init(_ code: [UInt8], vcpus count: Int = 1, on backend: any Backend) throws {
        self.backend = backend
        vm = try backend.createVM(.softwareProtected, sharedBit: nil)
        file = try vm.createGuestMemfd(size: Self.ram, flags: [.mmap, .initShared])
        view = try file.map(offset: 0, length: Self.ram)
        var region = TrapFileTests.region(file)
        region.userspace_addr = view.address
        try vm.setUserMemoryRegion2(region)
        try view.putWord(0x1000, 0x2003)
        try view.putWord(0x2000, 0x3003)
        for index in 0..<Self.ram >> 21 { try view.putWord(0x3000 + index * 8, index << 21 | 0x83) }
        try view.put(Self.code, code)
        let cpuid = try backend.supportedCPUID()
        vcpus = try (0..<count).map { [vm] id in
            let vcpu = try vm.createVCPU(id: id)
            try vcpu.setCPUID(cpuid)
            try vcpu.enterLongMode(ring: 0)
            return vcpu
        }
    }

    /// Sets the registers of a vCPU to start at ``code``.
    func prepare(_ id: Int = 0, _ change: (inout ckvm_regs) -> Void = { _ in }) throws {
        var registers = ckvm_regs()
        registers.rip = Self.code
        registers.rflags = 2
        registers.rsp = 0x9000
        change(&registers)
        try vcpus[id].setRegisters(registers)
    }

    /// Runs a vCPU until its OUT 0xf4; interruptions and retries do not end the run.
    ///
    /// - Returns: the number of memory faults, and the unexpected exit, if there was one.
    func finish(_ id: Int = 0) -> (faults: Int, stray: Exit?) {
        var faults = 0
        while true {
            switch vcpus[id].runToExit() {
            case .io(let io) where io.port == 0xf4: return (faults, nil)
            // The page matches by the time anyone checks: a race, to be retried.
            case .memoryFault: faults += 1
            case .interrupted, .failed(.resourceTemporarilyUnavailable): continue
            case let exit: return (faults, exit)
            }
        }
    }
}
