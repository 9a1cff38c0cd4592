// SPDX-License-Identifier: MIT
import CKVMShim
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Boot in place")
struct BootInPlaceTests {
    private let code: [UInt8] = [0xb0, 7, 0xe6, 0xf4]

    @Test func theImageIsWrittenWhileSharedAndThenMadePrivateInOneCall() throws {
        for aliases in Aliases.allCases {
            let bench = try MachineBench(image: try .flat(code)) { $0.aliases = aliases }
            #expect(bench.file.calls.map(\.description) == ["0+1024 private"])
            #expect(bench.file.holes.isEmpty)
            #expect((0..<4).map { bench.file.byte(0x10_0000 + UInt64($0)) } == code)
            #expect(
                bench.machine.memory.uniformState(of: try #require(PageRange(start: 0, size: 4 << 20)))
                    == .private)
            // The host can no longer access it.
            #expect(throws: HostAccessError.self) { try bench.machine.memory.read(gpa: 0x10_0000, count: 1) }
        }
    }

    @Test func theBootInformationPageMatchesGuestH() throws {
        let bench = try MachineBench {
            $0.aliases = .two
            $0.vcpus = 3
            $0.hypercallInstruction = true
        }
        func word(_ offset: UInt64) -> UInt64 {
            (0..<8).reversed().reduce(0) { $0 << 8 | UInt64(bench.file.byte(0x2000 + offset + $1)) }
        }
        #expect(word(0) == 0x314d_4d56_494e_494d)
        #expect(word(8) == 1 | 3 << 32)
        #expect(word(0x10) == 4 << 20 && word(0x18) == 1 << 46 && word(0x20) == 7)
        #expect(word(0x28) == 0x10_0000 && word(0x30) == 0x10_1000)
        #expect(word(0x38) == 0x20_0000 && word(0x40) == 0x40_0000)
        #expect(word(0x48) == 0)
    }

