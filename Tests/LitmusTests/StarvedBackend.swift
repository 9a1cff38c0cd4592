// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import Synchronization
import SystemPackage

@testable import Litmus

/// A kernel that allocates memory in some calls, and what it does wrong when that fails.
final class StarvedBackend: ForwardingBackend, @unchecked Sendable {
    enum Fault: CaseIterable {
        /// Nothing: it returns `ENOMEM` and has done nothing.
        case none
        /// It converts all the same.
        case converts
        /// It names the page after the first.
        case namesWrongPage
        /// It returns `EINVAL`.
        case wrongErrno
        /// It keeps a reference on the first page.
        case keepsReference
        /// It leaves a descriptor open.
        case keepsDescriptor
        /// It loses a byte of the file.
        case losesByte
    }
    let fault: Fault
    let failures = CountedFailures()

    init(_ base: any Backend, _ fault: Fault = .none) {
        self.fault = fault
        super.init(base)
    }

    override func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        StarvedVM(try base.createVM(type, sharedBit: sharedBit), self)
    }
}

/// Counts the allocations of ``StarvedBackend``.
final class CountedFailures: AllocationFailing {
    private let state = Mutex<(left: Int, failed: Injection?)>((0, nil))
    /// How often ``prepare()`` was called without ``restore()``.
    let prepared = Atomic<Int>(0)

    func prepare() throws(FailureAbsence) { prepared.add(1, ordering: .relaxed) }
    func restore() { prepared.subtract(1, ordering: .relaxed) }

    /// Descriptors that a fault has left open.
    let opened = Atomic<Int>(0)
    func lowestDescriptor() -> Int32 { Int32(opened.load(ordering: .relaxed)) }

    func failing<R>(_ nth: Int, _ body: () -> R) -> (R, Injection) {
        state.withLock { $0 = (nth, nil) }
        let result = body()
        let injection = state.withLock { state in
            defer { state = (0, nil) }
            return state.failed ?? Injection.unused(made: nth - state.left)
        }
        return (result, injection)
    }

    /// An allocation in a call. Returns whether it fails; the call then returns `result`.
    func allocate(_ call: AllocatingCall, result: Errno?) -> Bool {
        state.withLock { state in
            guard state.left > 0 else { return false }
            state.left -= 1
            if state.left == 0 {
                state.failed = .failed(call: call.rawValue, result: -Int(result?.rawValue ?? 0))
            }
            return state.left == 0
        }
    }
}

private final class StarvedVM: ForwardingVM, @unchecked Sendable {
    private let backend: StarvedBackend

    init(_ base: any KVMVirtualMachine, _ backend: StarvedBackend) {
        self.backend = backend
        super.init(base)
    }

    /// Two allocations.
    override func createGuestMemfd(
        size: UInt64, flags: GuestMemfdFlags
    ) throws(Errno) -> any KVMGuestMemfd {
        for _ in 0..<2 where backend.failures.allocate(.createFile, result: .noMemory) {
            if backend.fault == .keepsDescriptor { backend.failures.opened.add(1, ordering: .relaxed) }
            throw .noMemory
        }
        return StarvedFile(try base.createGuestMemfd(size: size, flags: flags), backend)
    }

    /// An allocation whose failure does not matter.
    override func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        _ = backend.failures.allocate(.setMemoryRegion, result: nil)
        try super.setUserMemoryRegion2(region)
    }
}

private final class StarvedFile: KVMGuestMemfd {
    private let base: any KVMGuestMemfd
    private let backend: StarvedBackend
    /// The references that a fault has kept.
    private let kept = Mutex<[any PageHold]>([])

    init(_ base: any KVMGuestMemfd, _ backend: StarvedBackend) {
        self.base = base
        self.backend = backend
    }

    var descriptor: Int32 { base.descriptor }
    var size: UInt64 { base.size }

    /// One allocation.
    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        let errno: Errno = backend.fault == .wrongErrno ? .invalidArgument : .noMemory
        guard backend.failures.allocate(.convert, result: errno) else {
            return try base.setMemoryAttributes2(&request)
        }
        switch backend.fault {
        case .converts:
            var copy = request
            try base.setMemoryAttributes2(&copy)
        case .keepsReference:
            // A private page cannot be held.
            let view = try base.map(offset: 0, length: pageSize)
            if let hold = try? view.hold(at: 0, length: pageSize) { kept.withLock { $0.append(hold) } }
        case .losesByte:
            let view = try base.map(offset: 0, length: pageSize)
            var zero: UInt8 = 0
            _ = unsafe try withUnsafeBytes(of: &zero) { bytes throws(Errno) in
                unsafe try view.write(at: 0, from: bytes)
            }
        case .none, .namesWrongPage, .wrongErrno, .keepsDescriptor: break
        }
        if errno == .noMemory {
            request.error_offset = request.offset + (backend.fault == .namesWrongPage ? pageSize : 0)
        }
        throw errno
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try base.map(offset: offset, length: length)
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try base.allocate(punchHole: punchHole, offset: offset, length: length)
    }
}
