// SPDX-License-Identifier: MIT
import Glibc
import Synchronization

/// Keeps vCPUs out of the kernel while memslots change, so that none ever finds one missing.
///
/// vCPUs are readers, from ``enter(_:)`` to ``leave(_:)``. The thread that changes memslots is the writer: it closes
/// the gate, kicks the vCPUs inside and waits until all have left. A thread that is inside must not close the gate; a
/// vCPU's own thread may close it between runs.
///
/// A reader marks itself as inside and then checks whether the gate is closed; the writer closes the gate and then
/// checks which vCPUs are inside. All four operations are sequentially consistent, so that one of the two sees the
/// other, and an open gate costs a vCPU no lock.
@safe final class VCPUGate: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>
    /// Changes under `mutex` only.
    private let isClosed = Atomic<Bool>(false)
    /// How many times the gate has been closed. Changes under `mutex` only.
    private let generation = Atomic<UInt64>(0)
    /// Guarded by `mutex`.
    private var vcpus: [WeakVCPU] = []

    private struct WeakVCPU {
        weak var vcpu: GatedVCPU?
    }

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

    private func withLock<R>(_ body: () -> R) -> R {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Registers a vCPU. Call this before the vCPU first enters.
    func add(_ vcpu: GatedVCPU) {
        withLock {
            vcpus.removeAll { $0.vcpu == nil }
            vcpus.append(WeakVCPU(vcpu: vcpu))
        }
    }

    /// Waits until the gate is open and lets the vCPU in.
    ///
    /// - Returns: how many times the gate had been closed. No memslot changes before ``leave(_:)``.
    func enter(_ vcpu: GatedVCPU) -> UInt64 {
        while true {
            vcpu.isInside.store(true, ordering: .sequentiallyConsistent)
            if !isClosed.load(ordering: .sequentiallyConsistent) {
                return generation.load(ordering: .acquiring)
            }
            leave(vcpu)
            withLock {
                while isClosed.load(ordering: .relaxed) { unsafe pthread_cond_wait(changed, mutex) }
            }
        }
    }

    /// After it returns, the gate does not kick the vCPU: a writer that has seen it inside kicks before it
    /// releases the lock.
    func leave(_ vcpu: GatedVCPU) {
        vcpu.isInside.store(false, ordering: .sequentiallyConsistent)
        guard isClosed.load(ordering: .sequentiallyConsistent) else { return }
        _ = withLock { unsafe pthread_cond_broadcast(changed) }
    }

    /// How many times the gate has been closed.
    var closings: UInt64 { generation.load(ordering: .sequentiallyConsistent) }

    /// Calls `body` while no vCPU and no other writer is inside.
    func withClosed<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        close()
        defer { open() }
        return try body()
    }

    private func close() {
        withLock {
            while isClosed.load(ordering: .relaxed) { unsafe pthread_cond_wait(changed, mutex) }
            isClosed.store(true, ordering: .sequentiallyConsistent)
            generation.add(1, ordering: .sequentiallyConsistent)
            // By index, because a copy of a weak reference costs more than the check.
            for index in vcpus.indices {
                guard let vcpu = vcpus[index].vcpu else { continue }
                if vcpu.isInside.load(ordering: .sequentiallyConsistent) { vcpu.kickForGate() }
            }
            // One by one: a vCPU that has left finds the gate closed and cannot come back.
            for index in vcpus.indices {
                guard let vcpu = vcpus[index].vcpu else { continue }
                while vcpu.isInside.load(ordering: .sequentiallyConsistent) {
                    unsafe pthread_cond_wait(changed, mutex)
                }
            }
        }
    }

    private func open() {
        withLock {
            isClosed.store(false, ordering: .sequentiallyConsistent)
            _ = unsafe pthread_cond_broadcast(changed)
        }
    }
}
