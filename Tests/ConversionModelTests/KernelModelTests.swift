// SPDX-License-Identifier: MIT
import Testing

@testable import ConversionModel

struct KernelModelTests {
    /// Two shared pages in a memslot at 0, with a host mapping.
    struct Machine: Hashable {
        var kernel: KernelModel
        let vm: VMID
        let file: DescriptorID
        let mapping: MappingID

        init(_ rules: Rules = Rules(), pages: UInt64 = 2) throws {
            kernel = KernelModel(rules)
            vm = try kernel.createVM(.softwareProtected)
            file = try kernel.createGuestMemfd(vm, size: pages * pageSize, flags: [.mmap, .initShared])
            mapping = try kernel.map(file, offset: 0, length: pages * pageSize)
            try kernel.setMemoryRegion(
                vm,
                UserspaceMemoryRegion(
                    slot: 0, flags: UserspaceMemoryRegion.guestMemfd, guestPhysicalAddress: 0,
                    memorySize: pages * pageSize), guestMemfd: file)
        }

        /// - Returns: the errno and the page number in error_offset; nil for a success.
        mutating func convert(
            _ page: UInt64, _ count: UInt64 = 1, to state: PageState, flags: UInt64 = 0
        ) -> (ErrorNumber, UInt64)? {
            var call = ConversionCall(
                offset: page * pageSize, size: count * pageSize,
                attributes: state == .private ? MemoryAttributes.private : 0, flags: flags)
            do throws(ErrorNumber) {
                try kernel.convert(file, &call)
                return nil
            } catch {
                return (error, call.errorOffset / pageSize)
            }
        }

        mutating func read(_ page: UInt64) -> Byte? { try? kernel.read(mapping, at: page * pageSize) }
        mutating func write(_ page: UInt64, _ byte: UInt8) {
            _ = try? kernel.fill(mapping, at: page * pageSize, count: 1, with: byte)
        }
        mutating func guest(_ page: UInt64, writing byte: UInt8? = nil) -> KernelModel.Access {
            kernel.access(vm, page * pageSize, writing: byte)
        }
    }

    @Test func copiesAreIndependent() throws {
        var one = try Machine()
        one.write(0, 0x41)
        var other = one
        #expect(one == other && one.hashValue == other.hashValue)
        #expect(other.convert(0, to: .private)?.0 == nil)
        #expect(one != other)
        #expect(one.read(0) == .known(0x41) && other.read(0) == nil)
        #expect(other.guest(0) == .byte(.known(0x41)))
    }

    /// States reached by different calls are equal: history is not part of the state.
    @Test func equalityIgnoresHistory() throws {
        var one = try Machine()
        var other = one
        one.write(0, 7)
        one.write(1, 8)
        other.write(1, 8)
        other.write(0, 9)
        #expect(one != other)
        other.write(0, 7)
        #expect(one == other)
        let hold = try other.kernel.hold(other.mapping, at: 0, length: pageSize, by: .vmsplice)
        #expect(one != other)
        other.kernel.release(hold)
        #expect(one == other && one.hashValue == other.hashValue)
    }

    @Test func pageInUseFailsTheConversion() throws {
        var machine = try Machine()
        let hold = try machine.kernel.hold(machine.mapping, at: pageSize, length: pageSize, by: .gupTest)
        #expect(machine.read(0) == .known(0))
        let before = machine
        let failure = machine.convert(0, 2, to: .private)
        #expect(failure?.0 == .resourceTemporarilyUnavailable && failure?.1 == 1)
        // Only the host's page tables have changed; the reads restore them.
        #expect(machine != before && machine.read(0) == .known(0) && machine.read(1) == .known(0))
        #expect(machine == before)
        machine.kernel.release(hold)
        #expect(machine.convert(0, 2, to: .private)?.0 == nil)
        #expect(machine.read(0) == nil && machine.guest(1, writing: 5) == .byte(.known(5)))
    }

    /// Undefined contents are unknown until they are overwritten.
    @Test func undefinedBytesAreUnknown() throws {
        var machine = try Machine(Rules(abi: .rfcV2))
        machine.write(0, 0x41)
        #expect(machine.convert(0, to: .private)?.0 == nil)
        #expect(machine.guest(0) == .byte(.unknown))
        #expect(machine.guest(0, writing: 3) == .byte(.known(3)))
        #expect(machine.convert(0, to: .shared)?.0 == nil && machine.read(0) == .unknown)
        // A page that was never accessed still reads zeros.
        #expect(machine.convert(1, to: .private)?.0 == nil && machine.guest(1) == .byte(.known(0)))
    }

