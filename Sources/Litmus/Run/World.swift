import CKVMShim
import MiniVMM
import SystemPackage

/// The machine of a test while it runs.
final class World {
    struct View {
        let mapping: any HostMapping
        let file: Name
        /// Where in the file it begins, bytes.
        let offset: UInt64
    }
    struct SlotKey: Hashable {
        let vm: VMType
        let number: UInt32
    }

    private let kernel: any KVMInterface
    private let type: VMType
    private var vms: [VMType: any KVMVirtualMachine] = [:]
    private var files: [Name: any KVMGuestMemfd] = [:]
    private var views: [Name: View] = [:]
    private var holds: [Name: any PageHold] = [:]
    /// The view that a slot's `userspace_addr` leads into.
    private var slots: [SlotKey: Name?] = [:]
    /// The guest that vCPUs run, once one of them has acted.
    private var agent: Agent?
    /// What the answers so far have made of the pages of a file.
    private var states: [Name: AttributeMap] = [:]

    init(_ kernel: any KVMInterface, _ test: LitmusTest) throws(Stop) {
        self.kernel = kernel
        type = test.vm
        do throws(Stop) {
            try make(test.memory)
        } catch {
            close()
            throw error
        }
    }

    private func make(_ memories: [Memory]) throws(Stop) {
        var gpa: UInt64 = 0
        var slot: UInt32 = 0
        for memory in memories {
            let size = memory.pages * pageSize
            var flags = GuestMemfdFlags.mmap
            if memory.initial == .shared { flags.insert(.initShared) }
            let made = try create(NewFile(memory.name, size: size, flags: flags.rawValue))
            guard made == nil else {
                throw .skip(
                    "\(memory): this kernel has no such guest_memfd (KVM_CREATE_GUEST_MEMFD: \(made?.name ?? ""))"
                )
            }
            let extent = Extent(memory.name, offset: 0, size: size)
            if let errno = try map(extent, memory.name) {
                throw .skip("\(memory): the host cannot map it (mmap: \(errno.name))")
            }
            guard !memory.isUnbound else { continue }
            if let errno = try bind(Binding(slot: slot, to: extent, gpa: gpa)) {
                throw .broken("memslot \(slot) for \(memory): \(errno.name)")
            }
            slot += 1
            gpa += size
        }
    }

    /// In the order in which things lean on each other.
    func close() {
        agent?.close()
        agent = nil
        for slot in slots.keys { _ = try? unbind(slot.number, on: slot.vm) }
        for hold in holds.values { hold.release() }
        holds = [:]
        views = [:]
        files = [:]
        vms = [:]
    }

    // MARK: what there is

    private func vm(_ type: VMType) throws(Stop) -> any KVMVirtualMachine {
        if let vm = vms[type] { return vm }
        do throws(Errno) {
            let vm = try kernel.createVM(type, sharedBit: nil)
            vms[type] = vm
            return vm
        } catch {
            throw .skip("this kernel has no \(type.word) VM (KVM_CREATE_VM: \(error.name))")
        }
    }

    func file(_ name: Name) throws(Stop) -> any KVMGuestMemfd {
        guard let file = files[name] else {
            throw .broken("there is no file `\(name)`: it could not be made")
        }
        return file
    }

    /// The mapping of a view, with all of `extent` inside: no test touches other memory of this process.
    func mapping(_ extent: Extent) throws(Stop) -> any HostMapping {
        guard let view = views[extent.name] else {
            throw .broken("there is no view `\(extent.name)`: it could not be made")
        }
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard !overflow, end <= view.mapping.length else {
            throw .broken(
                "\(extent) is not inside the view `\(extent.name)`, which has \(view.mapping.length) bytes")
        }
        return view.mapping
    }

    func guest() throws(Stop) -> Agent {
        if let agent { return agent }
        let agent = try Agent(on: try vm(type))
        self.agent = agent
        return agent
    }

    // MARK: system calls; each returns the errno, nil for success

    func create(_ new: NewFile) throws(Stop) -> Errno? {
        let vm = try vm(new.vm ?? type)
        do throws(Errno) {
            let flags = GuestMemfdFlags(rawValue: new.flags)
            files[new.name] = try vm.createGuestMemfd(size: new.size, flags: flags)
            states[new.name] = AttributeMap(
                size: new.size, initial: flags.contains(.initShared) ? .shared : .private)
            return nil
        } catch {
            return error
        }
    }

    func close(_ name: Name) throws(Stop) {
        _ = try file(name)
        files[name] = nil
    }

