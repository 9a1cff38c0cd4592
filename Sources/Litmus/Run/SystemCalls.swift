import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// The host's system calls on what a test has made. Each returns the errno, nil for success.
extension World {
    func create(_ new: NewFile) throws(Stop) -> Errno? {
        let vm = try vm(new.vm)
        do throws(Errno) {
            var flags = GuestMemfdFlags(rawValue: new.flags)
            if new.preserves, facts.design == .creationFlag { flags.insert(ContentDesign.creationFlagBit) }
            let file = try vm.createGuestMemfd(size: new.size, flags: flags)
            let initial: PageState = flags.contains(.initShared) ? .shared : .private
            let (trace, event) = state.withLock { state in
                state.files[new.name] = file
                state.states[new.name] = AttributeMap(size: new.size, initial: initial)
                state.isOnlyTouched = false
                return (state.recording?.trace, state.recording?.add(new.name, size: new.size, initial))
            }
            if let trace, let event { trace.record(event, by: .host) }
        } catch {
            return error
        }
        if late.files.contains(new.name) { try reserveDescriptor(of: new.name) }
        return nil
    }

    /// The number of a descriptor that is used once it is closed must not be another file's by then.
    private func reserveDescriptor(of name: Name) throws(Stop) {
        guard let file = try file(name) as? any ExaminableFile else {
            throw .skip("\(kernel.identity.name) is an adapter, and has no descriptors that are closed")
        }
        do throws(Errno) {
            try file.reserveDescriptor()
        } catch {
            throw .broken("no number is free for the descriptor of `\(name)` (fcntl: \(error.name))")
        }
    }

    func close(_ name: Name) throws(Stop) -> Errno? {
        let file = try file(name)
        state.withLock { $0.isOnlyTouched = false }
        if late.files.contains(name), let file = file as? any ExaminableFile {
            do throws(Errno) { try file.closeDescriptor() } catch { return error }
            return nil
        }
        state.withLock { $0.files[name] = nil }
        withExtendedLifetime(file) {}
        return nil
    }

    func duplicate(_ name: Name, as copy: Name) throws(Stop) -> Errno? {
        guard let file = try file(name) as? any ExaminableFile else {
            throw .skip("\(kernel.identity.name) is an adapter, and has other files than its kernel")
        }
        do throws(Errno) {
            let new = try file.duplicate()
            state.withLock { state in
                state.files[copy] = new
                state.states[copy] = state.states[name]
                state.isOnlyTouched = false
            }
            return nil
        } catch {
            return error
        }
    }