    @Test func contentModeDecidesAboutContents() throws {
        var machine = try Machine(Rules(abi: .rfcV5))
        for (flags, byte) in [(ContentMode.preserve.rawValue, Byte.known(0x41)), (0, .unknown)] {
            machine.write(0, 0x41)
            #expect(machine.convert(0, to: .private, flags: flags)?.0 == nil)
            #expect(machine.guest(0) == .byte(byte))
            #expect(machine.convert(0, to: .shared, flags: ContentMode.zero.rawValue)?.0 == nil)
            #expect(machine.read(0) == .known(0))
        }
    }

    @Test func holderKeepsThePageAfterAHole() throws {
        var machine = try Machine()
        machine.write(0, 0x41)
        let hold = try machine.kernel.hold(machine.mapping, at: 0, length: 2 * pageSize, by: .ioUring)
        try machine.kernel.allocate(machine.file, punchHole: true, offset: 0, length: pageSize)
        #expect(machine.read(0) == .known(0))
        #expect(machine.kernel.byte(hold, at: 0) == .known(0x41))
        machine.kernel.fill(hold, at: 0, count: 1, with: 0x42)
        #expect(machine.read(0) == .known(0) && machine.kernel.byte(hold, at: 0) == .known(0x42))
        // The fresh page is not in use; page 1 is.
        #expect(machine.convert(0, to: .private)?.0 == nil)
        let failure = machine.convert(1, to: .private)
        #expect(failure?.0 == .resourceTemporarilyUnavailable && failure?.1 == 1)
    }

    /// Seen on Linux 7.3: `vmsplice` of 17 pages, of which the last is private, is EAGAIN.
    @Test func aPipeIsFullBeforeAPageBehindIt() throws {
        var machine = try Machine(pages: 18)
        #expect(machine.convert(17, to: .private)?.0 == nil)
        func refusal(_ first: UInt64, _ count: UInt64, _ kind: HoldKind) -> ErrorNumber? {
            do throws(ErrorNumber) {
                let hold = try machine.kernel.hold(
                    machine.mapping, at: first * pageSize, length: count * pageSize, by: kind)
                machine.kernel.release(hold)
                return nil
            } catch { return error }
        }
        #expect(refusal(1, 17, .vmsplice) == .resourceTemporarilyUnavailable)
        #expect(refusal(2, 16, .vmsplice) == .badAddress)
        #expect(refusal(1, 16, .vmsplice) == nil)
        #expect(refusal(0, 17, .vmsplice) == .resourceTemporarilyUnavailable)
        #expect(refusal(1, 17, .ioUring) == .badAddress)
        #expect(refusal(0, 17, .ioUring) == nil)
    }

    @Test func fileIsRemovedWithItsLastReference() throws {
        var machine = try Machine()
        try machine.kernel.close(machine.file)
        #expect(machine.guest(0) == .byte(.known(0)))
        machine.kernel.unmap(machine.mapping)
        guard case .fault = machine.guest(0) else { return #expect(Bool(false)) }
        #expect(machine.convert(0, to: .private)?.0 == .badFileDescriptor)
        machine.kernel.forget(machine.mapping)
        machine.kernel.forget(machine.file)
        machine.kernel.forget(machine.vm)
        #expect(machine.kernel == KernelModel())
    }

    /// Effects on bytes that the caller keeps are reported in the order of the calls.
    @Test func effectsAreReportedInOrder() throws {
        var kernel = KernelModel(Rules(abi: .rfcV2), contents: .outside)
        let vm = try kernel.createVM(.softwareProtected)
        let descriptor = try kernel.createGuestMemfd(vm, size: pageSize, flags: [.mmap, .initShared])
        let file = kernel.file(of: descriptor)
        let mapping = try kernel.map(descriptor, offset: 0, length: pageSize)
        let page = try #require(PageRange(start: 0, size: pageSize))
        #expect(try kernel.touch(mapping, 0, 1) == 1 && kernel.takeEffects() == [])
        let hold = try kernel.hold(mapping, at: 0, length: 1, by: .vmsplice)
        try kernel.allocate(descriptor, punchHole: true, offset: 0, length: pageSize)
        #expect(kernel.takeEffects() == [.detached(hold, file, page: 0), .discarded(file, page)])
        #expect(try kernel.touch(mapping, 0, 1) == 1)
        var call = ConversionCall(offset: 0, size: pageSize, attributes: MemoryAttributes.private)
        try kernel.convert(descriptor, &call)
        #expect(kernel.takeEffects() == [.overwritten(file, page, .noise)])
    }
}
