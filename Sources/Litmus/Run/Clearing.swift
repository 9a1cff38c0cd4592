// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

// Returns a machine to its initial state for the next test. Called between tests by the thread that runs them, when
// nothing else uses the machine.
extension World {
    func noteWear(_ wear: Wear) { state.withLock { $0.wear = max($0.wear, wear) } }

    /// Takes over the machine of an earlier test.
    ///
    /// - Parameter keepsFiles: false always creates new files and views.
    func adopt(_ machine: TestMachine, keepsFiles: Bool) {
        let isSame = keepsFiles && machine.files?.memories == memories
        state.withLock { state in
            state.vms[main] = machine.vm
            state.agent = machine.agent
            guard let files = machine.files else { return }
            state.files = files.files
            state.views = files.views
            state.slots = files.slots
            guard isSame else { return }
            state.first = files
            for memory in memories { state.states[memory.name] = memory.attributes }
        }
        if machine.files != nil, !isSame {
            lap.measure(.files) { if !dropFiles() { noteWear(.machine) } }
        }
    }

    /// The machine in its initial state, for the next test; nil if this test may have left something behind. Afterwards
    /// this ``World`` owns nothing, or must be closed.
    func cleared() -> TestMachine? {
        lap.measure(.clearing) {
            guard undo() != .machine else { return nil }
            return state.withLock { state in
                guard let vm = state.vms[main] else { return nil }
                defer { state = State() }
                return TestMachine(vm: vm, agent: state.agent, files: state.first)
            }
        }
    }

    /// Returns the machine to its initial state, for another run of the same test.
    ///
    /// - Parameter checks: whether the pages are checked to be as at the beginning. It takes longer than the rest, so a sweep
    ///   does it once in a while.
    /// - Returns: whether that succeeded.
    func reset(checks: Bool = true) -> Bool {
        switch undo(checks: checks) {
        case .undoable: return true
        case .files: return (try? makeFiles()) != nil
        case .machine: return false
        }
    }

    /// Reverts what the test has done, and checks that it is reverted.
    ///
    /// - Returns: what could not be reverted. Files that must be created again are closed.
    private func undo(checks: Bool = true) -> Wear {
        let (children, holds, agent, wear) = state.withLock { state in
            defer {
                state.children = [:]
                state.holds = [:]
                state.missed = []
                state.poisoned = []
                state.mappedPages = 0
            }
            return (state.children, state.holds, state.agent, state.wear)
        }
        // The child has exited when this returns.
        withExtendedLifetime(children) {}
        for hold in holds.values { hold.release() }
        guard wear != .machine, !deadline.isOver, agent?.rewind() != false else { return .machine }
        let hasFirstSlots = state.withLock { $0.hasFirstSlots }
        guard hasFirstSlots || undoSlots() else { return .machine }
        let isWhole = wear == .undoable && isSmall && dropNewObjects()
        if isWhole {
            guard hasFirstSlots || bindFirstSlots() else { return .machine }
        } else {
            guard dropFiles() else { return .machine }
        }
        guard isWhole ? forgetMMIO() : state.withLock({ $0.mmioPages.isEmpty }) else { return .machine }
        for memory in isWhole ? memories : [] {
            do throws(Errno) {
                guard try clear(memory, checks: checks) else { return .machine }
            } catch {
                return .machine
            }
            state.withLock { $0.setInitialStates(of: memory) }
        }
        guard !checks || mapsNothing() else { return .machine }
        return isWhole ? .undoable : .files
    }

    /// Reading this many bytes takes no noticeable time.
    private var isSmall: Bool {
        memories.allSatisfy { $0.pages <= Self.mostPages } && memories.count <= Int(Self.mostPages)
    }
    private static let mostPages: UInt64 = 16

    /// Deletes the memslots that the test created.
    private func undoSlots() -> Bool {
        let slots = state.withLock { state in
            state.slots.keys.filter { state.boundSlots.contains($0) || state.first?.slots[$0] == nil }
        }
        return slots.allSatisfy(delete)
    }

    private func delete(_ slot: SlotKey) -> Bool {
        do throws(Stop) { return try unbind(slot.number, on: slot.vm) == nil } catch { return false }
    }

    /// Closes the files that the test created. No memslot needs them any more.
    ///
    /// - Returns: whether all initial files and views still exist.
    private func dropNewObjects() -> Bool {
        let (gone, isWhole) = state.withLock { state in
            guard let first = state.first else { return (nil as State?, false) }
            // A file or view under the name of another one is found by its identity.
            let isWhole =
                first.files.isContained(in: state.files) { $0 === $1 }
                && first.views.isContained(in: state.views) { $0.mapping === $1.mapping }
            if isWhole, state.hasNoNewObjects { return (nil, true) }
            let old = state
            state.files = first.files
            state.views = first.views
            state.gone = [:]
            state.states = state.states.filter { first.files[$0.key] != nil }
            state.vms = state.vms.filter { $0.key == main }
            return (old, isWhole)
        }
        withExtendedLifetime(gone) {}
        return isWhole
    }

    /// Restores the memslots that the test changed or deleted.
    private func bindFirstSlots() -> Bool {
        let missing = state.withLock { state in
            defer { state.boundSlots = [] }
            return (state.first?.slots ?? [:]).filter { state.slots[$0.key] == nil }
        }
        for (key, slot) in missing {
            let binding = Binding(slot: key.number, to: slot.extent, gpa: slot.gpa)
            do throws(Stop) { if try bind(binding) != nil { return false } } catch { return false }
        }
        state.withLock { $0.boundSlots = [] }
        return true
    }