    @Test func vCPUsStartAtTheEntryWithAStackOfTheirOwn() throws {
        let bench = try MachineBench { $0.vcpus = 16 }
        let registers = try bench.backend.vm.vcpus.map { try $0.registers() }
        #expect(registers.allSatisfy { $0.rip == 0x10_0000 && $0.rdi == 0x2000 && $0.rflags == 2 })
        #expect(registers.map(\.rsi) == Array(0..<16))
        #expect(registers.map(\.rsp) == (1...16).map { 0x4_0000 + $0 * 0x4000 })
        let special = try bench.vcpu.specialRegisters()
        #expect(
            special.cr3 == 0x3000 && special.efer == 0x500 && special.cs.l == 1 && special.idt.limit == 511)
    }

    @Test func eachRegionHasAFileAndASlot() throws {
        let bench = try MachineBench {
            $0.ramSize = 4 << 20 | 5 * pageSize
            $0.regions = 3
        }
        let slots = bench.backend.vm.slots
        #expect(slots.map(\.slot) == [0, 1, 2])
        #expect(slots.map(\.guest_memfd) == [100, 101, 102])
        #expect(slots.allSatisfy { $0.flags == CKVM_MEM_GUEST_MEMFD })
        #expect(slots[0].guest_phys_addr == 0)
        #expect(
            zip(slots, slots.dropFirst()).allSatisfy {
                $0.guest_phys_addr + $0.memory_size == $1.guest_phys_addr
            })
        #expect(slots.reduce(0) { $0 + $1.memory_size } == 4 << 20 | 5 * pageSize)
        #expect(zip(slots, bench.backend.vm.files).allSatisfy { $0.memory_size == $1.size })
    }

    /// If contents are lost, nothing that the guest needs may be converted: not the image, and not the page
    /// tables, wherever they are.
    @Test(arguments: [16 << 20, 1 << 30, 64 << 30, 1 << 40] as [UInt64], [true, false])
    func withoutAPromiseTheImageStaysShared(ram: UInt64, gigabytePages: Bool) throws {
        let backend = FakeBackend(promise: .undefined, gigabytePages: gigabytePages)
        let bench = try MachineBench(backend, image: try .flat(code)) { $0.ramSize = ram }
        let layout = bench.machine.layout
        let memory = bench.machine.memory
        for gpa in [
            layout.gdt, layout.bootInformation, layout.stacks, layout.image.start,
            layout.tables.start, layout.tables.start + layout.tables.size - 1,
        ] { #expect(memory.state(at: gpa) == .shared, "\(gpa)") }
        #expect(memory.state(at: layout.free.lowerBound) == .private)
        #expect(memory.state(at: layout.free.upperBound - 1) == .private)
        #expect(bench.events.all.contains("image-left-shared"))
        #expect((0..<4).map { bench.file.byte(0x10_0000 + UInt64($0)) } == code)
    }

    /// With two aliases the vCPU uses the shared alias for everything that stayed shared, from its first instruction
    /// on.
    @Test(arguments: [16 << 20, 1 << 30, 64 << 30, 1 << 40] as [UInt64], [true, false])
    func withoutAPromiseTheImageIsReachedThroughTheSharedAlias(ram: UInt64, gigabytePages: Bool) throws {
        for promise in [ContentPromise.undefined, .lost] {
            let backend = FakeBackend(promise: promise, gigabytePages: gigabytePages)
            let bench = try MachineBench(backend, image: try .flat(code)) {
                $0.ramSize = ram
                $0.aliases = .two
            }
            let layout = bench.machine.layout
            let special = try bench.vcpu.specialRegisters()
            #expect(special.cr3 == layout.tables.start | 1 << 46)
            #expect(bench.machine.memory.state(at: layout.free.lowerBound) == .private)
            #expect(bench.machine.memory.state(at: layout.free.upperBound - 1) == .private)
            for gpa in [layout.tables.start, layout.image.start, layout.stackTop(0) - 8] {
                #expect(bench.machine.memory.state(at: gpa) == .shared, "\(gpa)")
            }
            #expect((0..<4).map { bench.file.byte(0x10_0000 + UInt64($0)) } == code)
        }
    }

    /// A guest that needs preservation is not even built.
    @Test func theGuestsNeedsAreCheckedFirst() throws {
        for promise in [
            ContentPromise.undefined, .lost, ContentPromise(toPrivate: .preserved, toShared: .lost),
        ] {
            let backend = FakeBackend(promise: promise)
            do {
                _ = try MachineBench(backend) { $0.needsPreservation = true }
                Issue.record("accepted")
            } catch MachineError.unsupported(.preservation, _) {}
            #expect(backend.vm.files.isEmpty && backend.vm.vcpus.isEmpty)
        }
        _ = try MachineBench { $0.needsPreservation = true }
    }

    /// Private memory that starts shared needs conversion in place; without it a kernel returns EINVAL.
    @Test func aKernelThatCannotConvertInPlaceIsUnsupported() throws {
        do throws(MachineError) {
            let image: BootImage
            do throws(ImageError) { image = try .flat(code) } catch { throw .image(error) }
            _ = try Machine(
                backend: SoftKVM(.init(inPlaceConversion: false)), configuration: MachineConfiguration(),
                image: image, console: Console(nil))
            Issue.record("built")
        } catch {
            guard case .unsupported(.sharedGuestMemfd, _) = error else { throw error }
        }
    }

    /// Configurations and CPUs for which no machine is possible.
    @Test func impossibleMachines() throws {
        func complaint(
            _ backend: FakeBackend = FakeBackend(), _ change: (inout MachineConfiguration) -> Void
        ) -> String? {
            do {
                _ = try MachineBench(backend, change)
                return nil
            } catch {
                return "\(error)"
            }
        }
        for regions in [Int.min, -1, 0, 65, Int.max] {
            #expect(complaint { $0.regions = regions }?.contains("use 1 to 64") == true)
        }
        for vcpus in [-1, 0, 17] { #expect(complaint { $0.vcpus = vcpus }?.contains("use 1 to 16") == true) }
        for bits in [0, 1, 12, 20, 32] as [UInt32] {
            let backend = FakeBackend(addressBits: bits)
            #expect(
                complaint(backend) { $0.aliases = .two }?.contains("physical address bits") == true, "\(bits)"
            )
            #expect(complaint(backend) { $0.aliases = .one } == nil)
        }
        for bits in [33, 36, 47, 48, 52, 255] as [UInt32] {
            #expect(complaint(FakeBackend(addressBits: bits)) { $0.aliases = .two } == nil, "\(bits)")
        }
    }
}
