// SPDX-License-Identifier: MIT
import ConversionModel

// Calls on files, views, holds and memslots.
extension ModelMachine {
    // MARK: files

    package mutating func create(_ new: NewFile) throws(Stop) -> ErrorNumber? {
        let vm = try vm(new.vm)
        var flags = GuestMemfdFlags(rawValue: new.flags)
        if new.preserves, setup.rules.contentDesign == .creationFlag {
            flags.insert(ContentDesign.creationFlagBit)
        }
        do throws(ErrorNumber) {
            let file = try kernel.createGuestMemfd(vm, size: new.size, flags: flags)
            if let old = files.updateValue(file, forKey: new.name) { kernel.forget(old) }
            return nil
        } catch {
            return error
        }
    }

    package mutating func close(_ name: Name) throws(Stop) -> Observation {
        let file = try file(name)
        // The name of a closed descriptor stays valid if a later step uses it.
        if setup.late.files.contains(name) {
            return answer { kernel throws(ErrorNumber) in try kernel.close(file) }
        }
        files[name] = nil
        kernel.forget(file)
        return Observation(.ok)
    }

    package mutating func allocate(_ extent: Extent, punchHole: Bool) throws(Stop) -> Observation {
        let file = try file(extent.name)
        do throws(ErrorNumber) {
            try kernel.allocate(file, punchHole: punchHole, offset: extent.offset, length: extent.size)
            return Observation(.ok)
        } catch {
            return answer(try errno(error))
        }
    }

    // MARK: views

    package mutating func map(_ extent: Extent, _ name: Name) throws(Stop) -> ErrorNumber? {
        let file = try file(extent.name)
        do throws(ErrorNumber) {
            let mapping = try kernel.map(file, offset: extent.offset, length: extent.size)
            add(View(mapping: mapping, file: extent.name, offset: extent.offset), as: name)
            return nil
        } catch {
            return try errno(error)
        }
    }

    package mutating func add(_ view: View, as name: Name) {
        if let old = views.updateValue(view, forKey: name) { kernel.forget(old.mapping) }
        if let old = gone.removeValue(forKey: name) { kernel.forget(old.mapping) }
    }

    package mutating func setGone(_ name: Name) {
        if let view = views.removeValue(forKey: name) { gone[name] = view }
    }

    private func requireNoSlot(into name: Name) throws(Stop) {
        if slots.values.contains(where: { $0.view == name }) { throw .slotLeads(into: name) }
    }

    package mutating func unmap(_ name: Name) throws(Stop) -> Observation {
        let mapping = try mapping(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        kernel.unmap(mapping)
        setGone(name)
        return Observation(.ok)
    }

    package mutating func remap(_ name: Name, pages: UInt64, as new: Name) throws(Stop) -> Observation {
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

    package mutating func protect(_ extent: Extent, _ protection: Protection) throws(Stop) -> Observation {
        let mapping = try mapping(extent)
        guard !slots.values.contains(where: { $0.isPlain && $0.view == extent.name }) else {
            throw .guestMemory(extent.name)
        }
        noteSplit(extent, mapping)
        return answer { kernel throws(ErrorNumber) in
            try kernel.protect(mapping, at: extent.offset, length: extent.size, protection)
        }
    }

    package mutating func noteSplit(_ extent: Extent, _ mapping: MappingID) {
        if extent.offset > 0 || extent.size < kernel.length(of: mapping) {
            views[extent.name]?.isSplit = true
        }
    }

    package mutating func poison(_ extent: Extent) throws(Stop) {
        let file = views[extent.name]?.file
        if let file { poisoned.insert(file) }
        let isPlain = slots.values.contains { slot in
            slot.isPlain && slot.view.flatMap { views[$0]?.file } == file
        }
        if isPlain { throw .endsInSIGBUS }
    }

    package mutating func hold(_ extent: Extent, _ kind: HoldKind, _ name: Name) throws(Stop) -> Observation {
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

    package mutating func bind(_ binding: Binding) throws(Stop) -> ErrorNumber? {
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
        let key = SlotKey(vm: binding.vm ?? setup.main, number: binding.slot)
        do throws(ErrorNumber) {
            try kernel.setMemoryRegion(
                vm, region, guestMemfd: isPlain || !kernel.isOpen(file) ? nil : file)
            // A memslot that moves is first removed from the tables.
            if slots[key] != nil { guestTablesMayBeEmpty(vm) }
            slots[key] = Slot(gpa: binding.gpa, extent: binding.extent, view: view, isPlain: isPlain)
            return nil
        } catch {
            return try errno(error)
        }
    }

    /// `userspace_addr`, and the view that it points into, by the rules of ``World``.
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
                || binding.flags & Binding.guestMemfd != 0 && extent.size <= Binding.mostUnmapped
        else { throw .slotNeedsAddress(extent) }
        return (0, nil)
    }

    package mutating func unbind(_ slot: UInt32, _ name: VMName?) throws(Stop) -> Observation {
        let vm = try vm(name)
        let seen = answer { kernel throws(ErrorNumber) in
            try kernel.setMemoryRegion(
                vm,
                UserspaceMemoryRegion(
                    slot: slot, flags: Binding.guestMemfd, guestPhysicalAddress: 0, memorySize: 0,
                    userspaceAddress: 0, guestMemfdOffset: 0))
        }
        if seen.outcome == .ok {
            slots[SlotKey(vm: name ?? setup.main, number: slot)] = nil
            guestTablesMayBeEmpty(vm)
        }
        return seen
    }

    /// On a default VM, removing any slot unmaps the pages of all slots, including the agent's.
    package mutating func guestTablesMayBeEmpty(_ vm: VMID) {
        if vm == vms[setup.main], kernel.type(of: vm) == .default { guestPages = 0 }
    }

    package mutating func dirty(_ slot: UInt32, _ name: VMName?) throws(Stop) -> Observation {
        let vm = try vm(name)
        let size = slots[SlotKey(vm: name ?? setup.main, number: slot)]?.extent.size ?? 0
        guard size <= 8 * pageSize else { throw .dirtyIsOfEightPages }
        do throws(ErrorNumber) {
            return Observation(.value(UInt8(truncatingIfNeeded: try kernel.takeDirtyLog(vm, slot: slot))))
        } catch {
            return answer(error)
        }
    }
}