    /// Closes all files, with their memslots and views.
    ///
    /// - Returns: whether no memslot is left.
    private func dropFiles() -> Bool {
        guard state.withLock({ Array($0.slots.keys) }).allSatisfy(delete) else { return false }
        let gone = state.withLock { state in
            let old = state
            state.first = nil
            state.boundSlots = []
            state.wear = .undoable
            state.files = [:]
            state.views = [:]
            state.gone = [:]
            state.states = [:]
            state.vms = state.vms.filter { $0.key == main }
            return old
        }
        withExtendedLifetime(gone) {}
        return true
    }

    /// Makes a vCPU read every shared page at which an access exited with MMIO.
    ///
    /// - Returns: whether each read found memory.
    private func forgetMMIO() -> Bool {
        if state.withLock({ $0.mmioPages.isEmpty }) { return true }
        let (pages, files, agent) = state.withLock { state in
            defer { state.mmioPages = [] }
            return (state.mmioPages, state.files.values, state.agent)
        }
        do {
            for file in files { try file.convert(to: .shared) }
            for page in pages.flatMap({ Array($0.chunks(of: pageSize)) }) {
                let place = Place(.ram, offset: page.start)
                let extent = Extent(.ram, offset: page.start, size: 1)
                let seen = try agent?.access(
                    extent, Step(.vcpu(0), .read(place)), vcpu: 0, isRacing: false)
                guard case .value? = seen?.outcome else { return false }
            }
            return true
        } catch {
            return false
        }
    }

    /// Returns a file to its initial state: all pages in one state, and none allocated.
    ///
    /// - Returns: whether the host sees that state.
    private func clear(_ memory: Memory, checks: Bool) throws(Errno) -> Bool {
        let (file, view) = state.withLock { ($0.files[memory.name], $0.views[memory.name]) }
        guard let file, let view, view.mapping.length == file.size else { return false }
        // Shared first, so that the host can read every byte.
        do throws(Errno) {
            try file.convert(to: .shared)
        } catch {
            // A default VM of Linux has no private memory and no conversions.
            guard error == .invalidArgument, main == .default, memory.initial == .shared else { return false }
        }
        try file.allocate(punchHole: true, offset: 0, length: file.size)
        guard checks else {
            if memory.initial == .private { try file.convert(to: .private) }
            return true
        }
        guard try view.mapping.readsZero() else { return false }
        try file.allocate(punchHole: true, offset: 0, length: file.size)
        // Page tables could otherwise still map a page after it was made private.
        if let counter = view.mapping as? any ResidencyCounting,
            (try? counter.residentPages(at: 0, length: file.size)) ?? 0 > 0
        {
            return false
        }
        guard memory.initial == .private else { return true }
        try file.convert(to: .private)
        return try view.mapping.isOutOfReach()
    }

    /// Whether the VM's second-stage tables have only the agent's pages, as far as the kernel counts them.
    private func mapsNothing() -> Bool {
        let (vm, agent) = state.withLock { ($0.vms[main], $0.agent) }
        guard let agent, let counter = vm as? any SecondStageCounting else { return true }
        guard let pages = try? counter.countPages4K() else { return true }
        return withExtendedLifetime(agent) { pages <= AgentMemory.pages }
    }
}

extension World.State {
    fileprivate mutating func setInitialStates(of memory: Memory) {
        if let whole = PageRange(start: 0, size: memory.pages * pageSize),
            states[memory.name]?.size == whole.size
        {
            // All pages get one state, whatever they had.
            states.update(memory.name) { $0.set(whole, to: memory.initial) }
        } else {
            states[memory.name] = memory.attributes
        }
    }
}

extension Memory {
    /// The initial states of a file's pages.
    var attributes: AttributeMap { AttributeMap(size: pages * pageSize, initial: initial) }
}

extension KVMGuestMemfd {
    fileprivate func convert(to state: PageState) throws(Errno) {
        var request = ckvm_memory_attributes2()
        request.size = size
        request.attributes = Attributes.word(state)
        try convertInPlace(&request)
    }
}

extension HostMapping {
    /// Whether every byte can be read and is 0.
    fileprivate func readsZero() throws(Errno) -> Bool {
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Int(clamping: min(length, 1 << 20)), alignment: 8)
        defer { unsafe buffer.deallocate() }
        var offset: UInt64 = 0
        while offset < length {
            let wanted = Int(clamping: min(length - offset, UInt64(buffer.count)))
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
            guard try unsafe read(at: offset, into: part) == wanted else { return false }
            guard unsafe part.isZero else { return false }
            offset += UInt64(wanted)
        }
        return true
    }

    /// Whether the host can read none of the pages.
    fileprivate func isOutOfReach() throws(Errno) -> Bool {
        var byte: UInt8 = 0
        for offset in stride(from: 0, to: length, by: Int(pageSize)) {
            do throws(Errno) {
                let count = try unsafe withUnsafeMutableBytes(of: &byte) { bytes throws(Errno) in
                    unsafe try read(at: offset, into: bytes)
                }
                if count > 0 { return false }
            } catch {
                guard error == .badAddress else { throw error }
            }
        }
        return true
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Whether all bytes are 0: the first one is, and each equals the next.
    fileprivate var isZero: Bool {
        guard let start = baseAddress, count > 0 else { return true }
        return unsafe self[0] == 0 && memcmp(start, start + 1, count - 1) == 0
    }
}
