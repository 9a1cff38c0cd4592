// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// The host's system calls on the objects of a test. Each returns the errno, or nil for success.
extension World {
    func create(_ new: NewFile) throws(Stop) -> Errno? {
        let vm = try vm(new.vm)
        do throws(Errno) {
            var flags = GuestMemfdFlags(rawValue: new.flags)
            if new.preserves, facts.design == .creationFlag { flags.insert(ContentDesign.creationFlagBit) }
            let file = try vm.createGuestMemfd(size: new.size, flags: flags)
            let initial = flags.initialState
            let (trace, event) = state.withLock { state in
                state.files[new.name] = file
                state.states[new.name] = AttributeMap(size: new.size, initial: initial)
                return (state.recording?.trace, state.recording?.add(new.name, size: new.size, initial))
            }
            if let trace, let event { trace.record(event, by: .monitor) }
        } catch {
            // EOPNOTSUPP is that of an adapter over SoftKVM.
            if facts.isAdapter, [.noMemory, .notSupportedOnSocket].contains(error),
                new.size > LitmusTest.mostPages * pageSize
            {
                throw .skip("\(backend.identity.name) maps whole files, and cannot map \(new.size) bytes")
            }
            return error
        }
        if late.files.contains(new.name) { try reserveDescriptor(of: new.name) }
        return nil
    }

    /// A descriptor that is used after its end gets a number that no other file can have then.
    private func reserveDescriptor(of name: Name) throws(Stop) {
        guard let file = try file(name) as? any ExaminableFile else {
            throw .skip("\(backend.identity.name) is an adapter, which cannot use closed descriptors")
        }
        do throws(Errno) {
            try file.reserveDescriptor()
        } catch {
            throw .broken("no descriptor number is free for `\(name)` (fcntl: \(error.name))")
        }
    }

    func close(_ name: Name) throws(Stop) -> Errno? {
        let file = try file(name)
        if late.files.contains(name), let file = file as? any ExaminableFile {
            noteWear(.files)
            do throws(Errno) { try file.closeDescriptor() } catch { return error }
            return nil
        }
        state.withLock { $0.files[name] = nil }
        withExtendedLifetime(file) {}
        return nil
    }

    func duplicate(_ name: Name, as copy: Name) throws(Stop) -> Errno? {
        guard let file = try file(name) as? any ExaminableFile else {
            throw .skip("\(backend.identity.name) is an adapter, whose files are not the kernel's")
        }
        do throws(Errno) {
            let new = try file.duplicate()
            state.withLock { state in
                state.files[copy] = new
                state.states[copy] = state.states[name]
            }
            return nil
        } catch {
            return error
        }
    }

    /// Skips the test if the model runs out of memory, because a kernel would not.
    func answer(_ error: Errno) throws(Stop) -> Errno {
        guard facts.soft != nil, error == SoftKVM.noBackingMemory else { return error }
        throw .noBackingMemory
    }

