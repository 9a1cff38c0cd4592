// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import Synchronization
import SystemPackage

/// The machine of a test while it runs.
///
/// The actors of a parallel block use threads of their own. The objects by name are guarded by the lock of ``state``.
/// No system call is made under it.
final class World: Sendable {
    struct View: Sendable {
        let mapping: any HostMapping
        let file: Name
        /// Offset in the file, bytes.
        let offset: UInt64
        /// Whether parts have different protections or policies, so that the kernel has several mappings.
        var isSplit = false
    }
    struct Slot: Sendable {
        let gpa: UInt64
        /// The part of the file that the slot is bound to.
        let extent: Extent
        /// The view that `userspace_addr` points into.
        let view: Name?
        /// Whether the slot's memory is that view, without a guest_memfd.
        let isPlain: Bool
    }
    struct State {
        var vms: ShortMap<VMName, any KVMVirtualMachine> = [:]
        var files: ShortMap<Name, any KVMGuestMemfd> = [:]
        var views: ShortMap<Name, View> = [:]
        /// Views that were unmapped or moved, with their addresses, which are never mapped again.
        var gone: ShortMap<Name, View> = [:]
        /// Files with a page whose memory has failed.
        var poisoned: Set<Name> = []
        var holds: ShortMap<Name, any PageHold> = [:]
        var slots: ShortMap<SlotKey, Slot> = [:]
        var children: ShortMap<Int, any Child> = [:]
        /// The agent; nil if no vCPU has acted.
        var agent: Agent?
        /// The states of a file's pages according to the answers so far. With racing actors this is the last answer,
        /// which may not be the last conversion.
        var states: ShortMap<Name, AttributeMap> = [:]
        /// Holds that could not be taken.
        var missed: Set<Name> = []
        /// Pages in the second-stage tables when a vCPU last made an access.
        var mappedPages: UInt64 = 0
        /// Records the run; nil if it is not recorded.
        var recording: Recording?
        /// The files, views and memslots at the beginning of the test.
        var first: TestMachine.Files?
        /// Memslots that the test has created, changed or deleted.
        var boundSlots: Set<SlotKey> = []
        /// Guest-physical pages at which an access exited with MMIO and that are initially guest memory.
        var mmioPages: [PageRange] = []
        var wear = Wear.undoable

        /// Whether the test has left the memslots alone.
        var hasFirstSlots: Bool { boundSlots.isEmpty && slots.count == first?.slots.count }
        /// Whether there are as many files, views and VMs as at the beginning.
        var hasNoNewObjects: Bool {
            files.count == first?.files.count && views.count == first?.views.count && gone.isEmpty
                && states.count <= files.count && vms.count == 1
        }
    }
    /// The parts of the machine that the next test can use.
    enum Wear: Comparable {
        /// All of it.
        case undoable
        /// The machine with new files and views: a descriptor was closed, or a view has another protection.
        case files
        /// Nothing.
        case machine
    }

