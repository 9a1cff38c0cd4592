// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// One guest_memfd, its guest-physical range and its host mapping.
public final class MemoryRegion: Sendable {
    /// Guest-physical range, without the shared bit.
    public let gpa: PageRange
    /// As large as ``gpa``. Its first byte is at `gpa.start`.
    public let file: any KVMGuestMemfd
    /// A mapping of the whole file, for the lifetime of the region.
    public let mapping: any HostMapping

    /// `file` and `mapping` must both have `gpa.size` bytes; this is not checked.
    public init(gpa: PageRange, file: any KVMGuestMemfd, mapping: any HostMapping) {
        self.gpa = gpa
        self.file = file
        self.mapping = mapping
    }
}

/// The RAM of a guest: its regions, and the state of each page according to the monitor.
///
/// No system call reads attributes back, so the monitor keeps a shadow map. It changes only inside
/// `changingStates(_:)`, under the same lock as the ioctl before it. The regions never change.
public final class GuestMemory: Sendable {
    /// In ascending order and without gaps from guest-physical 0.
    public let regions: [MemoryRegion]
    /// Bytes.
    public let size: UInt64
    private let states: Mutex<AttributeMap>

    /// - Parameters:
    ///   - regions: in ascending order and contiguous from 0.
    ///   - initial: the state in which the files were created.
    public convenience init(regions: [MemoryRegion], initial: PageState) {
        let size = regions.last?.gpa.end ?? 0
        self.init(regions: regions, attributes: AttributeMap(size: size, initial: initial))
    }

    /// - Parameter attributes: the state of every page; as large as the regions.
    public init(regions: [MemoryRegion], attributes: AttributeMap) {
        self.regions = regions
        size = regions.last?.gpa.end ?? 0
        states = Mutex(attributes)
    }

    /// The state of the page at a guest-physical address, or nil outside RAM.
    public func state(at gpa: UInt64) -> PageState? { states.withLock { $0.value(at: gpa) } }

    /// The state of a whole range, or nil if it is mixed or extends past RAM.
    public func uniformState(of range: PageRange) -> PageState? {
        states.withLock { $0.uniformValue(of: range) }
    }

    /// A copy of the shadow map.
    public var attributes: AttributeMap { states.withLock { $0 } }

    /// Runs `body` with the shadow map, under its lock. `body` may call the kernel but must not wait.
    func changingStates<R>(_ body: (inout AttributeMap) -> R) -> R {
        // Mutex's closure gets a `sending` inout; the map is a value and does not escape.
        states.withLock { body(&$0) }
    }

    /// The parts of `range` by region, in order. Parts outside RAM are omitted.
    public func parts(of range: PageRange) -> some Sequence<(region: MemoryRegion, gpa: PageRange)> {
        regions.lazy.compactMap { region in region.gpa.intersection(range).map { (region, $0) } }
    }

    // MARK: host accesses

    /// Reads guest memory through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` with the first byte that the host cannot access: a private page, or one
    ///   outside RAM. The bytes before it are in `buffer`.
    public func read(gpa: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(HostAccessError) {
        try access(gpa, buffer.count, .read) { region, offset, done, count throws(Errno) in
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
            return try unsafe region.mapping.read(at: offset, into: part)
        }
    }

    /// Writes guest memory through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` with the first byte that the host cannot access: a private page, or
    ///   one outside RAM. The bytes before it are written.
    public func write(gpa: UInt64, from buffer: UnsafeRawBufferPointer) throws(HostAccessError) {
        try access(gpa, buffer.count, .write) { region, offset, done, count throws(Errno) in
            let part = unsafe UnsafeRawBufferPointer(rebasing: buffer[done..<done + count])
            return try unsafe region.mapping.write(at: offset, from: part)
        }
    }

    /// Reads bytes through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` if one of the bytes is in a private page or outside RAM.
    public func read(gpa: UInt64, count: Int) throws(HostAccessError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: HostAccessError?
        unsafe bytes.withUnsafeMutableBytes { buffer in
            do throws(HostAccessError) { try unsafe read(gpa: gpa, into: buffer) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Writes bytes through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` with the first byte that is in a private page or outside RAM. The
    ///   bytes before it are written.
    public func write(gpa: UInt64, _ bytes: [UInt8]) throws(HostAccessError) {
        var failure: HostAccessError?
        unsafe bytes.withUnsafeBytes { buffer in
            do throws(HostAccessError) { try unsafe write(gpa: gpa, from: buffer) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Reads a little-endian 64-bit word through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` if one of its 8 bytes is in a private page or outside RAM.
    public func readWord(gpa: UInt64) throws(HostAccessError) -> UInt64 {
        try read(gpa: gpa, count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Writes a little-endian 64-bit word through the host mapping.
    ///
    /// - Throws: ``HostAccessError`` if one of its bytes is in a private page or outside RAM. The bytes before it
    ///   are written.
    public func writeWord(gpa: UInt64, _ word: UInt64) throws(HostAccessError) {
        try write(gpa: gpa, (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) })
    }

    private func access(
        _ gpa: UInt64, _ count: Int, _ direction: HostAccessError.Direction,
        _ move: (MemoryRegion, UInt64, Int, Int) throws(Errno) -> Int
    ) throws(HostAccessError) {
        var done = 0
        while done < count {
            let (here, overflow) = gpa.addingReportingOverflow(UInt64(done))
            guard !overflow, let region = regions.first(where: { $0.gpa.contains(here) }) else {
                throw HostAccessError(gpa: here, direction: direction, errno: .badAddress, state: nil)
            }
            let piece = Int(min(UInt64(count - done), region.gpa.end - here))
            let moved: Int
            do {
                moved = try move(region, here - region.gpa.start, done, piece)
            } catch {
                throw HostAccessError(gpa: here, direction: direction, errno: error, state: state(at: here))
            }
            // A short copy stopped at a page; the next round starts with it and gets its errno.
            guard moved > 0 else {
                throw HostAccessError(
                    gpa: here, direction: direction, errno: .ioError, state: state(at: here))
            }
            done += moved
        }
    }
}

/// A host access to guest memory that the host cannot access.
public struct HostAccessError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The direction of the access.
    public enum Direction: String, Sendable {
        /// From guest memory: `process_vm_readv`.
        case read
        /// Into guest memory: `process_vm_writev`.
        case write
    }
    /// The first byte that could not be accessed.
    public let gpa: UInt64
    /// Whether the host tried to read or to write.
    public let direction: Direction
    /// `EFAULT` for a page that is private or outside RAM.
    public let errno: Errno
    /// The state of the page according to the monitor; nil outside RAM.
    public let state: PageState?

    /// One line: the access, its address, the errno, and why.
    public var description: String {
        let place = "host \(direction.rawValue) at 0x\(String(gpa, radix: 16)): \(errno)"
        return switch state {
        case .private?: place + ": the page is private; it must be converted to shared first"
        case .shared?: place + ": the page is shared; it was private briefly, or its memory failed"
        case nil: place + ": the guest has no RAM there"
        }
    }
}
