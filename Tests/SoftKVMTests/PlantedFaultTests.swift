// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Each planted fault must change a result: a script runs with and without the fault, and the results must differ.
struct PlantedFaultTests {
    /// Faults that are only visible to a running guest.
    private static let guestVisible: Set<PlantedFault> = [
        .uniformRangeZapped, .guestMappingsKept, .laterSlotsKept, .neighbourZapped, .deletedSlotStaysMapped,
        .faultFlagWrong,
        .faultNamesNextPage, .faultReturnsSuccess, .mismatchIgnored,
    ]
    private static let visible = PlantedFault.allCases.filter { hasEngine || !guestVisible.contains($0) }

    @Test(arguments: visible) func plantedFaultChangesAResult(fault: PlantedFault) throws {
        let correct = try play(fault, .init())
        let faulty = try play(fault, .init(plantedFaults: [fault]))
        #expect(correct != faulty, "the fault has no effect: \(correct)")
        // The results are deterministic.
        #expect(try play(fault, .init()) == correct)
        #expect(try play(fault, .init(plantedFaults: [fault])) == faulty)
    }

    @Test func plantedFaultsHaveNamesThatTheIdentityLists() throws {
        #expect(PlantedFault.allCases.count >= 30)
        #expect(Set(PlantedFault.allCases.map(\.name)).count == PlantedFault.allCases.count)
        for fault in PlantedFault.allCases {
            #expect(PlantedFault(name: fault.name) == fault)
            #expect(fault.name.allSatisfy { $0.isLowercase || $0 == "-" })
            #expect(!fault.description.contains("\n") && !fault.rule.isEmpty)
        }
        #expect(PlantedFault(name: "flagsIgnored") == nil)
        let kvm = SoftKVM(.init(plantedFaults: [.startsShared, .flagsIgnored]))
        #expect(kvm.identity.host.hasSuffix(", FAULTS PLANTED: flags-ignored, starts-shared"))
        #expect(!SoftKVM().identity.host.contains("PLANTED"))
    }

    // MARK: the scripts

