import Glibc

/// Keeps vCPUs out of the kernel while memslots change, so that none ever sees one missing.
///
/// vCPUs are readers, ``enter(_:)`` to ``leave(_:)``; who changes memslots is the writer: it closes the gate,
/// kicks those inside and waits until all have left. A thread that is inside must not close the gate; a vCPU's
/// own thread between runs may.
@safe final class VCPUGate: @unchecked Sendable {
    // All four below the pointers are guarded by `mutex`.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    private var isClosed = false
    private var inside: [TrapVCPU] = []
    private var generation: UInt64 = 0

    init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe changed = .allocate(capacity: 1)
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(changed, nil)
    }

    deinit {
        unsafe pthread_cond_destroy(changed)
        unsafe pthread_mutex_destroy(mutex)
        unsafe changed.deallocate()
        unsafe mutex.deallocate()
    }

    /// Waits for the gate to be open and lets the vCPU in.
    ///
    /// - Returns: how many times the gate had been closed; no memslot changes before ``leave(_:)``.
    func enter(_ vcpu: TrapVCPU) -> UInt64 {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while isClosed { unsafe pthread_cond_wait(changed, mutex) }
        inside.append(vcpu)
        return generation
    }

    func leave(_ vcpu: TrapVCPU) {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        if let index = inside.firstIndex(where: { $0 === vcpu }) { inside.remove(at: index) }
        if isClosed && inside.isEmpty { unsafe pthread_cond_broadcast(changed) }
    }

    /// How many times the gate has been closed.
    var closings: UInt64 {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return generation
    }

    /// Calls `body` while no vCPU is inside, and nobody else is in here.
    func withClosed<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        close()
        defer { open() }
        return try body()
    }

    private func close() {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        while isClosed { unsafe pthread_cond_wait(changed, mutex) }
        isClosed = true
        generation &+= 1
        for vcpu in inside { vcpu.kickForGate() }
        while !inside.isEmpty { unsafe pthread_cond_wait(changed, mutex) }
    }

    private func open() {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        isClosed = false
        unsafe pthread_cond_broadcast(changed)
    }
}