    func map(_ extent: Extent, _ view: Name) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        guard !late.views.contains(view) || file is any ExaminableFile else {
            throw .skip("\(backend.identity.name) is an adapter, whose mappings end with their last user")
        }
        do throws(Errno) {
            let mapping: any HostMapping
            if ending.contains(view), let file = file as? any ExaminableFile {
                mapping = try file.mapAlone(offset: extent.offset, length: extent.size)
            } else {
                mapping = try file.map(offset: extent.offset, length: extent.size)
            }
            add(View(mapping: mapping, file: extent.name, offset: extent.offset), as: view)
            return nil
        } catch {
            return try answer(error)
        }
    }

    func add(_ view: View, as name: Name) {
        let old = state.withLock { state in
            defer {
                state.views[name] = view
                state.gone[name] = nil
            }
            return state.gone[name]
        }
        withExtendedLifetime(old) {}
    }

    func bind(_ binding: Binding) throws(Stop) -> Errno? {
        let file = try file(binding.extent.name)
        let (address, view) = try address(binding, file)
        if binding.flags & Binding.guestMemfd == 0 { try requireSound(view) }
        var region = ckvm_userspace_memory_region2()
        region.slot = binding.slot
        region.flags = binding.flags
        region.guest_phys_addr = binding.gpa
        region.memory_size = binding.extent.size
        region.userspace_addr = address
        region.guest_memfd = UInt32(bitPattern: file.descriptor)
        region.guest_memfd_offset = binding.extent.offset
        let vm = try vm(binding.vm)
        do throws(Errno) {
            try vm.setUserMemoryRegion2(region)
            state.withLock { state in
                let key = SlotKey(vm: binding.vm ?? main, number: binding.slot)
                state.slots[key] = Slot(
                    gpa: binding.gpa, extent: binding.extent, view: view,
                    isPlain: binding.flags & Binding.guestMemfd == 0)
                state.boundSlots.insert(key)
            }
            return nil
        } catch {
            return try answer(error)
        }
    }

    /// `userspace_addr`, and the view that it points into. Every byte of the slot must be in that view, because the
    /// memory next to it belongs to this process.
    private func address(_ binding: Binding, _ file: any KVMGuestMemfd) throws(Stop) -> (UInt64, Name?) {
        if let place = binding.address {
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: binding.extent.size))
            return (mapping.address + place.offset, place.name)
        }
        let extent = binding.extent
        if let view = state.withLock({ $0.views[extent.name] }), view.file == extent.name,
            extent.offset >= view.offset, case let start = extent.offset - view.offset,
            start <= view.mapping.length, extent.size <= view.mapping.length - start
        {
            return (view.mapping.address + start, extent.name)
        }
        // Nothing is ever mapped below mmap_min_addr, and no kernel accepts a slot beyond the end of its file.
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard
            overflow || end > file.size
                || binding.flags & Binding.guestMemfd != 0 && extent.size <= Binding.mostUnmapped
        else { throw .slotNeedsAddress(extent) }
        return (0, nil)
    }

    func unbind(_ slot: UInt32, on name: VMName?) throws(Stop) -> Errno? {
        var region = ckvm_userspace_memory_region2()
        region.slot = slot
        region.flags = Binding.guestMemfd
        let vm = try vm(name)
        do throws(Errno) {
            try vm.setUserMemoryRegion2(region)
            state.withLock { state in
                let key = SlotKey(vm: name ?? main, number: slot)
                state.slots[key] = nil
                state.boundSlots.insert(key)
            }
            return nil
        } catch {
            return error
        }
    }

    func hold(_ extent: Extent, _ kind: HoldKind, _ name: Name) throws(Stop) -> Errno? {
        let mapping = try mapping(extent)
        do throws(Errno) {
            let hold = try mapping.hold(at: extent.offset, length: extent.size, by: kind)
            state.withLock { $0.holds[name] = hold }
            return nil
        } catch {
            state.withLock { _ = $0.missed.insert(name) }
            return error
        }
    }

    /// Releases a hold. A hold that could not be taken needs no release.
    func release(_ name: Name) throws(Stop) {
        let (hold, isMissed) = state.withLock {
            ($0.holds.removeValue(forKey: name), $0.missed.contains(name))
        }
        guard hold != nil || isMissed else {
            throw .noHold(name)
        }
        hold?.release()
    }

    func fork(_ number: Int) throws(Stop) {
        let views = state.withLock { $0.views.mapValues(\.mapping) }
        let child: any Child = try facts.fork(views)
        state.withLock { $0.children[number] = child }
    }

    func child(_ number: Int) throws(Stop) -> any Child {
        guard let child = state.withLock({ $0.children[number] }) else {
            throw .noChild(.child(number))
        }
        return child
    }

    /// The processes of the actors that are children.
    var processes: [Actor: Int32] {
        var processes: [Actor: Int32] = [:]
        for (number, child) in state.withLock({ $0.children }) { processes[.child(number)] = child.process }
        return processes
    }
}