    private func play(_ fault: PlantedFault, _ configuration: SoftKVM.Configuration) throws -> String {
        switch fault {
        case .structPartlyRead: try call(configuration, in: .cut, holding: nil)
        case .copyOutUnchecked: try call(configuration, in: .readOnly, holding: 0)
        case .flagsIgnored: try call(configuration, request(0, pageSize)) { $0.flags = 1 }
        case .reservedIgnored: try call(configuration, request(0, pageSize)) { $0.reserved.10 = 1 }
        case .errorOffsetRefused, .errorOffsetWrittenOnSuccess:
            try call(configuration, request(0, pageSize))
        case .defaultTypeConverts: try call(configuration, request(0, pageSize), on: .default)
        case .unknownAttributesIgnored: try call(configuration, request(0, pageSize, 9))
        case .emptyRangeAccepted: try call(configuration, request(0, 0))
        case .wrapAccepted: try call(configuration, request(pageSize, 0 &- pageSize))
        case .sizeTruncated: try call(configuration, request(0, pageSize + 1))
        // The low half is one page.
        case .sizeLosesHighBits: try call(configuration, request(0, 1 << 32 + pageSize))
        case .offsetTruncated: try call(configuration, request(1, pageSize))
        case .endOffByOne: try call(configuration, request(15 * pageSize, 2 * pageSize))
        case .startPastEndAccepted: try call(configuration, request(16 * pageSize, pageSize))
        case .uniformBeforeValidation: try call(configuration, request(0, pageSize, 0)) { $0.flags = 1 }
        case .busyBeforeBounds: try convert(0, 17, holding: [0], configuration)
        case .uniformRangeChecked: try convert(0, 4, to: .shared, holding: [0], configuration)
        case .uniformRangeUnmapped: try convert(0, 4, to: .shared, writing: [1], configuration)
        case .memoryAfterBusyCheck, .noMemoryNamesNothing, .noMemoryConvertsFirstPage:
            try convert(5, 2, holding: [6], configuration.with { $0.maximumAttributeRuns = 4 }) {
                $0.convert(2, 1, to: .private)
            }
        case .busyCheckMissing, .firstPageUnchecked: try convert(0, 4, holding: [0], configuration)
        case .lastPageUnchecked: try convert(0, 4, holding: [3], configuration)
        case .laterPagesUnchecked: try manyPages(configuration)
        case .laterRunsLeftOut:
            try convert(0, 16, configuration) { file in
                for page in [3, 7, 11] as [UInt64] { _ = file.convert(page, 1, to: .private) }
            }
        case .mixedRangeUnchecked:
            try convert(0, 4, holding: [1], configuration) { $0.convert(0, 1, to: .private) }
        case .toSharedChecked:
            try convert(0, 4, to: .shared, holding: [2], configuration) { $0.convert(0, 2, to: .private) }
        case .busyNamesHighest, .busyNamesStart, .busyNamesNothing, .busyWithOtherErrno, .busyConvertsBefore,
            .busyConvertsAll, .busyLosesContents:
            try convert(1, 12, writing: [3], holding: [5, 9], configuration)
        case .releaseForgotten:
            try convert(0, 4, configuration) { file in
                try? file.map(offset: 0, length: pageSize).hold(at: 0, length: pageSize).release()
            }
        case .toPrivateKeepsHostMappings, .lastPageLeftOut, .neighbourConverted:
            try convert(2, 3, writing: [2, 4], configuration)
        case .untouchedPagesForgotten: try convert(2, 3, configuration)
        case .toSharedDropsHostMappings:
            try convert(0, 2, to: .shared, writing: [1], configuration) { $0.convert(0, 1, to: .private) }
        case .contentsLostToPrivate, .contentsLostToShared, .contentsScrambledToPrivate,
            .contentsScrambledToShared:
            try contents(configuration)
        case .hostReadsPrivate, .hostWritesPrivate, .punchChangesState, .punchKeepsContents,
            .punchKeepsHolders,
            .unalignedPunchAccepted:
            try host(configuration)
        case .initSharedIgnored, .startsShared, .unknownFileFlagsAccepted, .capabilityHidden,
            .mmapNeedsNoFlag:
            try creation(configuration)
        case .attributesLostWithSlot, .pageBoundTwice, .foreignFileBound: try slots(configuration)
        case .uniformRangeZapped, .neighbourZapped: try statistic(configuration)
        case .laterSlotsKept: try twoSlots(configuration)
        case .guestMappingsKept: try convertedPage(configuration)
        case .deletedSlotStaysMapped: try deletedSlot(configuration)
        case .faultFlagWrong, .faultNamesNextPage, .faultReturnsSuccess, .mismatchIgnored:
            try wrongAlias(configuration)
        case .rescindIgnored, .validationZeroes, .sharedPageValidates, .assignmentKeepsValidated,
            .reverseMapAddressUnchecked, .sharedPagesZeroed, .ciphertextReadExits, .unvalidatedPageReadable,
            .unvalidatedTouchExits, .revalidationUnnoticed, .largePageValidates, .conversionKeepsEntry,
            .plaintextShownToHost, .guestReadsHostPlaintext, .launchLosesContents,
            .privateReachedThroughSharedAlias, .launchAfterFinalize:
            try confidential(.snp, configuration)
        case .acceptKeepsContents, .secondAcceptZeroes, .pageAddedAccepted, .removalNeedsNoTrack,
            .removalNeedsNoBlock, .deadGuestRuns:
            try confidential(.tdx, configuration)
        case .removedPagesNotCleared: try pendingPage(configuration)
        case .wrongAnswerRefuses:
            String(describing: try? ConfidentialVM(.snp, configuration).kernel.requestAnswer(1))
        }
    }

    /// The life of a page of an SNP or TDX VM.
    private func confidential(_ type: VMType, _ configuration: SoftKVM.Configuration) throws -> String {
        var vm = try ConfidentialVM(type, configuration)
        // Measured in, and too late.
        vm.fill(3, 0x33)
        try vm.convert(3, to: .private)
        try vm.convert(2, to: .private)
        try vm.kernel.launch(vm.number, vm.page(3))
        try vm.kernel.finalize(vm.number)
        vm.read(3)
        vm.tell((try? vm.kernel.launch(vm.number, vm.page(2))) == nil ? "no late launch" : "late launch")
        // Made private, validated, written, and shared again.
        vm.fill(0, 0x41)
        vm.take(0)
        try vm.convert(0, to: .private)
        if type == .snp { vm.read(0) }
        vm.take(0, isLarge: true)
        vm.take(0)
        vm.read(0)
        vm.write(0, 0x42)
        vm.take(0)
        vm.read(0)
        vm.read(0, shared: true)
        vm.write(0, 0x43, shared: true)
        if type == .snp {
            vm.tell("\(vm.kernel.validate(vm.number, 0, false))")
            vm.read(0)
            vm.take(0)
            for page in [3, 0] as [UInt64] {
                try vm.kernel.move(vm.number, 0, to: vm.file, at: page * pageSize)
                vm.read(0)
            }
        } else {
            try vm.remove(0)
            if vm.isFree(0) { vm.take(0) }
            try vm.kernel.block(vm.number, vm.page(0))
            try vm.remove(0)
            if vm.isFree(0) { vm.take(0) } else { vm.kernel.track(vm.number) }
        }
        try vm.convert(0, to: .shared)
        vm.tell("\(vm.kernel.byte(vm.file, at: 0)) \(vm.kernel.byte(vm.file, at: 64))")
        try vm.convert(0, to: .private)
        vm.read(0)
        vm.read(0)
        vm.take(3)
        return vm.told
    }

