// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

@testable import MiniVMM

/// A guest_memfd in memory: it stores only the bytes of touched pages, so a terabyte costs nothing.
///
/// It converts as the ABI says, all or nothing, unless a test has set up a failure.
final class FakeFile: KVMGuestMemfd {
    /// One `KVM_SET_MEMORY_ATTRIBUTES2` call, as received.
    struct Call: Equatable, CustomStringConvertible {
        let offset: UInt64
        let size: UInt64
        let target: PageState
        var description: String { "\(offset / pageSize)+\(size / pageSize) \(target.rawValue)" }
    }
    /// A failure for the next `times` calls that contain `offset`.
    struct Trouble {
        let offset: UInt64
        var times: Int
        var errno = Errno.resourceTemporarilyUnavailable
        /// The value for `error_offset`; nil for the true one.
        var claims: UInt64?
        /// Only for calls to this state.
        var target: PageState?
    }
    struct State {
        var truth: AttributeMap
        var pages: [UInt64: [UInt8]] = [:]
        var calls: [Call] = []
        var holes: [PageRange] = []
        var troubles: [Trouble] = []
        var held: [UInt64: Int] = [:]
        /// The errno of the next `fallocate` and of the next writes through a mapping.
        var holeFailure: Errno?
        var writeFailure: Errno?
        /// Called in each conversion, with the file locked.
        var onCall: (@Sendable (Call) -> Void)?
    }
    let size: UInt64
    let descriptor: Int32
    let state: Mutex<State>

    init(size: UInt64, initial: PageState, descriptor: Int32) {
        self.size = size
        self.descriptor = descriptor
        state = Mutex(State(truth: AttributeMap(size: size, initial: initial)))
    }

    var calls: [Call] { state.withLock { $0.calls } }
    var holes: [PageRange] { state.withLock { $0.holes } }
    var truth: AttributeMap { state.withLock { $0.truth } }
    func forget() {
        state.withLock {
            $0.calls = []
            $0.holes = []
        }
    }

    /// The next `times` calls that contain page number `page` fail with `errno`.
    func trouble(
        page: UInt64, times: Int, _ errno: Errno = .resourceTemporarilyUnavailable, claims: UInt64? = nil,
        target: PageState? = nil
    ) {
        state.withLock {
            $0.troubles.append(
                Trouble(offset: page * pageSize, times: times, errno: errno, claims: claims, target: target))
        }
    }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let target: PageState = request.attributes & CKVM_MEMORY_ATTRIBUTE_PRIVATE != 0 ? .private : .shared
        guard let range = PageRange(start: request.offset, size: request.size), range.end <= size,
            request.flags == 0
        else { throw .invalidArgument }
        let refusal: (Errno, UInt64?)? = state.withLock { state in
            let call = Call(offset: range.start, size: range.size, target: target)
            state.calls.append(call)
            state.onCall?(call)
            // The kernel would report the lowest failing page.
            let met = state.troubles.indices.filter { index in
                let trouble = state.troubles[index]
                return trouble.times > 0 && range.contains(trouble.offset)
                    && (trouble.target ?? target) == target
            }.min { state.troubles[$0].offset < state.troubles[$1].offset }
            if let met {
                state.troubles[met].times -= 1
                return (state.troubles[met].errno, state.troubles[met].claims ?? state.troubles[met].offset)
            }
            if target == .private, let busy = state.held.keys.filter({ range.contains($0) }).min() {
                return (.resourceTemporarilyUnavailable, busy)
            }
            state.truth.set(range, to: target)
            return nil
        }
        guard let (errno, offset) = refusal else { return }
        if let offset { request.error_offset = offset }
        throw errno
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping { FakeMapping(file: self) }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        guard punchHole, let range = PageRange(start: offset, size: length) else { throw .invalidArgument }
        let failure: Errno? = state.withLock { state in
            if let failure = state.holeFailure { return failure }
            state.holes.append(range)
            for page in state.pages.keys where range.contains(page) { state.pages[page] = nil }
            return nil
        }
        if let failure { throw failure }
    }

    /// A byte as the guest reads it.
    func byte(_ offset: UInt64) -> UInt8 {
        state.withLock { $0.pages[offset & ~(pageSize - 1)]?[Int(offset % pageSize)] ?? 0 }
    }

    /// Fills pages as the guest would, whatever their state.
    func fill(_ range: PageRange, with byte: UInt8) {
        state.withLock { state in
            for piece in range.chunks(of: pageSize) {
                state.pages[piece.start] = [UInt8](repeating: byte, count: Int(pageSize))
            }
        }
    }
}

/// The host mapping of a ``FakeFile``: private pages are `EFAULT`.
final class FakeMapping: HostMapping {
    private let file: FakeFile
    let address: UInt64 = 0x7f00_0000_0000
    var length: UInt64 { file.size }

    init(file: FakeFile) { self.file = file }

    private func move(
        _ offset: UInt64, _ count: Int, _ body: (inout FakeFile.State, UInt64, Int, Int) -> Void
    )
        throws(Errno) -> Int
    {
        let done = file.state.withLock { state in
            var done = 0
            while done < count {
                let here = offset + UInt64(done)
                guard state.truth.value(at: here) == .shared else { break }
                let inPage = Int(here % pageSize)
                let piece = min(count - done, Int(pageSize) - inPage)
                body(&state, here - UInt64(inPage), inPage, piece)
                done += piece
            }
            return done
        }
        guard done > 0 || count == 0 else { throw .badAddress }
        return done
    }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        var bytes: [UInt8] = []
        let done = try move(offset, buffer.count) { state, page, start, count in
            let content = state.pages[page] ?? [UInt8](repeating: 0, count: Int(pageSize))
            bytes += content[start..<start + count]
        }
        unsafe buffer.copyBytes(from: bytes)
        return done
    }

    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        if let failure = file.state.withLock({ $0.writeFailure }) { throw failure }
        let bytes = unsafe Array(buffer)
        var done = 0
        return try move(offset, bytes.count) { state, page, start, count in
            var content = state.pages[page] ?? [UInt8](repeating: 0, count: Int(pageSize))
            content.replaceSubrange(start..<start + count, with: bytes[done..<done + count])
            state.pages[page] = content
            done += count
        }
    }

    func advise(at offset: UInt64, length: UInt64, _ advice: Advice) throws(Errno) { throw .invalidArgument }

    func hold(at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        guard let range = PageRange(start: offset, size: length) else { throw .invalidArgument }
        guard range.pageCount <= 16 else { throw .resourceTemporarilyUnavailable }
        guard file.truth.uniformValue(of: range) == .shared else { throw .badAddress }
        return FakeHold(file: file, range: range)
    }
}

final class FakeHold: PageHold {
    private let file: FakeFile
    private let range: Mutex<PageRange?>

    init(file: FakeFile, range: PageRange) {
        self.file = file
        self.range = Mutex(range)
        for page in range.chunks(of: pageSize) {
            file.state.withLock { $0.held[page.start, default: 0] += 1 }
        }
    }

    func release() {
        let range = range.withLock { range in
            defer { range = nil }
            return range
        }
        guard let range else { return }
        file.state.withLock { state in
            for page in range.chunks(of: pageSize) {
                let left = (state.held[page.start] ?? 1) - 1
                state.held[page.start] = left > 0 ? left : nil
            }
        }
    }
}
