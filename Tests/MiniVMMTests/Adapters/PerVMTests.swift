// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

/// A file of 16 pages of the adapter over a scripted backend, and the host's mapping of it.
final class PerVMBench {
    static let size = 16 * pageSize
    let backend = ScriptedPerVMKVM()
    let vm: any KVMVirtualMachine
    let file: any KVMGuestMemfd
    let view: any HostMapping

    init(initial: PageState = .shared) throws {
        vm = try PerVMAttributesKVM(over: backend).createVM(.softwareProtected, sharedBit: nil)
        file = try vm.createGuestMemfd(
            size: Self.size, flags: initial == .shared ? [.mmap, .initShared] : .mmap)
        view = try file.map(offset: 0, length: Self.size)
    }

    var below: ScriptedPerVM { backend.vm }

    func bind(_ slot: UInt32 = 0, at page: UInt64 = 0, pages: UInt64 = 16, offset: UInt64 = 0) throws {
        try vm.setUserMemoryRegion2(
            TrapFileTests.region(
                file, slot: slot, gpa: page * pageSize, size: pages * pageSize, offset: offset * pageSize))
    }

    func unbind(_ slot: UInt32) throws {
        var region = ckvm_userspace_memory_region2()
        region.slot = slot
        try vm.setUserMemoryRegion2(region)
    }

    func convert(_ page: UInt64, _ count: UInt64, to state: PageState) throws {
        try file.convert(page * pageSize, count * pageSize, to: state)
    }

    func guest(_ page: UInt64, write: UInt64? = nil) -> ScriptedPerVM.Access {
        below.guest(page * pageSize, write: write)
    }
}

@Suite("PerVMAttributesKVM") struct PerVMTests {
    // MARK: the conversion table

    @Test(arguments: TrapFileTests.badArguments)
    func `a bad argument is EINVAL, writes no error_offset and reaches no backend`(
        bad: TrapFileTests.BadArgument
    ) throws {
        let bench = try PerVMBench()
        try bench.bind()
        _ = bench.below.takeCalls()
        for state in PageState.allCases {
            var request = ckvm_memory_attributes2.conversion(0, pageSize, state)
            bad.make(&request)
            let refusal = bench.file.refusal(of: request)
            #expect(refusal.errno == .invalidArgument && refusal.errorOffset == nil)
        }
        #expect(bench.below.takeCalls() == [])
    }

