// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// Steps performed on a backend.
extension World {
    /// - Parameter isRacing: whether other actors act concurrently.
    func perform(_ step: Step, isRacing: Bool = false) throws(Stop) -> Observation {
        deadline.begin(step)
        defer { deadline.end(step) }
        if let seen = try performEach(step) { return seen }
        return try performOne(step, isRacing: isRacing)
    }

    /// A pattern; nil for any other step.
    private func performEach(_ step: Step) throws(Stop) -> Observation? {
        let isRecording = isRecording
        return try step.performEach { call throws(Stop) in
            if deadline.isOver {
                throw .broken(
                    "it was cancelled at page \(call.action.extent.map { written($0.offset) } ?? "")")
            }
            var seen = try performOne(call)
            if facts.isAdapter, case .errno(Errno.noMemory.rawValue, _) = seen.outcome,
                !step.expects(.noMemory)
            {
                throw .skip(
                    "\(backend.identity.name) needs a mapping for each run of equal state, and the host has no more "
                        + "(vm.max_map_count)")
            }
            // Only a picture needs the conversions, of which there may be a million.
            if !isRecording { seen.conversions = [] }
            return seen
        }
    }

    private func performOne(_ step: Step, isRacing: Bool = false) throws(Stop) -> Observation {
        if case .vcpu(let number) = step.actor { return try guestStep(step, number, isRacing) }
        switch step.action {
        case .read(let place):
            let extent = Extent(place.name, offset: place.offset, size: 1)
            var value: UInt8 = 0
            let stop = try access(
                extent, step.actor,
                .read { _, bytes in
                    value = bytes[0]
                    return nil
                })
            return stop.map { $0.withoutPlace } ?? Observation(.value(value))
        case .write(let place, let byte):
            let extent = Extent(place.name, offset: place.offset, size: 1)
            return try access(extent, step.actor, .write(byte))?.withoutPlace ?? Observation(.ok)
        case .fill(let extent, let byte):
            return try access(extent, step.actor, .write(byte)) ?? Observation(.ok)
        case .check(let extent, let byte):
            let stop = try access(
                extent, step.actor,
                .read { offset, bytes in
                    bytes.firstIndex { $0 != byte }.map { Observation(.differs(at: offset + UInt64($0))) }
                })
            return stop ?? Observation(.ok)
        case .convert(let conversion):
            return try step.answerOfConversion(convert(conversion))
        case .map(let extent, let view): return answer(try map(extent, view))
        case .unmap(let view): return answer(try unmap(view))
        case .remap(let view, let pages, let new): return answer(try remap(view, pages: pages, as: new))
        case .protect(let extent, let protection): return answer(try protect(extent, protection))
        case .mbind(let extent, let policy, let flags):
            return try answerOfMachine(step, try mbind(extent, policy, flags))
        case .migrate(let place, let node): return try answerOfMachine(step, try migrate(place, to: node))
        case .node(let place): return try node(step, place)
        case .advise(let extent, let advice):
            if advice == .hwPoison { try poison(extent) }
            let errno = try advise(extent, advice)
            return advice.isMemoryFailure ? try answerOfMachine(step, errno) : answer(errno)
        case .allocate(let extent): return answer(try allocate(extent, punchHole: false))
        case .punch(let extent): return answer(try allocate(extent, punchHole: true))
        case .hold(let extent, let kind, let name):
            let errno = try hold(extent, kind, name)
            if let errno, Self.missing.contains(errno), !step.expects(ErrorNumber(errno)) {
                throw .skip("holder \(kind.rawValue) is not available here (\(errno.name))")
            }
            return answer(errno)
        case .release(let name):
            try release(name)
            return Observation(.ok)
        case .create(let new): return answer(try create(new))
        case .close(let name): return answer(try close(name))
        case .dup(let name, let copy): return answer(try duplicate(name, as: copy))
        case .dirty(let slot, let vm): return try dirty(slot, on: vm)
        case .setAttributes(let extent, let attributes, let flags, let vm):
            return try setAttributes(step, extent, attributes, flags, on: vm)
        case .bind(let binding): return answer(try bind(binding))
        case .unbind(let slot, let vm): return answer(try unbind(slot, on: vm))
        case .fork(let number):
            try fork(number)
            return Observation(.ok)
        case .zapped: return try zapped()
        case .present(let extent): return try present(extent)
        case .extension(let number):
            let vm = try vm(nil)
            do throws(Errno) {
                return Observation(count: UInt64(try vm.checkExtension(Capability(rawValue: number))))
            } catch {
                return Observation(.errno(error.rawValue))
            }
        case .syscall(let name, let call):
            guard let file = try file(name) as? any ExaminableFile else { throw notExaminable() }
            do throws(Errno) {
                try file.attempt(call)
                noteWear(.files)
                return Observation(.ok)
            } catch {
                return Observation(.errno(error.rawValue))
            }
        case .peek(let place):
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: 1))
            guard let mapping = mapping as? any ExaminableMapping else { throw notExaminable() }
            do throws(Errno) {
                return Observation(.value(try mapping.peek(at: place.offset)))
            } catch {
                return Observation(.errno(error.rawValue))
            }
        case .confidential: throw .skip("\(step.action): only the model has SNP and TDX VMs")
        case .hypercall, .again, .preFault, .clock, .every:
            throw .broken("\(step.actor) does not \(step.action)")
        }
    }

    private func guestStep(_ step: Step, _ number: Int, _ isRacing: Bool) throws(Stop) -> Observation {
        let action = step.action
        // The VM is created here, so that its creation is not measured as a part of the step.
        if lap != nil { try lap.measure(.vcpu) { () throws(Stop) in try guest().prepare(number) } }
        if case .hypercall(let extent, let attributes) = action {
            return try guest().hypercall(extent, attributes, vcpu: number) { request throws(Stop) in
                try self.mapGPARange(request)
            }
        }
        defer {
            if countsMappedPages, let pages = try? (vm(nil) as? any SecondStageCounting)?.countPages4K() {
                state.withLock { $0.mappedPages = pages }
            }
        }
        switch action {
        case .again:
            let pending = try guest().pending(vcpu: number)
            let seen = try converting(pending) { onFault throws(Stop) in
                try guest().again(vcpu: number, onFault: onFault)
            }
            if seen.outcome == .mmio { noteWear(.machine) }
            return try pending.answerOfConversion(seen, of: step)
        case .preFault(let extent):
            let seen = try guest().preFault(extent, vcpu: number)
            // A call that did a part is a success. The page after that part may have no memslot.
            let range = PageRange.covering(start: extent.offset, size: extent.size)
            if seen.outcome != .ok || range.flatMap(places) == nil { noteMMIO(extent) }
            return seen
        case .clock(let place):
            // KVM writes the clock whenever the vCPU enters.
            noteWear(.machine)
            return try guest().setClock(at: place.offset, vcpu: number)
        default: break
        }
        guard let extent = action.extent else { throw .broken("a vCPU does not \(action)") }
        let seen = try converting(step) { onFault throws(Stop) in
            try guest().access(extent, step, vcpu: number, isRacing: isRacing, onFault: onFault)
        }
        if seen.outcome == .mmio { noteMMIO(extent) }
        return try step.answerOfConversion(seen)
    }

    /// Performs an access, and the conversions that its memory faults ask for.
    private func converting(
        _ step: Step, _ access: (Agent.FaultHandler?) throws(Stop) -> Observation
    ) throws(Stop) -> Observation {
        guard let onFault = step.onFault else { return try access(nil) }
        var conversions: [FileConversion] = []
        var oddity: String?
        var seen = try access { fault throws(Stop) in
            let (answer, seen) = try self.convert(for: fault, onFault)
            conversions += seen?.conversions ?? []
            oddity = oddity ?? seen?.oddity
            return answer
        }
        seen.conversions = conversions
        seen.oddity = seen.oddity ?? oddity
        return seen
    }

    /// After an MMIO exit KVM remembers in its second-stage tables that there is no memory, even if a memslot is
    /// created later, until an access finds a shared page. Until then an access to a private page is a memory fault
    /// that asks for a shared one.
    private func noteMMIO(_ extent: Extent) {
        guard facts.isLinux, !hasTwoAliases,
            let bytes = PageRange.covering(start: extent.offset, size: extent.size)
        else { return noteWear(.machine) }
        state.withLock { state in
            let isRAM = state.first?.slots.values.contains { slot in
                PageRange(start: slot.gpa, size: slot.extent.size)?.intersection(bytes) == bytes
            }
            if isRAM == true { state.mmioPages.append(bytes) } else { state.wear = .machine }
        }
    }

    private func notExaminable() -> Stop {
        .skip("\(backend.identity.name) is an adapter, whose files and vCPUs are not the kernel's")
    }

    private func zapped() throws(Stop) -> Observation {
        guard let vm = try vm(nil) as? any SecondStageCounting else {
            throw .skip("\(backend.identity.name) does not count the pages in a VM's tables")
        }
        do throws(Errno) {
            let (pages, before) = (try vm.countPages4K(), state.withLock { $0.mappedPages })
            return Observation(count: before - min(before, pages))
        } catch {
            throw .skip("the statistic pages_4k is not available here (KVM_GET_STATS_FD: \(error.name))")
        }
    }

    private func present(_ extent: Extent) throws(Stop) -> Observation {
        guard let mapping = try mapping(extent) as? any ResidencyCounting else {
            throw .skip("\(backend.identity.name) changes the page tables of the process itself")
        }
        do throws(Errno) {
            return Observation(count: try mapping.residentPages(at: extent.offset, length: extent.size))
        } catch {
            throw .skip(
                "the page tables of the process cannot be read here (/proc/self/pagemap: \(error.name))")
        }
    }

    /// The errno of opening a holder's device that does not exist, or is not accessible to this user.
    private static let missing: [Errno] = [
        .noSuchFileOrDirectory, .noFunction, .notPermitted, .permissionDenied, .operationNotSupportedByDevice,
        .noSuchAddressOrDevice,
    ]

    func answer(_ errno: Errno?) -> Observation {
        Observation(errno.map { .errno($0.rawValue) } ?? .ok)
    }

    private func allocate(_ extent: Extent, punchHole: Bool) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        do throws(Errno) {
            try file.allocate(punchHole: punchHole, offset: extent.offset, length: extent.size)
            return nil
        } catch {
            return try answer(error)
        }
    }

    private func advise(_ extent: Extent, _ advice: Advice) throws(Stop) -> Errno? {
        let mapping = try mapping(extent)
        switch advice {
        case .dontNeed, .remove, .populateRead, .populateWrite: break
        case .collapse: noteWear(.files)
        case .hwPoison, .softOffline: noteWear(.machine)
        }
        do throws(Errno) {
            try mapping.advise(at: extent.offset, length: extent.size, advice)
            return nil
        } catch {
            return error
        }
    }

    // MARK: accesses

    private enum Access {
        case write(UInt8)
        /// The first argument is the offset of the bytes. A result other than nil ends the access.
        case read((UInt64, [UInt8]) -> Observation?)
    }

    /// Accesses the bytes in their order through system calls. An access that the kernel refuses would be SIGBUS if an
    /// instruction made it.
    ///
    /// - Returns: the outcome that ended the access early.
    private func access(_ extent: Extent, _ actor: Actor, _ access: Access) throws(Stop) -> Observation? {
        var child: (any Child)?
        var mapping: (any HostMapping)?
        if case .child(let number) = actor {
            let process = try self.child(number)
            guard let length = process.length(of: extent.name) else {
                throw .noView(extent.name, of: actor)
            }
            try extent.isInside(length)
            child = process
        } else {
            mapping = try self.mapping(extent)
        }
        let end = extent.offset + extent.size
        let chunk = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Int(min(extent.size, 1 << 16)), alignment: 1)
        defer { unsafe chunk.deallocate() }
        var pattern: UInt8 = 0
        if case .write(let byte) = access { pattern = byte }
        unsafe chunk.initializeMemory(as: UInt8.self, repeating: pattern)
        var offset = extent.offset
        while offset < end {
            if deadline.isOver { throw .broken("it was cancelled at byte \(offset)") }
            let wanted = Int(min(end - offset, UInt64(chunk.count)))
            var count = 0
            do throws(Errno) {
                let part = unsafe UnsafeMutableRawBufferPointer(rebasing: chunk[..<wanted])
                let source = UnsafeRawBufferPointer(part)
                switch (access, child) {
                case (.read, let child?): count = unsafe try child.read(extent.name, at: offset, into: part)
                case (.write, let child?):
                    count = unsafe try child.write(extent.name, at: offset, from: source)
                case (.read, nil): count = unsafe try mapping?.read(at: offset, into: part) ?? 0
                case (.write, nil): count = unsafe try mapping?.write(at: offset, from: source) ?? 0
                }
            } catch {
                guard error == .badAddress else { return Observation(.errno(error.rawValue)) }
            }
            guard count > 0 else { return Observation(.sigbus(at: offset)) }
            if case .read(let look) = access {
                let bytes = unsafe [UInt8](UnsafeRawBufferPointer(rebasing: chunk[..<count]))
                if let stop = look(offset, bytes) { return stop }
            }
            offset += UInt64(count)
        }
        return nil
    }
}
