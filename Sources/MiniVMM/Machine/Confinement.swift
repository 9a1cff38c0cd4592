// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// What a monitor gives up before it runs a guest that may be hostile.
public enum Confinement {
    /// Installs a seccomp filter in all threads of this process, for good, and sets `PR_SET_NO_NEW_PRIVS`. What stays are the
    /// system calls of a monitor: `/dev/kvm`, files, memory, threads, children, time. Executing a program, sockets, other
    /// processes' memory, mounts, identities, modules, BPF and keys are `EPERM` from then on.
    ///
    /// The library never calls it by itself: the process may have other things to do.
    ///
    /// - Throws: `EINVAL` on a kernel without seccomp; `EBUSY` if a thread has a filter that the others do not have.
    public static func enter() throws(Errno) {
        try value(ckvm_confine())
    }
}