    /// A page of a TD that was added and never accepted.
    private func pendingPage(_ configuration: SoftKVM.Configuration) throws -> String {
        var vm = try ConfidentialVM(.tdx, configuration)
        try vm.kernel.finalize(vm.number)
        vm.kernel.raiseVE(vm.number)
        vm.fill(0, 0x41)
        try vm.convert(0, to: .private)
        vm.read(0)
        try vm.convert(0, to: .shared)
        vm.tell("\(vm.kernel.byte(vm.file, at: 0))")
        return vm.told
    }

    private func name(_ errno: Errno?) -> String { errno?.name ?? "0" }

    private func call(
        _ configuration: SoftKVM.Configuration, _ plain: ckvm_memory_attributes2,
        on type: VMType = .softwareProtected, _ change: (inout ckvm_memory_attributes2) -> Void = { _ in }
    ) throws -> String {
        let model = try ModelVM(type: type, configuration)
        var request = plain
        request.error_offset = 0xdead
        change(&request)
        let answer = errno { () throws(Errno) in try model.file.setMemoryAttributes2(&request) }
        return "\(name(answer)) \(request.error_offset) \(model.states())"
    }

    /// As above, with the struct in this kind of memory.
    private func call(
        _ configuration: SoftKVM.Configuration, in memory: ArgumentMemory, holding page: UInt64?
    ) throws -> String {
        let model = try ModelVM(type: .softwareProtected, configuration)
        let hold = try page.map { try model.mapping.hold(at: $0, length: pageSize) }
        defer { hold?.release() }
        let answer = errno { () throws(Errno) in
            try model.file.setMemoryAttributes2(request(0, pageSize), in: memory)
        }
        return "\(name(answer)) \(model.states())"
    }

    /// The result of a conversion, and everything observable about the file afterwards.
    private func convert(
        _ first: UInt64, _ count: UInt64, to state: PageState = .private, writing: [UInt64] = [],
        holding: [UInt64] = [], _ configuration: SoftKVM.Configuration,
        after preparation: (SoftGuestMemfd) -> Void = { _ in }
    ) throws -> String {
        let model = try ModelVM(configuration)
        preparation(model.file)
        for page in writing { try model.mapping.put([UInt8(page)], at: page * pageSize) }
        let holds = try holding.map { try model.mapping.hold(at: $0 * pageSize, length: 1) }
        let answer = model.file.convert(first, count, to: state)
        let all = try #require(PageRange(start: 0, size: model.file.size))
        let mapped = model.file.hostMappedPages(in: all)
        let bytes = writing.map { (try? model.mapping.bytes(at: $0 * pageSize, 1)) ?? [] }
        for hold in holds { hold.release() }
        return "\(name(answer.errno)) \(answer.errorOffset) \(model.states()) \(mapped) \(bytes)"
    }

    /// Converts 40 allocated pages, the last but one of which is held.
    private func manyPages(_ configuration: SoftKVM.Configuration) throws -> String {
        let model = try ModelVM(pages: 40, configuration)
        try model.file.allocate(punchHole: false, offset: 0, length: model.file.size)
        let hold = try model.mapping.hold(at: 38 * pageSize, length: 1)
        defer { hold.release() }
        let answer = model.file.convert(0, 40, to: .private)
        return "\(name(answer.errno)) \(answer.errorOffset) \(model.states())"
    }

    private func contents(_ configuration: SoftKVM.Configuration) throws -> String {
        let model = try ModelVM(configuration)
        try model.mapping.put([1, 2, 3, 4], at: 0)
        _ = model.file.convert(0, 2, to: .private)
        _ = model.file.convert(0, 2, to: .shared)
        return "\(try model.mapping.bytes(at: 0, 16))"
    }