    func map(_ extent: Extent, _ view: Name) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        guard !late.views.contains(view) || file is any ExaminableFile else {
            throw .skip("\(kernel.identity.name) is an adapter, and its mappings end with their last user")
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
            return error
        }
    }

    private func add(_ view: View, as name: Name) {
        state.withLock { state in
            state.views[name] = view
            state.gone[name] = nil
            state.isOnlyTouched = false
        }
    }

    func unmap(_ name: Name) throws(Stop) -> Errno? {
        let mapping = try mapping(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        guard let examinable = mapping as? any ExaminableMapping else {
            let view = state.withLock { state in
                state.isOnlyTouched = false
                return state.views.removeValue(forKey: name)
            }
            withExtendedLifetime(view) {}
            return nil
        }
        do throws(Errno) {
            try examinable.unmap()
            setGone(name)
            return nil
        } catch {
            return error
        }
    }

    private func setGone(_ name: Name) {
        state.withLock { state in
            state.isOnlyTouched = false
            if let view = state.views.removeValue(forKey: name) { state.gone[name] = view }
        }
    }

    private func requireNoSlot(into name: Name) throws(Stop) {
        guard state.withLock({ $0.slots.values.contains { $0.view == name } }) else { return }
        throw .skip(
            "a memslot leads into the view `\(name)`: what is mapped there next would become the guest's")
    }

    func remap(_ name: Name, pages: UInt64, as new: Name) throws(Stop) -> Errno? {
        let mapping = try examinable(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        guard let old = state.withLock({ $0.views[name] ?? $0.gone[name] }) else {
            throw .broken("there is no view `\(name)`: it could not be made")
        }
        guard !old.isSplit else {
            throw .skip("parts of `\(name)` differ, and before Linux 6.17 mremap moves one mapping")
        }
        do throws(Errno) {
            let moved = try mapping.move(toLength: pages * pageSize)
            setGone(name)
            add(View(mapping: moved, file: old.file, offset: old.offset), as: new)
            return nil
        } catch {
            return error
        }
    }

    func protect(_ extent: Extent, _ protection: Protection) throws(Stop) -> Errno? {
        let mapping = try examinable(extent)
        guard !state.withLock({ $0.slots.values.contains { $0.isPlain && $0.view == extent.name } }) else {
            throw .skip(
                "the view `\(extent.name)` is a guest's memory: what its protection does is not modelled")
        }
        noteSplit(extent, mapping.length)
        do throws(Errno) {
            try mapping.protect(at: extent.offset, length: extent.size, protection)
            return nil
        } catch {
            return error
        }
    }

    private func noteSplit(_ extent: Extent, _ length: UInt64) {
        state.withLock { state in
            state.isOnlyTouched = false
            if extent.offset > 0 || extent.size < length { state.views[extent.name]?.isSplit = true }
        }
    }

    private func examinable(_ extent: Extent) throws(Stop) -> any ExaminableMapping {
        guard let mapping = try mapping(extent) as? any ExaminableMapping else {
            throw .skip("\(kernel.identity.name) is an adapter, and protects mappings itself")
        }
        return mapping
    }

    func placing(_ extent: Extent) throws(Stop) -> any NodePlacing {
        guard let mapping = try mapping(extent) as? any NodePlacing else {
            throw .skip("\(kernel.identity.name) is an adapter whose shared memory is no guest_memfd")
        }
        return mapping
    }

    func mbind(_ extent: Extent, _ policy: MemoryPolicy, _ flags: PolicyFlags) throws(Stop) -> Errno? {
        let mapping = try placing(extent)
        noteSplit(extent, mapping.length)
        do throws(Errno) {
            try mapping.bind(at: extent.offset, length: extent.size, policy, flags)
            return nil
        } catch {
            return error
        }
    }

    func migrate(_ place: Place, to node: UInt32) throws(Stop) -> Errno? {
        let mapping = try placing(Extent(place.name, offset: place.offset, size: 1))
        do throws(Errno) {
            try mapping.migrate(at: place.offset, to: node)
            return nil
        } catch {
            return error
        }
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
                state.slots[SlotKey(vm: binding.vm ?? main, number: binding.slot)] = Slot(
                    gpa: binding.gpa, extent: binding.extent, view: view,
                    isPlain: binding.flags & Binding.guestMemfd == 0)
                state.isOnlyTouched = false
            }
            return nil
        } catch {
            return error
        }
    }

    /// `userspace_addr`, and the view that it leads into. Every byte of the slot has to be in that view: what is next
    /// to it belongs to this process.
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
        // Nothing is ever mapped below mmap_min_addr; and what leaves the file is no slot on any kernel.
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard overflow || end > file.size || binding.flags & Binding.guestMemfd != 0 && extent.size <= 1 << 16
        else {
            throw .broken("the slot needs an address: map \(extent) as `\(extent.name)`, or name a view")
        }
        return (0, nil)
    }

    /// KVM sends SIGBUS to a monitor whose guest touches memory of its own that has failed.
    private func requireSound(_ view: Name?) throws(Stop) {
        let isPoisoned = state.withLock { state in
            view.flatMap { state.views[$0]?.file }.map(state.poisoned.contains) ?? false
        }
        if isPoisoned { throw Self.endsInSIGBUS }
    }

    private static let endsInSIGBUS = Stop.skip(
        "a memslot without a guest_memfd leads to a page whose memory has failed: KVM's answer is SIGBUS to minivmm"
    )

    func poison(_ extent: Extent) throws(Stop) {
        let isPlain = state.withLock { state in
            let file = state.views[extent.name]?.file
            if let file { state.poisoned.insert(file) }
            state.isOnlyTouched = false
            return state.slots.values.contains { slot in
                slot.isPlain && slot.view.flatMap { state.views[$0]?.file } == file
            }
        }
        if isPlain { throw Self.endsInSIGBUS }
    }

    func unbind(_ slot: UInt32, on name: VMName?) throws(Stop) -> Errno? {
        var region = ckvm_userspace_memory_region2()
        region.slot = slot
        region.flags = Binding.guestMemfd
        let vm = try vm(name)
        do throws(Errno) {
            try vm.setUserMemoryRegion2(region)
            state.withLock { state in
                state.slots[SlotKey(vm: name ?? main, number: slot)] = nil
                state.isOnlyTouched = false
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

    /// Lets go. Of what could not be had there is nothing to let go.
    func release(_ name: Name) throws(Stop) {
        let (hold, isMissed) = state.withLock {
            ($0.holds.removeValue(forKey: name), $0.missed.contains(name))
        }
        guard hold != nil || isMissed else {
            throw .broken("there is no hold `\(name)`: it could not be had")
        }
        hold?.release()
    }

    func fork(_ number: Int) throws(Stop) {
        let views = state.withLock { $0.views.mapValues(\.mapping) }
        let child: any Child = try facts.fork(views)
        state.withLock { state in
            state.children[number] = child
            state.isOnlyTouched = false
        }
    }

    func child(_ number: Int) throws(Stop) -> any Child {
        guard let child = state.withLock({ $0.children[number] }) else {
            throw .broken("\(Role.child(number)) is not there: it could not be forked")
        }
        return child
    }
}
