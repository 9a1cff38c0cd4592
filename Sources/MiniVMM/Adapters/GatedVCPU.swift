// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A vCPU of the base backend that stays out of guest mode while memslots change.
///
/// Call ``run()`` from one thread at a time; kick from any thread.
final class GatedVCPU: Sendable {
    let base: any KVMVCPU
    let gate: VCPUGate
    private let runPage: RunPage
    private let kicks = Mutex(Kicks())
    /// Whether ``kicks`` is nonempty, so that an undisturbed run need not take its lock. Changes under
    /// that lock only.
    private let isKicked = Atomic<Bool>(false)
    /// True from ``VCPUGate/enter(_:)`` to ``VCPUGate/leave(_:)``. Only the gate writes it.
    let isInside = Atomic<Bool>(false)

    /// Why the vCPU has to exit. `kvm_run.immediate_exit` is one flag for two kinds of kicks, so its meaning
    /// is recorded here, under the same lock as the flag.
    private struct Kicks {
        /// ``kick()`` was called and the caller has not cleared the flag: `run()` has to end with `EINTR`.
        var byUser = false
        /// The gate is closing: the vCPU has to leave the kernel and re-enters by itself.
        var byGate = false
        /// The gate's signal may arrive only after the vCPU has left, and so interrupt the next entry.
        var signalMayBeLate = false

        var isEmpty: Bool { !byUser && !byGate && !signalMayBeLate }
    }

    init(_ base: any KVMVCPU, behind gate: VCPUGate) {
        self.base = base
        self.gate = gate
        runPage = base.runPage
        gate.add(self)
    }

    private func changeKicks<R>(_ body: (inout Kicks) -> R) -> R {
        kicks.withLock { kicks in
            defer { isKicked.store(!kicks.isEmpty, ordering: .sequentiallyConsistent) }
            return body(&kicks)
        }
    }

    func kick() {
        changeKicks {
            $0.byUser = true
            base.kick()
        }
    }

    /// Called with the gate's lock held, while the vCPU is inside.
    func kickForGate() {
        changeKicks {
            $0.byGate = true
            base.kick()
        }
    }

    /// Call after ``VCPUGate/leave(_:)``, when the gate no longer kicks.
    ///
    /// - Parameter interrupted: `KVM_RUN` returned `EINTR`.
    /// - Returns: whether the gate alone caused the interruption.
    private func settleKicks(interrupted: Bool) -> Bool {
        guard interrupted || isKicked.load(ordering: .sequentiallyConsistent) else { return false }
        return changeKicks { kicks in
            let isGates = kicks.byGate || interrupted && kicks.signalMayBeLate
            if kicks.byGate {
                if !kicks.byUser { runPage.clearImmediateExit() }
                kicks.signalMayBeLate = true
            } else if interrupted {
                kicks.signalMayBeLate = false
            }
            kicks.byGate = false
            return interrupted && isGates && !kicks.byUser
        }
    }

    /// `KVM_RUN`, repeated if only the gate has interrupted it.
    ///
    /// - Returns: what the call threw, and how often the gate had been closed at the last entry.
    func run() -> (errno: Errno?, closings: UInt64) {
        // Between runs only the user sets or clears the flag, without notice.
        if runPage.immediateExit || isKicked.load(ordering: .sequentiallyConsistent) {
            changeKicks { $0.byUser = runPage.immediateExit }
        }
        while true {
            let closings = gate.enter(self)
            var errno: Errno?
            do throws(Errno) { try base.run() } catch { errno = error }
            gate.leave(self)
            if !settleKicks(interrupted: errno == .interrupted) { return (errno, closings) }
        }
    }
}