    private func host(_ configuration: SoftKVM.Configuration) throws -> String {
        let model = try ModelVM(pages: 4, configuration)
        try model.mapping.put([7], at: 0)
        try model.mapping.put([8], at: pageSize)
        _ = model.file.convert(0, 1, to: .private)
        let read = try? model.mapping.bytes(at: 0, 1)
        let written = try? model.mapping.put([9], at: 0)
        let hold = try model.mapping.hold(at: pageSize, length: 1)
        let unaligned = errno { () throws(Errno) in
            try model.file.allocate(punchHole: true, offset: 2 * pageSize, length: pageSize + 1)
        }
        try model.file.allocate(punchHole: true, offset: 0, length: 2 * pageSize)
        let states = model.states()
        let after = try model.mapping.bytes(at: pageSize, 1)
        let busy = model.file.convert(1, 1, to: .private).errno
        hold.release()
        return "\(read ?? []) \(written ?? -1) \(name(unaligned)) \(states) \(after) \(name(busy))"
    }

    private func creation(_ configuration: SoftKVM.Configuration) throws -> String {
        let vm = try SoftKVM(configuration).createVM(.softwareProtected, sharedBit: nil)
        var seen = "\(try vm.checkExtension(.guestMemfdMemoryAttributes))"
        for flags in 0..<UInt64(5) {
            let file = try? vm.createGuestMemfd(size: pageSize, flags: GuestMemfdFlags(rawValue: flags))
            let soft = file as? SoftGuestMemfd
            let shared = PageRange(start: 0, size: pageSize).map { soft?.bytes(.shared, in: $0) ?? 1 }
            let canMap = (try? file?.map(offset: 0, length: pageSize)) != nil
            seen += " \(flags): \(shared ?? 0) \(canMap)"
        }
        return seen
    }

    private func slots(_ configuration: SoftKVM.Configuration) throws -> String {
        let model = try ModelVM(configuration)
        let stranger = try model.kvm.createVM(.softwareProtected, sharedBit: nil)
        func set(_ region: ckvm_userspace_memory_region2, _ vm: any KVMVirtualMachine) -> String {
            name(errno { () throws(Errno) in try vm.setUserMemoryRegion2(region) })
        }
        var answers = [set(slot(model.file), model.vm)]
        _ = model.file.convert(3, 2, to: .private)
        answers.append(set(slot(model.file, id: 1, gpa: 1 << 30), model.vm))
        var gone = slot(model.file)
        gone.memory_size = 0
        answers.append(set(gone, model.vm))
        answers.append(set(slot(model.file), stranger))
        return answers.joined(separator: " ") + model.states()
    }

    /// Accesses two distant pages, converts the first of them, and then the other one without an effect.
    private func statistic(_ configuration: SoftKVM.Configuration) throws -> String {
        let guest = try Guest(
            [
                0x88, 0x07,  // mov [rdi], al
                0x8a, 0x06,  // mov al, [rsi]
                0xf4,  // hlt
            ], configuration)
        try guest.change { ($0.rdi, $0.rsi) = (0x30000, 0x41000) }
        var seen = guest.vcpu.exit()
        for (page, state) in [(0x30, .private), (0x41, .shared)] as [(UInt64, PageState)] {
            _ = guest.model.file.convert(page, 1, to: state)
            seen += " \(guest.model.vm.pages4K)"
        }
        return seen
    }

