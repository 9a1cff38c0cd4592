// SPDX-License-Identifier: MIT
import ConversionModel

/// The machine of a test as a value: the model of the kernel, and the objects that the test's names refer to.
///
/// A copy is another machine in the same state. It costs nothing until one of the two changes, so an exploration keeps
/// a copy of each state that it returns to. Nothing here makes a system call, takes a lock or executes an instruction
/// of a guest: the model itself answers the accesses of vCPUs.
package struct ModelMachine: Sendable {
    package struct View: Hashable, Sendable {
        package let mapping: MappingID
        package let file: Name
        /// Offset in the file, bytes.
        package let offset: UInt64
        /// Whether parts have different protections or policies, so that the kernel has several mappings.
        package var isSplit = false
    }
    package struct Slot: Hashable, Sendable {
        package let gpa: UInt64
        /// The part of the file that the slot is bound to.
        package let extent: Extent
        /// The view that `userspace_addr` points into.
        package let view: Name?
        /// Whether the slot's memory is that view, without a guest_memfd.
        package let isPlain: Bool
    }
    package struct VCPU: Hashable, Sendable {
        /// Whether an access has stopped without completing.
        package var isStuck = false
        /// The memory fault of that access, and the access's policy for memory faults.
        package var fault: MemoryFault?
        package var onFault: FaultConversion?
        /// The last access to one byte that did not complete.
        package var pending: Step?
        /// The guest-physical address of KVM's clock, which is written when the vCPU next enters.
        package var clock: UInt64?
    }

    /// The part of a machine that never changes.
    package final class Setup: Sendable {
        package let rules: Rules
        package let main: VMName
        /// The bit of an address that selects the shared alias; nil if the test's VM has one alias.
        package let sharedBit: Int?
        package let memories: [Memory]
        /// The guest's memory as in the header.
        package let regions: [Region]
        package let late: LateUses
        /// Whether an SNP or TDX VM is launched by steps of the test.
        package let hasLaunch: Bool

        /// - Parameter rules: with the settings of the test's header.
        package init(_ rules: Rules, _ test: LitmusTest) {
            self.rules = rules
            main = VMName(test.vm)
            sharedBit = test.guestHasTwoAliases ? min(46, KernelModel.guestPhysicalBits - 1) : nil
            memories = test.memory
            regions = test.memory.regions
            late = LateUses(test)
            hasLaunch = test.steps.contains { $0.action == .confidential(.finalize) }
        }
    }

    package let setup: Setup
    package var kernel: KernelModel
    package var vms: [VMName: VMID] = [:]
    package var files: [Name: DescriptorID] = [:]
    package var views: [Name: View] = [:]
    /// Views that were unmapped or moved.
    package var gone: [Name: View] = [:]
    package var holds: [Name: HoldID] = [:]
    /// Holds that could not be taken.
    package var missed: Set<Name> = []
    package var slots: [SlotKey: Slot] = [:]
    /// The mappings that each forked child has, by the name of the view.
    package var children: [Int: [Name: View]] = [:]
    package var vcpus: [Int: VCPU] = [:]
    /// Files with a page whose memory has failed.
    package var poisoned: Set<Name> = []
    /// SNP and TDX: `hypercall.ret` for the next request of a guest; nil if the monitor carries it out.
    package var nextAnswer: UInt64?
    /// Pages in the second-stage tables when a vCPU last made an access.
    package var mappedPages: UInt64 = 0
    /// The agent's pages in the tables, one bit each: its code, its page tables and its orders.
    package var guestPages: UInt8 = 0

    package init(_ setup: Setup) throws(Stop) {
        self.setup = setup
        kernel = KernelModel(setup.rules)
        for memory in setup.memories {
            let size = memory.pages * pageSize
            var flags = GuestMemfdFlags.mmap
            if memory.initial == .shared { flags.insert(.initShared) }
            if let errno = try create(NewFile(memory.name, size: size, flags: flags.rawValue)) {
                throw .skip(
                    "\(memory): this kernel cannot create such a guest_memfd (KVM_CREATE_GUEST_MEMFD: \(errno.name))"
                )
            }
            let extent = Extent(memory.name, offset: 0, size: size)
            if let errno = try map(extent, memory.name) {
                throw .skip("\(memory): the host cannot map it (mmap: \(errno.name))")
            }
            guard let slot = setup.regions.firstIndex(where: { $0.name == memory.name }) else { continue }
            let gpa = setup.regions[slot].gpa.start
            if let errno = try bind(Binding(slot: UInt32(slot), to: extent, gpa: gpa)) {
                throw .broken("memslot \(slot) for \(memory): \(errno.name)")
            }
        }
    }

    // MARK: equality

    /// Everything that affects the outcomes of later steps. Machines with equal keys behave the same.
    package struct Key: Hashable, Sendable {
        private let kernel: KernelModel
        private let vms: [VMName: VMID]
        private let files: [Name: DescriptorID]
        private let views: [Name: View]
        private let gone: Set<Name>
        private let holds: [Name: KernelModel.HoldState]
        private let missed: Set<Name>
        private let slots: [SlotKey: Slot]
        private let children: [Int: [Name: View]]
        private let vcpus: [Int: VCPU]
        private let poisoned: Set<Name>
        private let nextAnswer: UInt64?

        package init(_ machine: ModelMachine) {
            kernel = machine.kernel.withoutStatistics
            (vms, files, views) = (machine.vms, machine.files, machine.views)
            gone = Set(machine.gone.keys)
            holds = machine.holds.mapValues { machine.kernel.state(of: $0) }
            (missed, slots, children) = (machine.missed, machine.slots, machine.children)
            // A vCPU whose accesses have all completed behaves like a new one.
            vcpus = machine.vcpus.compactMapValues { vcpu in
                guard vcpu.isStuck || vcpu.clock != nil else { return nil }
                return vcpu.isStuck ? vcpu : VCPU(clock: vcpu.clock)
            }
            poisoned = machine.poisoned
            nextAnswer = machine.nextAnswer
        }

        /// Different states almost always differ in the kernel.
        package func hash(into hasher: inout Hasher) { hasher.combine(kernel) }
    }

    package var key: Key { Key(self) }

    // MARK: objects

    /// The VM of a name, created when a step first needs it.
    package mutating func vm(_ name: VMName?) throws(Stop) -> VMID {
        let name = name ?? setup.main
        if let vm = vms[name] { return vm }
        do throws(ErrorNumber) {
            let vm = try kernel.createVM(name.type, sharedBit: name == setup.main ? setup.sharedBit : nil)
            vms[name] = vm
            if name.type.isConfidential, !setup.hasLaunch { try kernel.finalize(vm) }
            return vm
        } catch {
            throw .skip("this kernel has no \(name.type.word) VM (KVM_CREATE_VM: \(error.name))")
        }
    }

    package func file(_ name: Name) throws(Stop) -> DescriptorID {
        guard let file = files[name] else { throw .noFile(name) }
        return file
    }

    /// The mapping of a view of the host or of a child, including one that is gone. All of `extent` is inside.
    package func mapping(_ extent: Extent, _ actor: Actor = .host(0)) throws(Stop) -> MappingID {
        let view: View
        if case .child(let number) = actor {
            guard let views = children[number] else { throw .noChild(actor) }
            guard let own = views[extent.name] else { throw .noView(extent.name, of: actor) }
            view = own
        } else {
            guard let own = views[extent.name] ?? gone[extent.name] else { throw .noView(extent.name) }
            view = own
        }
        try extent.isInside(kernel.length(of: view.mapping))
        return view.mapping
    }

    /// The parts of files at guest-physical `range` of the test's VM, in order; nil if a page has no slot.
    package func places(of range: PageRange) -> [FilePart]? {
        FilePart.places(
            of: range, slots.lazy.filter { $0.key.vm == setup.main }.map { ($0.value.gpa, $0.value.extent) })
    }

    /// The pages around a step that failed, as in ``World/pages(around:)``.
    package func pages(around step: Step) -> [String] {
        guard let extent = step.action.extent else { return [] }
        return setup.regions.extents(extent).flatMap(pages).prefix(8).map { $0 }
    }

    private func pages(around extent: Extent) -> [String] {
        let name = views[extent.name]?.file ?? extent.name
        guard let descriptor = files[name] else { return [] }
        let file = kernel.file(of: descriptor)
        let (states, base) = (kernel.attributes(of: file), views[extent.name]?.offset ?? 0)
        return extent.pageOffsets(from: base, size: states.size).map { offset in
            let look: String
            if let view = views[name], view.file == name, offset >= view.offset,
                offset - view.offset < kernel.length(of: view.mapping)
            {
                switch kernel.visibleToHost(view.mapping, at: offset - view.offset) {
                case .byte(.garbled): look = "garbage"
                case .byte(let byte): look = hex(UInt64(byte.shown(at: offset)))
                default: look = "SIGBUS"
                }
            } else {
                look = "nothing (no view)"
            }
            let word = states.value(at: offset)?.rawValue ?? "unknown"
            return "page \(offset / pageSize) of \(name): \(word), the host reads \(look)"
        }
    }
}

extension Byte {
    /// The byte itself. For an undefined byte, a placeholder that differs between pages.
    package func shown(at offset: UInt64) -> UInt8 {
        switch self {
        case .known(let byte): byte
        case .unknown, .garbled:
            UInt8(truncatingIfNeeded: (offset / pageSize &+ 1) &* 0x9e37_79b9_7f4a_7c15 >> 56) | 1
        }
    }
}
