// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

// System calls on views: unmapping, moving, protection and NUMA policies.
extension World {
    func unmap(_ name: Name) throws(Stop) -> Errno? {
        let mapping = try mapping(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        guard let examinable = mapping as? any ExaminableMapping else {
            let view = state.withLock { $0.views.removeValue(forKey: name) }
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
            if let view = state.views.removeValue(forKey: name) { state.gone[name] = view }
        }
    }

    private func requireNoSlot(into name: Name) throws(Stop) {
        guard state.withLock({ $0.slots.values.contains { $0.view == name } }) else { return }
        throw .slotLeads(into: name)
    }

    func remap(_ name: Name, pages: UInt64, as new: Name) throws(Stop) -> Errno? {
        let mapping = try examinable(Extent(name, offset: 0, size: 0))
        try requireNoSlot(into: name)
        guard let old = state.withLock({ $0.views[name] ?? $0.gone[name] }) else {
            throw .noView(name)
        }
        guard !old.isSplit else {
            throw .severalMappings(name)
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
            throw .guestMemory(extent.name)
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
        // The file itself keeps a part of the policy.
        noteWear(.files)
        state.withLock { state in
            if extent.offset > 0 || extent.size < length { state.views[extent.name]?.isSplit = true }
        }
    }

    private func examinable(_ extent: Extent) throws(Stop) -> any ExaminableMapping {
        guard let mapping = try mapping(extent) as? any ExaminableMapping else {
            throw .skip("\(backend.identity.name) is an adapter, which protects mappings itself")
        }
        return mapping
    }

    func placing(_ extent: Extent) throws(Stop) -> any NodePlacing {
        guard let mapping = try mapping(extent) as? any NodePlacing else {
            throw .skip("\(backend.identity.name) is an adapter whose shared memory is no guest_memfd")
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
        noteWear(.files)
        do throws(Errno) {
            try mapping.migrate(at: place.offset, to: node)
            return nil
        } catch {
            return error
        }
    }

    // MARK: failing memory

    /// KVM sends SIGBUS to a monitor whose guest touches failed memory of the monitor.
    func requireSound(_ view: Name?) throws(Stop) {
        let isPoisoned = state.withLock { state in
            view.flatMap { state.views[$0]?.file }.map(state.poisoned.contains) ?? false
        }
        if isPoisoned { throw .endsInSIGBUS }
    }

    func poison(_ extent: Extent) throws(Stop) {
        let isPlain = state.withLock { state in
            let file = state.views[extent.name]?.file
            if let file { state.poisoned.insert(file) }
            state.wear = .machine
            return state.slots.values.contains { slot in
                slot.isPlain && slot.view.flatMap { state.views[$0]?.file } == file
            }
        }
        if isPlain { throw .endsInSIGBUS }
    }
}