    /// Accesses two pages of a file in two memslots, and converts both at once.
    private func twoSlots(_ configuration: SoftKVM.Configuration) throws -> String {
        let guest = try Guest(
            [
                0x88, 0x07,  // mov [rdi], al
                0x8a, 0x06,  // mov al, [rsi]
                0xf4,  // hlt
            ], configuration)
        let vm = guest.model.vm
        let file = try vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap, .initShared])
        for page in [0, 1] as [UInt64] {
            var region = slot(file, id: UInt32(page) + 1, gpa: 1 << 30 + page << 20)
            region.memory_size = pageSize
            region.guest_memfd_offset = page * pageSize
            try vm.setUserMemoryRegion2(region)
        }
        try guest.change { ($0.rdi, $0.rsi) = (1 << 30, 1 << 30 + 1 << 20) }
        let before = "\(guest.vcpu.exit()) \(vm.pages4K)"
        let soft = try #require(file as? SoftGuestMemfd)
        _ = soft.convert(0, 2, to: .private)
        return "\(before) \(vm.pages4K)"
    }

    /// Increments a counter in a page that is converted meanwhile.
    private func convertedPage(_ configuration: SoftKVM.Configuration) throws -> String {
        let guest = try Guest(
            [
                0x48, 0xff, 0x07,  // inc qword [rdi]
                0xe6, 0x10,  // out 0x10, al
                0xeb, 0xf9,  // jmp back to the first
            ], sharedBit: 39, isPrivate: true, configuration)
        try guest.change { $0.rdi = 0x30000 }
        let before = guest.vcpu.exit()
        _ = guest.model.file.convert(0x30, 1, to: .shared)
        return "\(before), \(guest.vcpu.exit())"
    }

    private func deletedSlot(_ configuration: SoftKVM.Configuration) throws -> String {
        let guest = try Guest(
            [
                0x8a, 0x06,  // mov al, [rsi]
                0xeb, 0xfc,  // jmp back to it
            ], sharedBit: 39, isPrivate: true, configuration.with { $0.timeSlice = 50 })
        let extra = try guest.model.vm.createGuestMemfd(size: pageSize, flags: .mmap)
        try guest.model.vm.setUserMemoryRegion2(slot(extra, id: 1, gpa: 1 << 30))
        try guest.change { $0.rsi = 1 << 30 }
        let before = guest.vcpu.exit()
        var gone = slot(extra, id: 1)
        gone.memory_size = 0
        try guest.model.vm.setUserMemoryRegion2(gone)
        return "\(before), \(guest.vcpu.exit())"
    }

    private func wrongAlias(_ configuration: SoftKVM.Configuration) throws -> String {
        // mov [rdi], rax; hlt
        let guest = try Guest([0x48, 0x89, 0x07, 0xf4], sharedBit: 39, isPrivate: true, configuration)
        try guest.change { $0.rdi = Guest.sharedBit | 0x20010 }
        return guest.vcpu.exit()
    }
}

extension SoftKVM.Configuration {
    fileprivate func with(_ change: (inout Self) -> Void) -> Self {
        var copy = self
        change(&copy)
        return copy
    }
}

/// An SNP or TDX VM of four pages in the model, the only kernel that has such VMs, and what it has answered.
private struct ConfidentialVM {
    var kernel: KernelModel
    let number: VMID
    let file: FileID
    private let descriptor: DescriptorID
    private let type: VMType
    private(set) var told = ""

    private static let sharedBit = 39

    init(_ type: VMType, _ configuration: SoftKVM.Configuration) throws {
        self.type = type
        kernel = KernelModel(configuration.rules)
        number = try kernel.createVM(type, sharedBit: Self.sharedBit)
        descriptor = try kernel.createGuestMemfd(number, size: 4 * pageSize, flags: [.mmap, .initShared])
        file = kernel.file(of: descriptor)
        let region = UserspaceMemoryRegion(
            slot: 0, flags: UserspaceMemoryRegion.guestMemfd, guestPhysicalAddress: 0,
            memorySize: 4 * pageSize)
        try kernel.setMemoryRegion(number, region, guestMemfd: descriptor)
    }

    func page(_ page: UInt64) throws -> PageRange {
        try #require(PageRange(start: page * pageSize, size: pageSize))
    }

    mutating func tell(_ text: String) { told += text + "\n" }

    mutating func fill(_ page: UInt64, _ byte: UInt8) {
        kernel.fill(file, at: page * pageSize, count: pageSize, with: byte)
    }

    mutating func convert(_ page: UInt64, to state: PageState) throws {
        var call = ConversionCall(
            offset: page * pageSize, size: pageSize,
            attributes: state == .private ? MemoryAttributes.private : 0)
        try kernel.convert(descriptor, &call)
    }

    /// PVALIDATE or ACCEPT.
    mutating func take(_ page: UInt64, isLarge: Bool = false) {
        let (address, size): (UInt64, ValidationSize) = (page * pageSize, isLarge ? .large : .small)
        let answer =
            type == .tdx ? kernel.accept(number, address, size) : kernel.validate(number, address, true, size)
        tell("\(answer)")
    }

    mutating func read(_ page: UInt64, shared: Bool = false) { access(page, nil, shared) }
    mutating func write(_ page: UInt64, _ byte: UInt8, shared: Bool = false) { access(page, byte, shared) }

    private mutating func access(_ page: UInt64, _ byte: UInt8?, _ isShared: Bool) {
        let alias: UInt64 = isShared ? 1 << UInt64(Self.sharedBit) : 0
        tell("\(kernel.access(number, page * pageSize | alias, writing: byte))")
    }

    mutating func remove(_ page: UInt64) throws {
        let range = try self.page(page)
        do { try kernel.remove(number, range) } catch { tell("\(error)") }
    }

    func isFree(_ page: UInt64) -> Bool { kernel.secureEPTEntry(of: number, at: page * pageSize) == .free }
}