    let backend: any Backend
    let facts: BackendFacts
    let deadline: TestDeadline
    let main: VMName
    let hasTwoAliases: Bool
    let memories: [Memory]
    /// The guest's memory as in the header.
    let regions: [Region]
    /// Measures time; nil costs nothing. Used by the thread that runs the test.
    let lap: Lap?
    /// Files that are used after they are closed, and views after they are unmapped or moved. Their numbers and
    /// addresses are reserved.
    let late: LateUses
    let ending: Set<Name>
    /// Whether the test counts the pages that leave the second-stage tables.
    let countsMappedPages: Bool
    /// Whether a vCPU enters again after `KVM_RUN` has failed for lack of memory.
    let entersAgainWithoutMemory: Bool
    let state = Mutex(State())
    /// - Parameters:
    ///   - trace: records the run.
    ///   - lap: measures time.
    ///   - entersAgainWithoutMemory: whether a vCPU enters again after `ENOMEM`.
    ///   - machine: what an earlier test has left; nil creates everything.
    init(
        _ facts: BackendFacts, _ test: LitmusTest, _ deadline: TestDeadline, trace: Trace? = nil,
        lap: Lap? = nil, entersAgainWithoutMemory: Bool = false, on machine: TestMachine? = nil
    ) throws(Stop) {
        backend = facts.backend
        self.facts = facts
        self.deadline = deadline
        self.lap = lap
        main = VMName(test.vm)
        hasTwoAliases = test.hasTwoAliases
        self.entersAgainWithoutMemory = entersAgainWithoutMemory
        memories = test.memory
        regions = test.memory.regions
        late = LateUses(test)
        ending = Set(test.steps.compactMap(\.action.endedView))
        countsMappedPages = test.steps.contains { $0.action == .zapped }
        if let trace { state.withLock { $0.recording = Recording(trace) } }
        do throws(Stop) {
            if let machine { adopt(machine, keepsFiles: !test.endsItsFiles) }
            if test.endsItsFiles { noteWear(.files) }
            if state.withLock({ $0.first == nil }) { try makeFiles() }
        } catch {
            close()
            throw error
        }
    }

    /// Creates the initial files of the test, their views and their memslots.
    func makeFiles() throws(Stop) {
        // The VM is created here, so that its creation is not measured as a part of the file's.
        if !memories.isEmpty { _ = try vm(nil) }
        try lap.measure(.files) { () throws(Stop) in
            for memory in memories {
                try make(memory)
                guard let slot = regions.firstIndex(where: { $0.name == memory.name }) else { continue }
                try bind(memory, slot: UInt32(slot), gpa: regions[slot].gpa.start)
            }
        }
        state.withLock { state in
            state.boundSlots = []
            state.first = TestMachine.Files(
                memories: memories, files: state.files, views: state.views, slots: state.slots)
        }
    }

    private func make(_ memory: Memory) throws(Stop) {
        let size = memory.pages * pageSize
        var flags = GuestMemfdFlags.mmap
        if memory.initial == .shared { flags.insert(.initShared) }
        let made = try create(NewFile(memory.name, size: size, flags: flags.rawValue))
        if let made {
            throw .absent(
                "\(memory): this kernel cannot create such a guest_memfd (KVM_CREATE_GUEST_MEMFD: \(made.name))",
                "KVM_CREATE_GUEST_MEMFD", made)
        }
        if let errno = try map(Extent(memory.name, offset: 0, size: size), memory.name) {
            throw .absent("\(memory): the host cannot map it (mmap: \(errno.name))", "mmap", errno)
        }
    }

    private func bind(_ memory: Memory, slot: UInt32, gpa: UInt64) throws(Stop) {
        let extent = Extent(memory.name, offset: 0, size: memory.pages * pageSize)
        if let errno = try bind(Binding(slot: slot, to: extent, gpa: gpa)) {
            throw .broken(
                "memslot \(slot) for \(memory): \(errno.name)", "KVM_SET_USER_MEMORY_REGION2", errno)
        }
    }

    func close() { lap.measure(.closing) { closeAll() } }

    /// In dependency order. On a real kernel the memslots are freed with their VM, because deleting one waits for all
    /// its possible users.
    private func closeAll() {
        let (agent, children, slots, holds) = state.withLock { state in
            defer {
                state.agent = nil
                state.children = [:]
                state.holds = [:]
            }
            return (state.agent, state.children, Array(state.slots.keys), Array(state.holds.values))
        }
        withExtendedLifetime(children) {}
        agent?.close(deletesSlot: facts.soft != nil)
        if facts.soft != nil {
            for slot in slots { _ = try? unbind(slot.number, on: slot.vm) }
        }
        for hold in holds { hold.release() }
        let rest = state.withLock { state in
            defer { state = State() }
            return state
        }
        withExtendedLifetime(rest) {}
    }

    // MARK: objects

