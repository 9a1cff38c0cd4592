import Glibc
import MiniVMM
import SoftKVM
import SystemPackage

// The steps of the host.
extension World {
    func perform(_ step: Step) throws(Stop) -> Observation {
        if case .vcpu(let number) = step.role { return try guest().perform(step.action, vcpu: number) }
        switch step.action {
        case .read(let place):
            let extent = Extent(place.name, offset: place.offset, size: 1)
            var value: UInt8 = 0
            let stop = try access(
                extent,
                .read { _, bytes in
                    value = bytes[0]
                    return nil
                })
            return stop.map { $0.withoutPlace } ?? Observation(.value(value))
        case .write(let place, let byte):
            let extent = Extent(place.name, offset: place.offset, size: 1)
            return try access(extent, .write(byte))?.withoutPlace ?? Observation(.ok)
        case .fill(let extent, let byte): return try access(extent, .write(byte)) ?? Observation(.ok)
        case .check(let extent, let byte):
            let stop = try access(
                extent,
                .read { offset, bytes in
                    bytes.firstIndex { $0 != byte }.map { Observation(.differs(at: offset + UInt64($0))) }
                })
            return stop ?? Observation(.ok)
        case .convert(let conversion):
            let seen = try convert(conversion)
            if seen.outcome == .errno(Errno.notSupportedOnSocket.rawValue), conversion.contents == .preserve,
                !step.expects(.notSupportedOnSocket)
            {
                throw .skip("contents cannot be preserved here")
            }
            return seen
        case .map(let extent, let view): return answer(try map(extent, view))
        case .unmap(let view):
            try unmap(view)
            return Observation(.ok)
        case .advise(let extent, let advice): return answer(try advise(extent, advice))
        case .allocate(let extent): return answer(try allocate(extent, punchHole: false))
        case .punch(let extent): return answer(try allocate(extent, punchHole: true))
        case .hold(let extent, let kind, let name):
            let errno = try hold(extent, kind, name)
            if let errno, Self.missing.contains(errno), !step.expects(errno) {
                throw .skip("holder \(kind.rawValue) cannot be had here (\(errno.name))")
            }
            return answer(errno)
        case .release(let name):
            try release(name)
            return Observation(.ok)
        case .create(let new): return answer(try create(new))
        case .close(let name):
            try close(name)
            return Observation(.ok)
        case .bind(let binding): return answer(try bind(binding))
        case .unbind(let slot, let vm): return answer(try unbind(slot, on: vm))
        case .hypercall, .fork: throw .skip("\(step.role) \(step.action) is not run yet")
        }
    }

    /// What opening a holder's device says where there is none, or none for this user.
    private static let missing: [Errno] = [
        .noSuchFileOrDirectory, .noFunction, .notPermitted, .permissionDenied, Errno(rawValue: ENODEV),
        Errno(rawValue: ENXIO),
    ]

    private func answer(_ errno: Errno?) -> Observation {
        Observation(errno.map { .errno($0.rawValue) } ?? .ok)
    }

    private func allocate(_ extent: Extent, punchHole: Bool) throws(Stop) -> Errno? {
        let file = try file(extent.name)
        do throws(Errno) {
            try file.allocate(punchHole: punchHole, offset: extent.offset, length: extent.size)
            return nil
        } catch {
            return error
        }
    }

    private func advise(_ extent: Extent, _ advice: Advice) throws(Stop) -> Errno? {
        let mapping = try mapping(extent)
        // Its mappings are the model's, and only their memory is this process's.
        if mapping is SoftHostMapping { throw .skip("SoftKVM has no model of madvise") }
        let start = unsafe UnsafeMutableRawPointer(bitPattern: UInt(mapping.address + extent.offset))
        guard unsafe madvise(start, Int(extent.size), advice.number) == 0 else {
            return Errno(rawValue: errno)
        }
        return nil
    }

    // MARK: accesses

    private enum Access {
        case write(UInt8)
        /// The first argument is the offset of the bytes; what comes back ends the access.
        case read((UInt64, [UInt8]) -> Observation?)
    }

    /// Byte by byte in effect, by system calls: one that the kernel refuses to make would be SIGBUS if it were made by
    /// an instruction.
    ///
    /// - Returns: what ended it early.
    private func access(_ extent: Extent, _ access: Access) throws(Stop) -> Observation? {
        let mapping = try mapping(extent)
        let end = extent.offset + extent.size
        let chunk = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Int(min(extent.size, 1 << 16)), alignment: 1)
        defer { unsafe chunk.deallocate() }
        var pattern: UInt8 = 0
        if case .write(let byte) = access { pattern = byte }
        unsafe chunk.initializeMemory(as: UInt8.self, repeating: pattern)
        var offset = extent.offset
        while offset < end {
            let wanted = Int(min(end - offset, UInt64(chunk.count)))
            var count = 0
            do throws(Errno) {
                let part = unsafe UnsafeMutableRawBufferPointer(rebasing: chunk[..<wanted])
                if case .read = access {
                    count = unsafe try mapping.read(at: offset, into: part)
                } else {
                    count = unsafe try mapping.write(at: offset, from: UnsafeRawBufferPointer(part))
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

extension Observation {
    /// For the access to one byte, whose place is known.
    fileprivate var withoutPlace: Observation {
        if case .sigbus = outcome { Observation(.sigbus()) } else { self }
    }
}

extension Step {
    fileprivate func expects(_ errno: Errno) -> Bool {
        guard case .anyOf(let outcomes) = expectation else { return false }
        return outcomes.contains(.errno(errno.rawValue))
    }
}
