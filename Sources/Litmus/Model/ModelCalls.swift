// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

// The steps of the host and of its children, from their first to their last effect.
extension ModelMachine {
    /// Does a whole step.
    mutating func perform(_ step: Step) throws(Stop) -> Observation {
        if case .vcpu(let number) = step.role { return try guestStep(step.action, number) }
        switch step.action {
        case .read, .write, .fill, .check: return try access(step)
        case .peek(let place):
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: 1))
            let count = try? kernel.touch(mapping, place.offset, 1)
            return count == 1 ? read(mapping, place.offset) : Observation(.errno(Errno.ioError.rawValue))
        case .convert(let conversion): return try step.answerOfConversion(convert(conversion))
        case .map(let extent, let view): return answer(try map(extent, view))
        case .unmap(let view): return try unmap(view)
        case .remap(let view, let pages, let new): return try remap(view, pages: pages, as: new)
        case .protect(let extent, let protection): return try protect(extent, protection)
        case .mbind(let extent, let policy, let flags):
            let mapping = try mapping(extent)
            noteSplit(extent, mapping)
            return answer { kernel throws(ErrorNumber) in
                try kernel.bind(mapping, at: extent.offset, length: extent.size, policy, flags)
            }
        case .migrate(let place, let node):
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: 1))
            return answer { kernel throws(ErrorNumber) in
                try kernel.migrate(mapping, at: place.offset, to: node)
            }
        case .node(let place):
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: 1))
            do throws(ErrorNumber) {
                return Observation(count: UInt64(try kernel.node(mapping, at: place.offset)))
            } catch {
                return answer(error)
            }
        case .advise(let extent, let advice):
            if advice == .hwPoison { try poison(extent) }
            let mapping = try mapping(extent)
            return answer { kernel throws(ErrorNumber) in
                try kernel.advise(mapping, at: extent.offset, length: extent.size, advice)
            }
        case .allocate(let extent): return try allocate(extent, punchHole: false)
        case .punch(let extent): return try allocate(extent, punchHole: true)
        case .hold(let extent, let kind, let name): return try hold(extent, kind, name)
        case .release(let name):
            guard let hold = holds.removeValue(forKey: name) else {
                guard missed.contains(name) else { throw .noHold(name) }
                return Observation(.ok)
            }
            kernel.release(hold)
            return Observation(.ok)
        case .create(let new): return answer(try create(new))
        case .close(let name): return try close(name)
        case .dup(let name, let copy):
            let file = try file(name)
            do throws(ErrorNumber) {
                let new = try kernel.duplicate(file)
                if let old = files.updateValue(new, forKey: copy) { kernel.forget(old) }
                return Observation(.ok)
            } catch {
                return answer(error)
            }
        case .dirty(let slot, let name): return try dirty(slot, name)
        case .setAttributes(let extent, let attributes, let flags, let name):
            let vm = try vm(name)
            let seen = answer { kernel throws(ErrorNumber) in
                try kernel.setVMAttributes(
                    vm, address: extent.offset, size: extent.size, attributes: attributes, flags: flags)
            }
            return try step.answerOfSetAttributes(seen)
        case .bind(let binding): return answer(try bind(binding))
        case .unbind(let slot, let name): return try unbind(slot, name)
        case .fork(let number):
            var own: [Name: View] = [:]
            for (name, view) in views.sorted(by: { $0.key.description < $1.key.description }) {
                own[name] = View(
                    mapping: kernel.forkMapping(view.mapping), file: view.file, offset: view.offset,
                    isSplit: view.isSplit)
            }
            children[number] = own
            return Observation(.ok)
        case .zapped:
            let pages = try countPages()
            return Observation(count: mappedPages - min(mappedPages, pages))
        case .present(let extent):
            let mapping = try mapping(extent)
            return Observation(
                count: kernel.residentPages(mapping, at: extent.offset, length: extent.size))
        case .extension(let number):
            let vm = try vm(nil)
            let answer = SoftVM.answer(
                Capability(rawValue: number), type: kernel.type(of: vm), configuration: setup.configuration)
            return Observation(count: UInt64(max(0, answer)))
        case .syscall(let name, let call):
            let file = try file(name)
            return answer { kernel throws(ErrorNumber) in try kernel.attempt(file, call) }
        case .hypercall, .again, .preFault, .clock: throw .broken("\(step.role) does not \(step.action)")
        }
    }

    // MARK: answers

    func answer(_ error: ErrorNumber) -> Observation { Observation(.errno(error.rawValue)) }

    func answer(_ errno: Errno?) -> Observation {
        Observation(errno.map { .errno($0.rawValue) } ?? .ok)
    }

    mutating func answer(_ call: (inout KernelModel) throws(ErrorNumber) -> Void) -> Observation {
        do throws(ErrorNumber) {
            try call(&kernel)
            return Observation(.ok)
        } catch {
            return answer(error)
        }
    }

    /// What the model cannot do is no answer of a kernel's.
    private func errno(_ error: ErrorNumber) throws(Stop) -> Errno {
        guard error != Rules.noMemoryBehind else { throw .noMemoryBehind }
        return Errno(error)
    }

    // MARK: files

    mutating func create(_ new: NewFile) throws(Stop) -> Errno? {
        let vm = try vm(new.vm)
        var flags = GuestMemfdFlags(rawValue: new.flags)
        if new.preserves, setup.configuration.contentDesign == .creationFlag {
            flags.insert(ContentDesign.creationFlagBit)
        }
        do throws(ErrorNumber) {
            let file = try kernel.createGuestMemfd(vm, size: new.size, flags: flags)
            if let old = files.updateValue(file, forKey: new.name) { kernel.forget(old) }
            return nil
        } catch {
            return Errno(error)
        }
    }

    private mutating func close(_ name: Name) throws(Stop) -> Observation {
        let file = try file(name)
        // A name that is used once more stays, of a descriptor that is closed.
        if setup.late.files.contains(name) {
            return answer { kernel throws(ErrorNumber) in try kernel.close(file) }
        }
        files[name] = nil
        kernel.forget(file)
        return Observation(.ok)
    }

    private mutating func allocate(_ extent: Extent, punchHole: Bool) throws(Stop) -> Observation {
        let file = try file(extent.name)
        do throws(ErrorNumber) {
            try kernel.allocate(file, punchHole: punchHole, offset: extent.offset, length: extent.size)
            return Observation(.ok)
        } catch {
            return answer(try errno(error))
        }
    }

    // MARK: views

    mutating func map(_ extent: Extent, _ name: Name) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        do throws(ErrorNumber) {
            let mapping = try kernel.map(file, offset: extent.offset, length: extent.size)
            add(View(mapping: mapping, file: extent.name, offset: extent.offset), as: name)
            return nil
        } catch {
            return try errno(error)
        }
    }

    private mutating func add(_ view: View, as name: Name) {
        if let old = views.updateValue(view, forKey: name) { kernel.forget(old.mapping) }
        if let old = gone.removeValue(forKey: name) { kernel.forget(old.mapping) }
    }

    private mutating func setGone(_ name: Name) {
        if let view = views.removeValue(forKey: name) { gone[name] = view }
    }

    private func requireNoSlot(into name: Name) throws(Stop) {
        if slots.values.contains(where: { $0.view == name }) { throw .slotLeads(into: name) }
    }

    private mutating func unmap(_ name: Name) throws(Stop) -> Observation {
        let mapping = try mapping(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        kernel.unmap(mapping)
        setGone(name)
        return Observation(.ok)
    }

    private mutating func remap(_ name: Name, pages: UInt64, as new: Name) throws(Stop) -> Observation {
        let mapping = try mapping(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        guard let old = views[name] ?? gone[name] else { throw .noView(name) }
        guard !old.isSplit else { throw .severalMappings(name) }
        do throws(ErrorNumber) {
            let moved = try kernel.move(mapping, toLength: pages * pageSize)
            setGone(name)
            add(View(mapping: moved, file: old.file, offset: old.offset), as: new)
            return Observation(.ok)
        } catch {
            return answer(error)
        }
    }

    private mutating func protect(_ extent: Extent, _ protection: Protection) throws(Stop) -> Observation {
        let mapping = try mapping(extent)
        guard !slots.values.contains(where: { $0.isPlain && $0.view == extent.name }) else {
            throw .guestMemory(extent.name)
        }
        noteSplit(extent, mapping)
        return answer { kernel throws(ErrorNumber) in
            try kernel.protect(mapping, at: extent.offset, length: extent.size, protection)
        }
    }

    private mutating func noteSplit(_ extent: Extent, _ mapping: MappingID) {
        if extent.offset > 0 || extent.size < kernel.length(of: mapping) {
            views[extent.name]?.isSplit = true
        }
    }

    mutating func poison(_ extent: Extent) throws(Stop) {
        let file = views[extent.name]?.file
        if let file { poisoned.insert(file) }
        let isPlain = slots.values.contains { slot in
            slot.isPlain && slot.view.flatMap { views[$0]?.file } == file
        }
        if isPlain { throw .endsInSIGBUS }
    }

    private mutating func hold(_ extent: Extent, _ kind: HoldKind, _ name: Name) throws(Stop) -> Observation {
        let mapping = try mapping(extent)
        do throws(ErrorNumber) {
            holds[name] = try kernel.hold(mapping, at: extent.offset, length: extent.size, by: kind)
            return Observation(.ok)
        } catch {
            missed.insert(name)
            return answer(error)
        }
    }

    // MARK: memslots

    mutating func bind(_ binding: Binding) throws(Stop) -> Errno? {
        let file = try file(binding.extent.name)
        let (address, view) = try address(binding, file)
        let isPlain = binding.flags & Binding.guestMemfd == 0
        if isPlain, let file = view.flatMap({ views[$0]?.file }), poisoned.contains(file) {
            throw .endsInSIGBUS
        }
        let vm = try vm(binding.vm)
        let region = UserspaceMemoryRegion(
            slot: binding.slot, flags: binding.flags, guestPhysicalAddress: binding.gpa,
            memorySize: binding.extent.size, userspaceAddress: address,
            guestMemfdOffset: binding.extent.offset)
        let key = World.SlotKey(vm: binding.vm ?? setup.main, number: binding.slot)
        do throws(ErrorNumber) {
            try kernel.setMemoryRegion(
                vm, region, guestMemfd: isPlain || !kernel.isOpen(file) ? nil : file)
            // One that moves leaves the tables first.
            if slots[key] != nil { guestTablesMayBeEmpty(vm) }
            slots[key] = Slot(gpa: binding.gpa, extent: binding.extent, view: view, isPlain: isPlain)
            return nil
        } catch {
            return try errno(error)
        }
    }

    /// `userspace_addr`, and the view that it leads into, by the rules of ``World``.
    private func address(_ binding: Binding, _ file: DescriptorID) throws(Stop) -> (UInt64, Name?) {
        let extent = binding.extent
        if let place = binding.address {
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: extent.size))
            return ((kernel.address(of: mapping) ?? 0) + place.offset, place.name)
        }
        if let view = views[extent.name], view.file == extent.name, extent.offset >= view.offset,
            case let start = extent.offset - view.offset, case let length = kernel.length(of: view.mapping),
            start <= length, extent.size <= length - start
        {
            return ((kernel.address(of: view.mapping) ?? 0) + start, extent.name)
        }
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard
            overflow || end > kernel.size(of: kernel.file(of: file))
                || binding.flags & Binding.guestMemfd != 0 && extent.size <= World.mostUnmappedSlot
        else { throw .slotNeedsAddress(extent) }
        return (0, nil)
    }

    private mutating func unbind(_ slot: UInt32, _ name: VMName?) throws(Stop) -> Observation {
        let vm = try vm(name)
        let seen = answer { kernel throws(ErrorNumber) in
            try kernel.setMemoryRegion(
                vm,
                UserspaceMemoryRegion(
                    slot: slot, flags: Binding.guestMemfd, guestPhysicalAddress: 0, memorySize: 0,
                    userspaceAddress: 0, guestMemfdOffset: 0))
        }
        if seen.outcome == .ok {
            slots[World.SlotKey(vm: name ?? setup.main, number: slot)] = nil
            guestTablesMayBeEmpty(vm)
        }
        return seen
    }

    /// On a default VM the pages of all slots leave the tables with any of them, those of the acting guest too.
    mutating func guestTablesMayBeEmpty(_ vm: VMID) {
        if vm == vms[setup.main], kernel.type(of: vm) == .default { guestPages = 0 }
    }

    private mutating func dirty(_ slot: UInt32, _ name: VMName?) throws(Stop) -> Observation {
        let vm = try vm(name)
        let size = slots[World.SlotKey(vm: name ?? setup.main, number: slot)]?.extent.size ?? 0
        guard size <= 8 * pageSize else { throw .dirtyIsOfEightPages }
        do throws(ErrorNumber) {
            return Observation(.value(UInt8(truncatingIfNeeded: try kernel.takeDirtyLog(vm, slot: slot))))
        } catch {
            return answer(error)
        }
    }

    // MARK: accesses of the host

    private func read(_ mapping: MappingID, _ offset: UInt64) -> Observation {
        let place = kernel.fileOffset(of: mapping) + offset
        return Observation(kernel.byte(kernel.file(of: mapping), at: place), at: place)
    }

    /// Byte by byte in effect, by system calls.
    private mutating func access(_ step: Step) throws(Stop) -> Observation {
        guard let extent = step.action.extent else { return Observation(.ok) }
        let mapping = try mapping(extent, step.role)
        let (file, base) = (kernel.file(of: mapping), kernel.fileOffset(of: mapping))
        let written = step.action.byteWritten
        let end = extent.offset + extent.size
        // What one system call copies.
        let most: UInt64 = 1 << 16
        var offset = extent.offset
        while offset < end {
            var count: UInt64 = 0
            do throws(ErrorNumber) {
                count = try kernel.touch(
                    mapping, offset, min(end - offset, most), toWrite: written != nil,
                    evenPrivateWith: written == nil ? .hostReadsPrivate : .hostWritesPrivate)
            } catch {
                guard error == .badAddress else { return answer(error) }
            }
            guard count > 0 else {
                return Observation(step.action.isSingle ? .sigbus() : .sigbus(at: offset))
            }
            if let written {
                kernel.fill(file, at: base + offset, count: count, with: written)
            } else if case .check(_, let byte) = step.action {
                if let other = kernel.firstByte(in: file, at: base + offset, count: count, otherThan: byte) {
                    var seen = Observation(.differs(at: other.offset - base))
                    seen.isAnyByte = other.byte == .unknown
                    return seen
                }
            } else {
                return read(mapping, offset)
            }
            offset += count
        }
        return Observation(.ok)
    }

    // MARK: conversions

    private mutating func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        let descriptor = try file(conversion.extent.name)
        guard let policy = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= kernel.size(of: kernel.file(of: descriptor))
        else { return try call(conversion, descriptor) }
        if let design = setup.configuration.contentDesign {
            var conversion = conversion
            if design == .callFlag, policy == .preserve { conversion.flags = ContentDesign.callFlagBit }
            return try call(conversion, descriptor)
        }
        return try ask(for: range, target, policy, conversion.monitor, conversion.extent.name, descriptor)
    }

    /// The monitor's converter, on a kernel that has this state and gives it back.
    private mutating func ask(
        for range: PageRange, _ target: PageState, _ policy: ContentPolicy, _ monitor: MonitorPolicy,
        _ name: Name, _ descriptor: DescriptorID
    ) throws(Stop) -> Observation {
        let vm = try vm(nil)
        let size = kernel.size(of: kernel.file(of: descriptor))
        let mapping: MappingID
        var own: MappingID?
        if let view = views[name], view.file == name, view.offset == 0,
            kernel.length(of: view.mapping) == size
        {
            mapping = view.mapping
        } else {
            do throws(ErrorNumber) {
                mapping = try kernel.map(descriptor, offset: 0, length: size)
            } catch {
                throw .monitorCannotMap(name, Errno(error))
            }
            own = mapping
        }
        let soft = SoftKVM(setup.configuration, contents: .inside)
        soft.value = kernel
        defer {
            kernel = soft.value
            if let own { kernel.forget(own) }
        }
        guard let whole = PageRange(start: 0, size: size) else { throw .noFile(name) }
        let region = MemoryRegion(
            gpa: whole, file: soft.memfd(descriptor), mapping: soft.mapping(mapping))
        return World.ask(
            soft, soft.vm(vm), region, kernel.attributes(of: kernel.file(of: descriptor)),
            ConversionRequest(range: range, to: target, contents: policy), monitor
        ).seen
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`, or the call that stands for it in this version.
    private mutating func call(
        _ conversion: Conversion, _ descriptor: DescriptorID
    ) throws(Stop) -> Observation {
        let isFirstCall = setup.configuration.abi == .rfcV1
        if conversion.contents == .preserve, setup.configuration.contentDesign == nil,
            let state = Attributes.state(conversion.attributes)
        {
            let vm = try vm(nil)
            let promise = kernel.contentPromise(of: vm)
            guard promise.fate(to: state).canPreserve else { return answer(.notSupportedOnSocket) }
        }
        guard conversion.reserved.allSatisfy({ $0.index < 3 || $0.value == 0 }) || !isFirstCall else {
            throw .threeReservedWords
        }
        var call = ConversionCall(
            offset: conversion.extent.offset, size: conversion.extent.size,
            attributes: conversion.attributes, flags: conversion.flags,
            errorOffset: conversion.errorOffset,
            isReservedZero: conversion.reserved.allSatisfy { $0.value == 0 })
        do throws(ErrorNumber) {
            if let memory = conversion.structure.memory {
                try kernel.convert(descriptor, &call, in: memory)
                // The result is in memory that the monitor does not see.
                return Observation(.ok)
            }
            try kernel.convert(descriptor, &call, isFirstCall: isFirstCall)
            let isWritten = call.errorOffset != conversion.errorOffset
            return Observation(
                .ok, oddity: isWritten ? "error_offset was written: \(written(call.errorOffset))" : nil)
        } catch {
            // Of a struct that cannot be written the monitor's copy stays as it was.
            let named = conversion.structure == .writable ? call.errorOffset : conversion.errorOffset
            let isNamed =
                error == .resourceTemporarilyUnavailable || error == .noMemory
                || named != conversion.errorOffset
            return Observation(.errno(error.rawValue, at: isNamed ? named : nil))
        }
    }

    /// The call for one memslot, as a hypercall makes it.
    mutating func convert(_ place: World.Behind, _ request: MapRequest) throws(Stop) -> Agent.Answer {
        let extent = Extent(place.file, offset: place.bytes.start, size: place.bytes.size)
        let seen = try convert(Conversion(extent, to: request.target, contents: request.contents))
        guard case .errno(let number, let offset) = seen.outcome else { return nil }
        return (Errno(rawValue: number), offset.map { place.gpa &+ ($0 &- place.bytes.start) })
    }
}

extension Observation {
    /// A byte that was read from this offset of a file.
    init(_ byte: Byte, at offset: UInt64) {
        self.init(.value(byte.shown(at: offset)))
        isAnyByte = byte == .unknown
    }
}

extension Action {
    /// The byte that the access writes; nil for one that reads.
    var byteWritten: UInt8? {
        switch self {
        case .write(_, let byte), .fill(_, let byte): byte
        default: nil
        }
    }
}
