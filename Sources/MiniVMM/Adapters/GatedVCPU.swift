// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// A vCPU of the kernel below that stays out of it while memslots change.
///
/// ``run()`` on one thread at a time; kicks from any.
final class GatedVCPU: Sendable {
    let base: any KVMVCPU
    let gate: VCPUGate
    private let runPage: RunPage
    private let kicks = Mutex(Kicks())
    /// Whether ``kicks`` says anything at all, so that an undisturbed run need not take its lock. Changes under
    /// that lock only.
    private let isKicked = Atomic<Bool>(false)
    /// Between ``VCPUGate/enter(_:)`` and ``VCPUGate/leave(_:)``; the gate's own.
    let isInside = Atomic<Bool>(false)

    /// Who wants the vCPU out. `kvm_run.immediate_exit` is one flag for two kinds of kicks, so what it means is
    /// written down here, under one lock with the flag itself.
    private struct Kicks {
        /// ``kick()`` was called and the caller has not taken it back: `run()` has to end with `EINTR`.
        var byUser = false
        /// The gate closes: the vCPU has to leave the kernel, and comes back by itself.
        var byGate = false
        /// The gate's signal may come only after the vCPU had left, and interrupt the next entry.
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

    /// After ``VCPUGate/leave(_:)``: the gate does not kick any more.
    ///
    /// - Parameter interrupted: `KVM_RUN` gave `EINTR`.
    /// - Returns: whether that was the gate's doing alone.
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

    /// `KVM_RUN`, and again if nobody but the gate has interrupted it.
    ///
    /// - Returns: what the call threw, and how often the gate had been closed when the vCPU went in last.
    func run() -> (errno: Errno?, closings: UInt64) {
        // Between runs the flag is the user's alone; only the user takes it back, and tells nobody.
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