    func map(_ extent: Extent, _ view: Name) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        do throws(Errno) {
            let mapping = try file.map(offset: extent.offset, length: extent.size)
            views[view] = View(mapping: mapping, file: extent.name, offset: extent.offset)
            return nil
        } catch {
            return error
        }
    }

    func unmap(_ name: Name) throws(Stop) {
        _ = try mapping(Extent(name, offset: 0, size: 0))
        if slots.values.contains(name) {
            throw .skip(
                "a memslot leads into the view `\(name)`: what is mapped there next would become the guest's")
        }
        views[name] = nil
    }

    func bind(_ binding: Binding) throws(Stop) -> Errno? {
        let file = try file(binding.extent.name)
        let (address, view) = try address(binding, file)
        var region = ckvm_userspace_memory_region2()
        region.slot = binding.slot
        region.flags = binding.flags
        region.guest_phys_addr = binding.gpa
        region.memory_size = binding.extent.size
        region.userspace_addr = address
        region.guest_memfd = UInt32(bitPattern: file.descriptor)
        region.guest_memfd_offset = binding.extent.offset
        let type = binding.vm ?? type
        let vm = try vm(type)
        do throws(Errno) {
            try vm.setUserMemoryRegion2(region)
            slots[SlotKey(vm: type, number: binding.slot)] = .some(view)
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
        if let view = views[extent.name], view.file == extent.name, extent.offset >= view.offset,
            case let start = extent.offset - view.offset, start <= view.mapping.length,
            extent.size <= view.mapping.length - start
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

    func unbind(_ slot: UInt32, on type: VMType?) throws(Stop) -> Errno? {
        var region = ckvm_userspace_memory_region2()
        region.slot = slot
        region.flags = Binding.guestMemfd
        let vm = try vm(type ?? self.type)
        do throws(Errno) {
            try vm.setUserMemoryRegion2(region)
            slots[SlotKey(vm: type ?? self.type, number: slot)] = nil
            return nil
        } catch {
            return error
        }
    }

    func hold(_ extent: Extent, _ kind: HoldKind, _ name: Name) throws(Stop) -> Errno? {
        let mapping = try mapping(extent)
        do throws(Errno) {
            holds[name] = try mapping.hold(at: extent.offset, length: extent.size, by: kind)
            return nil
        } catch {
            return error
        }
    }

    func release(_ name: Name) throws(Stop) {
        guard let hold = holds[name] else { throw .broken("there is no hold `\(name)`: it could not be had") }
        hold.release()
        holds[name] = nil
    }

    // MARK: conversions

    func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        let file = try file(conversion.extent.name)
        if conversion.contents == .preserve, let state = Attributes.state(conversion.attributes) {
            let promise = try vm(type).contentPromise
            guard (state == .private ? promise.toPrivate : promise.toShared) == .preserved else {
                return Observation(.errno(Errno.notSupportedOnSocket.rawValue))
            }
        }
        let before = ckvm_memory_attributes2(conversion)
        var request = before
        do throws(Errno) {
            try file.setMemoryAttributes2(&request)
            if let state = Attributes.state(conversion.attributes),
                let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
                range.end <= file.size
            {
                states[conversion.extent.name]?.set(range, to: state)
            }
            return Observation(
                .ok,
                oddity: request.error_offset == before.error_offset
                    ? request.change(from: before)
                    : "error_offset was written: \(written(request.error_offset))")
        } catch {
            let names = [.resourceTemporarilyUnavailable, .noMemory].contains(error)
            let isWritten = names || request.error_offset != before.error_offset
            return Observation(
                .errno(error.rawValue, at: isWritten ? request.error_offset : nil),
                oddity: request.change(from: before))
        }
    }

    // MARK: what there is to see

    /// The pages of the step's file, one before and one behind those that it names, at most eight.
    func pages(around step: Step) -> [String] {
        guard let extent = step.action.extent else { return [] }
        let name = views[extent.name]?.file ?? extent.name
        guard let states = states[name] else { return [] }
        let base = views[extent.name]?.offset ?? 0
        let count = states.size / pageSize
        let first = min(base.addingReportingOverflow(extent.offset).partialValue / pageSize, count - 1)
        let lines = max(1, min(extent.size / pageSize, 6)) + 2
        let start = first == 0 ? 0 : first - 1
        return (start..<min(count, start + lines)).map { page in
            let offset = page * pageSize
            let state = states.state(at: offset)?.rawValue ?? "unknown"
            return "page \(page) of \(name): \(state), the host reads \(look(name, offset))"
        }
    }

    private func look(_ name: Name, _ offset: UInt64) -> String {
        guard let view = views[name], view.file == name, offset >= view.offset,
            offset - view.offset < view.mapping.length
        else { return "nothing, for want of a view" }
        var byte: UInt8 = 0
        do throws(Errno) {
            let count = unsafe try withUnsafeMutableBytes(of: &byte) { buffer throws(Errno) in
                unsafe try view.mapping.read(at: offset - view.offset, into: buffer)
            }
            return count == 1 ? hex(UInt64(byte)) : "nothing"
        } catch {
            return error == .badAddress ? "SIGBUS" : error.name
        }
    }
}

extension ckvm_memory_attributes2 {
    init(_ conversion: Conversion) {
        self.init()
        offset = conversion.extent.offset
        size = conversion.extent.size
        attributes = conversion.attributes
        flags = conversion.flags
        error_offset = conversion.errorOffset
        unsafe withUnsafeMutableBytes(of: &reserved) { bytes in
            for word in conversion.reserved where (0...10).contains(word.index) {
                unsafe bytes.storeBytes(of: word.value, toByteOffset: word.index * 8, as: UInt64.self)
            }
        }
    }

    /// What a call has changed though it never may.
    func change(from before: Self) -> String? {
        let isSame =
            offset == before.offset && size == before.size && attributes == before.attributes
            && flags == before.flags
        return isSame ? nil : "a word of the struct that is only read was written"
    }
}

extension Action {
    /// The bytes that it is about.
    var extent: Extent? {
        switch self {
        case .read(let place), .write(let place, _): Extent(place.name, offset: place.offset, size: 1)
        case .fill(let extent, _), .check(let extent, _), .map(let extent, _), .advise(let extent, _),
            .allocate(let extent), .punch(let extent), .hold(let extent, _, _), .hypercall(let extent, _):
            extent
        case .convert(let conversion): conversion.extent
        case .bind(let binding): binding.extent
        case .unmap, .release, .create, .close, .unbind, .fork: nil
        }
    }
}
