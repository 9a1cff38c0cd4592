// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// Its memslots, its identity and capabilities, and machines on it.
extension PerVMTests {
    // MARK: slots

    @Test func `attributes are set before the slot is created and cleared after it is deleted`() throws {
        let bench = try PerVMBench(initial: .private)
        try bench.convert(1, 2, to: .shared)
        _ = bench.below.takeCalls()
        try bench.bind(3, at: 100, pages: 8)
        #expect(bench.below.takeCalls() == ["100+1 private", "103+5 private", "slot 3 100+8"])
        try bench.unbind(3)
        #expect(bench.below.takeCalls() == ["delete 3", "100+8 shared"])
        #expect(bench.guest(100) == .mmio)
        // The attributes belong to the file, so they remain.
        try bench.bind(4, at: 200, pages: 8)
        #expect(bench.below.takeCalls() == ["200+1 private", "203+5 private", "slot 4 200+8"])
    }

    @Test func `a slot that the backend refuses leaves no attributes behind`() throws {
        let bench = try PerVMBench(initial: .private)
        bench.below.state.withLock { $0.slotRefusal = .fileExists }
        #expect(throws: Errno.fileExists) { try bench.bind(3, at: 100, pages: 8) }
        bench.below.state.withLock { $0.slotRefusal = nil }
        try bench.convert(1, 2, to: .shared)
        bench.below.state.withLock { $0.attributesUntilRefusal = 1 }
        #expect(throws: Errno.noMemory) { try bench.bind(3, at: 100, pages: 8) }
        #expect(bench.below.state.withLock { $0.attributes.runCount } == 1)
        try bench.bind(3, at: 100, pages: 8)
    }

    @Test func `impossible regions are refused before attributes change`() throws {
        let bench = try PerVMBench(initial: .private)
        let other = try PerVMBench()
        func refused(_ errno: Errno, _ change: (inout ckvm_userspace_memory_region2) -> Void) {
            var region = TrapFileTests.region(bench.file, slot: 1, gpa: 1 << 20)
            change(&region)
            #expect(throws: errno) { try bench.vm.setUserMemoryRegion2(region) }
        }
        refused(.invalidArgument) { $0.guest_phys_addr = 0 &- pageSize }
        refused(.invalidArgument) { $0.guest_phys_addr += 1 }
        refused(.invalidArgument) { $0.memory_size += 1 }
        refused(.invalidArgument) { $0.userspace_addr = 1 }
        refused(.invalidArgument) { $0.guest_memfd_offset = 1 }
        refused(.invalidArgument) { $0.guest_memfd_offset = pageSize }  // past the end
        refused(.invalidArgument) { $0.slot = 64 }
        refused(.invalidArgument) { $0.memory_size = 0 }  // no such slot
        refused(.badFileDescriptor) { $0.guest_memfd = UInt32(bitPattern: -1) }
        refused(.invalidArgument) { $0.guest_memfd = UInt32(bitPattern: other.file.descriptor) }
        #expect(bench.below.takeCalls() == [])
        try bench.bind(1, at: 256)
        _ = bench.below.takeCalls()
        refused(.invalidArgument) { _ in }  // immutable
        refused(.invalidArgument) { $0.flags = 0 }
        refused(.fileExists) {
            $0.slot = 2
            $0.guest_phys_addr += PerVMBench.size - pageSize
        }
        refused(.fileExists) {
            $0.slot = 2
            $0.flags = 0
        }
        #expect(bench.below.takeCalls() == [])
        // The base backend alone handles a region without a file, including moving and deleting it.
        var plain = ckvm_userspace_memory_region2()
        plain.slot = 2
        plain.memory_size = pageSize
        plain.userspace_addr = other.view.address
        try bench.vm.setUserMemoryRegion2(plain)
        plain.guest_phys_addr = 8 * pageSize
        try bench.vm.setUserMemoryRegion2(plain)
        plain.memory_size = 0
        try bench.vm.setUserMemoryRegion2(plain)
        #expect(bench.below.takeCalls() == ["slot 2 0+1", "slot 2 8+1", "delete 2"])
    }