    func vm(_ name: VMName?) throws(Stop) -> any KVMVirtualMachine {
        let name = name ?? main
        if let vm = state.withLock({ $0.vms[name] }) { return vm }
        do throws(Errno) {
            let vm = try lap.measure(.vm) { () throws(Errno) in
                try backend.createVM(name.type, sharedBit: name == main ? sharedBit() : nil)
            }
            // The other of two actors may have created it first.
            return state.withLock { state in
                let first = state.vms[name] ?? vm
                state.vms[name] = first
                return first
            }
        } catch {
            if name == main, hasTwoAliases {
                throw .absent(
                    "this kernel's VMs have one alias (KVM_CREATE_VM with a shared bit: \(error.name))",
                    "KVM_CREATE_VM", error)
            }
            throw .absent(
                "this kernel has no \(name.type.word) VM (KVM_CREATE_VM: \(error.name))", "KVM_CREATE_VM",
                error)
        }
    }

    /// The shared bit of a VM with two aliases: the highest that an identity mapping can reach.
    private func sharedBit() throws(Errno) -> Int? {
        hasTwoAliases ? min(46, try facts.supportedCPUID().physicalAddressBits - 1) : nil
    }

    func file(_ name: Name) throws(Stop) -> any KVMGuestMemfd {
        guard let file = state.withLock({ $0.files[name] }) else {
            throw .noFile(name)
        }
        return file
    }

    /// The mapping of a view, including one that is gone. All of `extent` is inside: no test may touch other memory of
    /// this process.
    func mapping(_ extent: Extent) throws(Stop) -> any HostMapping {
        guard let view = state.withLock({ $0.views[extent.name] ?? $0.gone[extent.name] }) else {
            throw .noView(extent.name)
        }
        try extent.isInside(view.mapping.length)
        return view.mapping
    }

    func guest() throws(Stop) -> Agent {
        if let agent = state.withLock({ $0.agent }) { return agent }
        let vm = try vm(nil)
        let bit: Int?
        do throws(Errno) { bit = try sharedBit() } catch {
            throw .broken("KVM_GET_SUPPORTED_CPUID: \(error.name)", "KVM_GET_SUPPORTED_CPUID", error)
        }
        let agent = try lap.measure(.vcpu) { () throws(Stop) in
            try Agent(
                on: vm, sharedBit: bit, facts, deadline, entersAgainWithoutMemory: entersAgainWithoutMemory)
        }
        state.withLock { $0.agent = agent }
        return agent
    }

    /// The parts of files at guest-physical `range` of the test's VM, in order; nil if a page has no slot.
    func places(of range: PageRange) -> [FilePart]? {
        FilePart.places(of: range, state.withLock { $0.names(of: main).slots })
    }

    // MARK: contents

    /// The pages of the step's file: those that it names with one neighbour on each side, at most eight.
    func pages(around step: Step) -> [String] {
        guard let extent = step.action.extent else { return [] }
        return regions.extents(extent).flatMap(pages).prefix(8).map { $0 }
    }

    private func pages(around extent: Extent) -> [String] {
        let state = state.withLock { $0 }
        let name = state.views[extent.name]?.file ?? extent.name
        guard let states = state.states[name] else { return [] }
        let base = state.views[extent.name]?.offset ?? 0
        return extent.pageOffsets(from: base, size: states.size).map { offset in
            let word = states.value(at: offset)?.rawValue ?? "unknown"
            let seen = look(name, offset, state.views[name])
            return "page \(offset / pageSize) of \(name): \(word), the host reads \(seen)"
        }
    }

    private func look(_ name: Name, _ offset: UInt64, _ view: View?) -> String {
        guard let view, view.file == name, offset >= view.offset,
            offset - view.offset < view.mapping.length
        else { return "nothing (no view)" }
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

extension World.State {
    /// - Parameter vm: the VM whose memslots count.
    func names(of vm: VMName) -> NameMap {
        NameMap(
            views: views.mapValues { (file: $0.file, offset: $0.offset) },
            slots: slots.filter { $0.key.vm == vm }.map { ($0.value.gpa, $0.value.extent) })
    }
}
