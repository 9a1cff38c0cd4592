// SPDX-License-Identifier: MIT
import Glibc
import Synchronization

/// Keeps vCPUs out of the kernel while memslots change, so that none ever sees one missing.
///
/// vCPUs are readers, ``enter(_:)`` to ``leave(_:)``; who changes memslots is the writer: it closes the gate,
/// kicks those inside and waits until all have left. A thread that is inside must not close the gate; a vCPU's
/// own thread between runs may.
///
/// A reader says that it is inside and then looks whether the gate is closed; the writer closes it and then looks
/// who is inside. All four are sequentially consistent, so that one of the two sees the other, and an open
/// gate costs a vCPU no lock.
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

    /// Makes a vCPU known, before it first enters.
    func add(_ vcpu: GatedVCPU) {
        withLock {
            vcpus.removeAll { $0.vcpu == nil }
            vcpus.append(WeakVCPU(vcpu: vcpu))
        }
    }

    /// Waits for the gate to be open and lets the vCPU in.
    ///
    /// - Returns: how many times the gate had been closed; no memslot changes before ``leave(_:)``.
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

    /// When it returns the gate does not kick the vCPU any more: a writer that has seen it inside kicks before it
    /// lets go of the lock.
    func leave(_ vcpu: GatedVCPU) {
        vcpu.isInside.store(false, ordering: .sequentiallyConsistent)
        guard isClosed.load(ordering: .sequentiallyConsistent) else { return }
        _ = withLock { unsafe pthread_cond_broadcast(changed) }
    }

    /// How many times the gate has been closed.
    var closings: UInt64 { generation.load(ordering: .sequentiallyConsistent) }

    /// Calls `body` while no vCPU is inside, and nobody else is in here.
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
            for reference in vcpus {
                guard let vcpu = reference.vcpu else { continue }
                if vcpu.isInside.load(ordering: .sequentiallyConsistent) { vcpu.kickForGate() }
            }
            // One after the other: who has left finds the gate closed.
            for reference in vcpus {
                guard let vcpu = reference.vcpu else { continue }
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
