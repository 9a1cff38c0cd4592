// SPDX-License-Identifier: MIT
import ConversionModel

// Steps of the host and its children, performed as a whole.
extension ModelMachine {
    /// Performs a whole step.
    ///
    /// - Parameter placeWithoutMemory: a guest-physical page whose conversion for a memory fault fails for lack of
    ///   memory.
    package mutating func perform(
        _ step: Step, placeWithoutMemory: UInt64? = nil
    ) throws(Stop) -> Observation {
        let each = try step.performEach { call throws(Stop) in
            var seen = try perform(call, placeWithoutMemory: placeWithoutMemory)
            // Only the answers to a single access depend on the conversions.
            seen.conversions = []
            return seen
        }
        if let each { return each }
        if case .vcpu(let number) = step.actor { return try guestStep(step, number, placeWithoutMemory) }
        switch step.action {
        case .read, .write, .fill, .check: return try access(step)
        case .peek(let place):
            let mapping = try mapping(Extent(place.name, offset: place.offset, size: 1))
            let count = try? kernel.touch(mapping, place.offset, 1)
            return count == 1
                ? read(mapping, place.offset) : Observation(.errno(ErrorNumber.ioError.rawValue))
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
            let answer = setup.rules.checkExtension(Capability(rawValue: number), on: kernel.type(of: vm))
            return Observation(count: UInt64(max(0, answer)))
        case .syscall(let name, let call):
            let file = try file(name)
            return answer { kernel throws(ErrorNumber) in try kernel.attempt(file, call) }
        case .confidential(let action): return try perform(action, step)
        case .hypercall, .again, .preFault, .clock, .every:
            throw .broken("\(step.actor) does not \(step.action)")
        }
    }

    // MARK: answers

    package func answer(_ error: ErrorNumber) -> Observation { Observation(.errno(error.rawValue)) }

    package func answer(_ errno: ErrorNumber?) -> Observation {
        Observation(errno.map { .errno($0.rawValue) } ?? .ok)
    }

    package mutating func answer(_ call: (inout KernelModel) throws(ErrorNumber) -> Void) -> Observation {
        do throws(ErrorNumber) {
            try call(&kernel)
            return Observation(.ok)
        } catch {
            return answer(error)
        }
    }

    /// Skips the test if the model runs out of memory, because a kernel would not.
    package func errno(_ error: ErrorNumber) throws(Stop) -> ErrorNumber {
        guard error != Rules.noBackingMemory else { throw .noBackingMemory }
        return error
    }

    // MARK: accesses of the host

    private func read(_ mapping: MappingID, _ offset: UInt64) -> Observation {
        let place = kernel.fileOffset(of: mapping) + offset
        return Observation(kernel.byte(kernel.file(of: mapping), at: place), at: place)
    }

    /// Accesses the bytes in their order through system calls.
    private mutating func access(_ step: Step) throws(Stop) -> Observation {
        guard let extent = step.action.extent else { return Observation(.ok) }
        let mapping = try mapping(extent, step.actor)
        let (file, base) = (kernel.file(of: mapping), kernel.fileOffset(of: mapping))
        let written = step.action.byteWritten
        let end = extent.offset + extent.size
        // The bytes that one system call copies.
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
}

extension Observation {
    /// A byte that was read at this offset of a file.
    package init(_ byte: Byte, at offset: UInt64) {
        self.init(byte == .garbled ? .garbage : .value(byte.shown(at: offset)))
        isAnyByte = byte == .unknown
    }
}

extension Action {
    /// The byte that the access writes; nil for a read.
    package var byteWritten: UInt8? {
        switch self {
        case .write(_, let byte), .fill(_, let byte): byte
        default: nil
        }
    }
}