    @Test func `a conversion to the current state returns 0 without a call`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        _ = bench.below.takeCalls()
        #expect(bench.file.refusal(of: .conversion(0, PerVMBench.size, .shared)) == (nil, nil))
        #expect(bench.below.takeCalls() == [])
    }

    @Test func `a conversion sets the attributes of every slot that the range is bound at`() throws {
        let bench = try PerVMBench()
        try bench.convert(0, 16, to: .private)
        #expect(
            bench.below.takeCalls() == ["hole 0+16"], "no slot, no attributes; nothing was private before")
        try bench.convert(0, 16, to: .shared)
        _ = bench.below.takeCalls()
        // Pages 4 to 7 are bound at 100 and pages 8 to 11 at 50; the others are unbound.
        try bench.bind(1, at: 100, pages: 4, offset: 4)
        try bench.bind(2, at: 50, pages: 4, offset: 8)
        #expect(bench.below.takeCalls() == ["slot 1 100+4", "slot 2 50+4"])
        try bench.convert(2, 8, to: .private)
        let calls = bench.below.takeCalls()
        #expect(calls.first == "hole 2+8")
        #expect(calls.dropFirst().sorted() == ["100+4 private", "50+2 private"])
        try bench.convert(5, 1, to: .shared)
        #expect(bench.below.takeCalls() == ["101+1 shared", "hole 5+1"])
        // A mixed range: one call per slot, and holes only where the state changes.
        try bench.convert(4, 4, to: .private)
        #expect(bench.below.takeCalls() == ["hole 5+1", "100+4 private"])
        try bench.convert(0, 2, to: .private)
        #expect(bench.below.takeCalls() == ["hole 0+2"])
    }

    @Test(arguments: PageState.allCases, 0..<3)
    func `ENOMEM half way changes nothing`(target: PageState, refused: Int) throws {
        let bench = try PerVMBench()
        for slot in 0..<4 as Range<UInt64> {
            try bench.bind(UInt32(slot), at: 100 * (slot + 1), pages: 4, offset: slot * 4)
        }
        // Every third page is private, and all contain data.
        for page in stride(from: 0, to: 16, by: 3) as StrideTo<UInt64> {
            try bench.convert(page, 1, to: .private)
        }
        func gpa(_ page: UInt64) -> UInt64 { 100 * (page / 4 + 1) + page % 4 }
        for page in 0..<16 as Range<UInt64> {
            #expect(bench.guest(gpa(page), write: page + 1) == .word(page + 1))
        }
        bench.below.state.withLock { $0.attributesUntilRefusal = refused }
        let request = ckvm_memory_attributes2.conversion(2 * pageSize, 13 * pageSize, target)
        #expect(bench.file.refusal(of: request) == (.noMemory, 2 * pageSize))
        for page in 0..<16 as Range<UInt64> {
            #expect(bench.guest(gpa(page)) == .word(page + 1), "page \(page)")
            if page % 3 == 0 {
                #expect(throws: Errno.badAddress) { try bench.view.word(page * pageSize) }
            } else {
                #expect(try bench.view.word(page * pageSize) == page + 1)
            }
        }
        #expect(bench.file.refusal(of: request) == (nil, nil))
        for page in 0..<16 as Range<UInt64> {
            let was: PageState = page % 3 == 0 ? .private : .shared
            let changes = (2..<15).contains(page) && was != target
            #expect(bench.guest(gpa(page)) == .word(changes ? 0 : page + 1), "page \(page)")
        }
    }

    // MARK: contents

    @Test func `a converted page is zero, and a page that keeps its state keeps its contents`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        for page in 0..<16 as Range<UInt64> { #expect(bench.guest(page, write: 7) == .word(7)) }
        try bench.convert(4, 4, to: .private)
        for page in 4..<8 as Range<UInt64> { #expect(bench.guest(page, write: 8) == .word(8)) }
        try bench.convert(2, 4, to: .private)
        #expect((0..<10).map { bench.guest($0) } == [7, 7, 0, 0, 8, 8, 8, 8, 7, 7].map { .word($0) })
        try bench.convert(0, 7, to: .shared)
        #expect((0..<10).map { bench.guest($0) } == [7, 7, 0, 0, 0, 0, 0, 8, 7, 7].map { .word($0) })
        #expect(try bench.view.word(2 * pageSize) == 0)
        #expect(bench.vm.contentPromise == .lost)
    }

    /// KVM's emulator writes to `userspace_addr`, whatever the page's state.
    @Test func `KVM's own writes to a private page do not appear when it is shared`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        try bench.convert(0, 2, to: .private)
        bench.below.emulate(0, write: 99)
        #expect(bench.guest(0) == .word(0))
        try bench.convert(0, 1, to: .shared)
        #expect(bench.guest(0) == .word(0))
        #expect(try bench.view.word(0) == 0)
    }

    /// Until the attributes have changed, the contents must still be there in case the conversion fails.
    @Test func `contents are freed after the attributes have changed`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        let seen = Collected<ScriptedPerVM.Access>()
        let below = bench.below
        below.state.withLock { $0.onAttributes = { seen.add(below.guest(0)) } }
        #expect(bench.guest(0, write: 5) == .word(5))
        try bench.convert(0, 16, to: .private)
        #expect(bench.guest(0, write: 6) == .word(6))
        try bench.convert(0, 16, to: .shared)
        #expect(seen.all == [.word(5), .word(6)])
        below.state.withLock { $0.onAttributes = nil }
        // Freed: the private memory is empty, and so is the shared memory once the page is private again.
        let backing = try #require(below.state.withLock { $0.files[bench.file.descriptor]?.file })
        #expect(try backing.view.word(0) == 0)
        try bench.view.putWord(0, 9)
        try bench.convert(0, 16, to: .private)
        let address = below.state.withLock { $0.slots[0]?.userspace_addr } ?? 0
        var word: UInt64 = 1
        #expect(unsafe withUnsafeMutableBytes(of: &word) { ckvm_copy_from($0.baseAddress!, address, 8) } == 8)
        #expect(word == 0)
    }

    @Test func `punching a hole zeroes both memories and keeps the state`() throws {
        let bench = try PerVMBench()
        try bench.bind()
        try bench.convert(1, 1, to: .private)
        for page in 0..<3 as Range<UInt64> { #expect(bench.guest(page, write: 7) == .word(7)) }
        bench.below.emulate(pageSize, write: 8)
        _ = bench.below.takeCalls()
        try bench.file.allocate(punchHole: true, offset: 0, length: 2 * pageSize)
        #expect(bench.below.takeCalls() == ["hole 0+2"])
        #expect((0..<3).map { bench.guest($0) } == [.word(0), .word(0), .word(7)])
        #expect(throws: Errno.badAddress) { try bench.view.word(pageSize) }
        // Allocating punches no hole in either memory.
        for page in 0..<3 as Range<UInt64> { #expect(bench.guest(page, write: 9) == .word(9)) }
        try bench.file.allocate(punchHole: false, offset: 0, length: PerVMBench.size)
        #expect((0..<3).map { bench.guest($0) } == [.word(9), .word(9), .word(9)])
        for (offset, length) in [(1, pageSize), (0, 1), (0, 0), (0, PerVMBench.size + pageSize)]
            as [(UInt64, UInt64)]
        {
            #expect(throws: Errno.invalidArgument) {
                try bench.file.allocate(punchHole: false, offset: offset, length: length)
            }
        }
    }

    /// Conversions, holes, slots and refusals in random order: states, contents and host accesses must match a file
    /// that loses the contents of converted pages.
    @Test(arguments: [21, 22, 23, 24] as [UInt64])
    func `random operations behave like one file`(seed: UInt64) throws {
        var generator = Generator(seed: seed)
        let bench = try PerVMBench(initial: seed % 2 == 0 ? .shared : .private)
        var states = [PageState](repeating: seed % 2 == 0 ? .shared : .private, count: 16)
        var words = [UInt64](repeating: 0, count: 16)
        var bound: [UInt32: Range<Int>] = [:]
        func gpa(_ page: Int) -> UInt64? {
            guard let slot = bound.first(where: { $0.value.contains(page) }) else { return nil }
            return UInt64(slot.key) * 100 + UInt64(page - slot.value.lowerBound)
        }
        for _ in 0..<600 {
            let first = generator.below(16)
            let pages = first..<(first + 1 + generator.below(16 - first))
            switch generator.below(6) {
            case 0:
                let slot = UInt32(1 + generator.below(4))
                if bound[slot] != nil {
                    try bench.unbind(slot)
                    bound[slot] = nil
                } else if !bound.values.contains(where: { $0.overlaps(pages) }) {
                    try bench.bind(
                        slot, at: UInt64(slot) * 100, pages: UInt64(pages.count), offset: UInt64(first))
                    bound[slot] = pages
                }
            case 1:
                try bench.file.allocate(
                    punchHole: true, offset: UInt64(first) * pageSize, length: UInt64(pages.count) * pageSize)
                for page in pages { words[page] = 0 }
            case 2:
                guard let gpa = gpa(first) else { continue }
                words[first] = generator.next()
                #expect(bench.guest(gpa, write: words[first]) == .word(words[first]))
            case 3:
                if let gpa = gpa(first), states[first] == .private {
                    bench.below.emulate(gpa * pageSize, write: 1)
                }
            default:
                let target: PageState = generator.below(2) == 0 ? .shared : .private
                let refuses = generator.below(4) == 0
                bench.below.state.withLock { $0.attributesUntilRefusal = refuses ? generator.below(3) : nil }
                let refusal = bench.file.refusal(
                    of: .conversion(UInt64(first) * pageSize, UInt64(pages.count) * pageSize, target))
                bench.below.state.withLock { $0.attributesUntilRefusal = nil }
                guard refusal.errno == nil else {
                    #expect(refuses && refusal == (.noMemory, UInt64(first) * pageSize))
                    break
                }
                for page in pages where states[page] != target {
                    states[page] = target
                    words[page] = 0
                }
            }
            for page in 0..<16 {
                if let gpa = gpa(page) { #expect(bench.guest(gpa) == .word(words[page])) }
                let seen = try? bench.view.word(UInt64(page) * pageSize)
                #expect(seen == (states[page] == .shared ? words[page] : nil))
            }
        }
        for slot in bound.keys { try bench.unbind(slot) }
        #expect(
            bench.below.state.withLock { $0.attributes.runCount } == 1, "no address without a slot is private"
        )
    }

    // MARK: host accesses

    @Test func `the host cannot access a private page through any mapping`() throws {
        let bench = try PerVMBench()
        try bench.view.put(0, [UInt8](repeating: 7, count: Int(PerVMBench.size)))
        try bench.convert(4, 2, to: .private)
        let after = try bench.file.map(offset: 2 * pageSize, length: 6 * pageSize)
        for (view, start) in [(bench.view, 4 * pageSize), (after, 2 * pageSize)] {
            #expect(throws: Errno.badAddress) { try view.bytes(start, 1) }
            #expect(throws: Errno.badAddress) { try view.put(start + 2 * pageSize - 1, [1]) }
            #expect(throws: Errno.badAddress) { _ = try view.hold(at: start, length: pageSize) }
            #expect(try view.bytes(start - 100, 200).count == 100)
            #expect(try view.bytes(start + 2 * pageSize, 3) == [7, 7, 7])
        }
        try bench.convert(0, 16, to: .shared)
        #expect(try after.bytes(2 * pageSize, 1) == [0])
        // No references are counted here.
        let hold = try bench.view.hold(at: 0, length: pageSize)
        try bench.convert(0, 1, to: .private)
        hold.release()
    }

    @Test func `flags and sizes of a guest_memfd are checked, and the base guest_memfd has no flags`() throws
    {
        let bench = try PerVMBench()
        for size in [0, 1, pageSize + 1, UInt64.max, 1 << 63] as [UInt64] {
            #expect(throws: Errno.invalidArgument) { try bench.vm.createGuestMemfd(size: size, flags: .mmap) }
        }
        #expect(throws: Errno.invalidArgument) {
            try bench.vm.createGuestMemfd(size: pageSize, flags: GuestMemfdFlags(rawValue: 4))
        }
        for flags in [[], .initShared] as [GuestMemfdFlags] {
            let file = try bench.vm.createGuestMemfd(size: pageSize, flags: flags)
            #expect(throws: Errno.operationNotSupportedByDevice) { try file.map(offset: 0, length: pageSize) }
        }
        let file = try bench.vm.createGuestMemfd(size: pageSize, flags: .mmap)
        #expect(throws: Errno.badAddress) { try file.map(offset: 0, length: pageSize).bytes(0, 1) }
        #expect(throws: Errno.invalidArgument) { try file.map(offset: 0, length: 0) }
        #expect(throws: Errno.invalidArgument) { try file.map(offset: 1, length: pageSize) }
        #expect(bench.below.state.withLock { $0.flags.allSatisfy { $0 == [] } })
    }
}
