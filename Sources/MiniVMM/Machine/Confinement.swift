// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// Restricts the monitor's system calls before it runs a guest that may be hostile.
public enum Confinement {
    /// Installs a seccomp filter permanently in all threads of this process, and sets `PR_SET_NO_NEW_PRIVS`. Allowed
    /// are the system calls of a monitor: `/dev/kvm`, files, memory, threads, children, time. Executing a program,
    /// sockets, other processes' memory, mounts, identities, modules, BPF and keys fail with `EPERM`.
    ///
    /// The library never calls it by itself, because the process may have other things to do.
    ///
    /// - Throws: `EINVAL` on a kernel without seccomp; `EBUSY` if a thread has a filter that the others do not have.
    public static func enter() throws(Errno) {
        try value(ckvm_confine())
    }
}