    /// A shut alias: the slot exists, but its file has been closed.
    @Test func `a slot outlives its file, and private accesses through it are memory faults`() throws {
        let bench = try PerVMBench()
        var dead: (any KVMGuestMemfd)? = try bench.vm.createGuestMemfd(size: 4 * pageSize, flags: [])
        let descriptor = try #require(dead).descriptor
        try bench.vm.setUserMemoryRegion2(
            TrapFileTests.region(try #require(dead), slot: 7, gpa: 700 * pageSize))
        #expect(bench.guest(701, write: 1) == .word(1))
        dead = nil
        #expect(bench.guest(701) == .fault(.private))
        #expect(bench.below.state.withLock { $0.slots[7] != nil })
        // Another file that gets the same number is unrelated.
        let next = try bench.vm.createGuestMemfd(size: 4 * pageSize, flags: [])
        _ = bench.below.takeCalls()
        try next.convert(0, 4 * pageSize, to: .shared)
        #expect(
            !bench.below.takeCalls().contains { $0.contains("shared") }, "\(descriptor) \(next.descriptor)")
        try bench.unbind(7)
        #expect(bench.guest(701) == .mmio)
    }

    @Test func `shared pages outlive their file until the slot is deleted`() throws {
        let bench = try PerVMBench()
        var dead: (any KVMGuestMemfd)? = try bench.vm.createGuestMemfd(size: 4 * pageSize, flags: .initShared)
        try bench.vm.setUserMemoryRegion2(
            TrapFileTests.region(try #require(dead), slot: 7, gpa: 700 * pageSize))
        #expect(bench.guest(701, write: 5) == .word(5))
        dead = nil
        #expect(bench.guest(701) == .word(5))
    }

    @Test func `everything is released with its owners, including vCPUs`() throws {
        weak var vm: AnyObject?
        weak var below: ScriptedGuestMemfd?
        var vcpu: (any KVMVCPU)?
        do {
            let bench = try PerVMBench()
            try bench.bind()
            vm = bench.vm
            below = bench.below.state.withLock { $0.files[bench.file.descriptor]?.file }
            vcpu = try bench.vm.createVCPU(id: 0)
            #expect(below != nil)
        }
        #expect(below == nil && vm != nil, "the guest may still run on its shared memory")
        #expect(vcpu?.runToExit() != nil)
        vcpu = nil
        #expect(vm == nil)
    }

    // MARK: identity and machines

    @Test func `identity and capabilities`() throws {
        let base = ScriptedPerVMKVM()
        let backend = PerVMAttributesKVM(over: base)
        #expect(backend.identity.description == "PerVMAttributesKVM (a test)")
        let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
        for check in [backend.checkExtension, vm.checkExtension] {
            #expect(try check(.guestMemfdMemoryAttributes) == 8)
            #expect(try check(.guestMemfdFlags) == 3)
            #expect(try check(.memoryAttributes) == 0)
        }
        #expect(throws: Errno.invalidArgument) { try backend.createVM(.softwareProtected, sharedBit: 46) }
        #expect(throws: Errno.invalidArgument) { try backend.createVM(.default, sharedBit: 46) }
        #expect(try backend.createVM(.default, sharedBit: nil) is ScriptedVM)
        // The base backend must have per-VM attributes.
        let without = PerVMAttributesKVM(over: FakeBackend())
        #expect(throws: Errno.invalidArgument) {
            try without.createVM(.softwareProtected, sharedBit: nil)
        }
        #expect(BackendProbe(without).conversionFailure()?.errno == .invalidArgument)
        #expect(BackendProbe(backend).conversionFailure() == nil)
        base.vm.state.withLock { $0.attributesUntilRefusal = 0 }
        let failure = BackendProbe(PerVMAttributesKVM(over: base)).conversionFailure()
        #expect(failure?.call == "KVM_SET_USER_MEMORY_REGION2" || failure?.errno == .noMemory)
    }

    /// A machine boots, and its image stays in shared memory. On a kernel without the call the machine is unsupported;
    /// if the call exists but fails, the machine has failed.
    @Test func `machines boot on it, or report why they cannot`() throws {
        let code: [UInt8] = [0xb0, 7, 0xe6, 0xf4, 0x11, 0x22, 0x33, 0x44]
        func machine(refusing errno: Errno?) throws(MachineError) -> ScriptedPerVM {
            let base = ScriptedPerVMKVM()
            base.vm.state.withLock {
                $0.attributesUntilRefusal = errno == nil ? nil : 0
                $0.attributesErrno = errno ?? .noMemory
            }
            var configuration = MachineConfiguration()
            configuration.regions = 3
            let image: BootImage
            do throws(ImageError) { image = try .flat(code) } catch { throw .image(error) }
            let machine = try Machine(
                backend: PerVMAttributesKVM(over: base), configuration: configuration, image: image,
                console: Console(nil))
            withExtendedLifetime(machine) {
                #expect(base.vm.guest(0x10_0000) == .word(0x4433_2211_f4e6_07b0))
                #expect(base.vm.guest(machine.layout.free.lowerBound) == .word(0))
            }
            #expect(throws: HostAccessError.self) {
                try machine.memory.readWord(gpa: machine.layout.free.lowerBound)
            }
            return base.vm
        }
        let states = try machine(refusing: nil).state.withLock { $0.attributes }
        #expect(states.value(at: 0x10_0000) == .shared && states.value(at: 0x20_0000) == .private)
        #expect(states.value(at: (16 << 20) - pageSize) == .private)
        do throws(MachineError) {
            _ = try machine(refusing: .inappropriateIOCTLForDevice)
            Issue.record("built")
        } catch {
            guard case .unsupported(.conversion, _) = error else { throw error }
        }
        do throws(MachineError) {
            _ = try machine(refusing: .noMemory)
            Issue.record("built")
        } catch {
            guard case .conversion(let error) = error else { throw error }
            #expect(error.errno == .noMemory)
        }
    }

    /// The converter on top: it refuses to preserve contents, and it can zero them.
    @Test func `the converter refuses to preserve contents and gives the reason`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        let all = try #require(PageRange(start: 0, size: PerVMBench.size))
        let memory = GuestMemory(
            regions: [MemoryRegion(gpa: all, file: bench.file, mapping: bench.view)], initial: .shared)
        let converter = Converter(
            backend: bench.backend, vm: bench.vm, memory: memory, holds: HoldRegistry(),
            policy: RetryPolicy(),
            trace: nil)
        try bench.view.putWord(0, 7)
        do throws(ConversionError) {
            try converter.convert(
                ConversionRequest(range: all, to: .private, contents: .preserve), by: .monitor)
            Issue.record("converted")
        } catch {
            #expect(error.errno.name == "EOPNOTSUPP")
            #expect(error.description.contains("in two places (per-VM attributes)"))
        }
        #expect(try bench.view.word(0) == 7)
        let half = try #require(PageRange(start: 0, size: PerVMBench.size / 2))
        try converter.convert(
            ConversionRequest(range: half, to: .private, contents: .unspecified), by: .monitor)
        for page in 0..<16 as Range<UInt64> { #expect(bench.guest(page, write: 9) == .word(9)) }
        // Half of the range is shared already, and must be zeroed too.
        let result = try converter.convert(
            ConversionRequest(range: all, to: .shared, contents: .zero), by: .monitor)
        #expect(result.means == .zeroedByMonitor)
        for page in 0..<16 as Range<UInt64> { #expect(bench.guest(page) == .word(0)) }
    }
}
