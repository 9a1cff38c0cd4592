// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

// Calls that no machine of this library needs, for testing a backend. Adapters support only the ones that they can
// pass on.

/// A file on which any system call can be tried, even after its descriptor is closed.
public protocol ExaminableFile: KVMGuestMemfd {
    /// A system call that no guest_memfd supports.
    ///
    /// - Throws: the errno of the call, `EBADF` if the descriptor is closed. A correct kernel never succeeds.
    func attempt(_ call: FileCall) throws(Errno)

    /// Gives the descriptor a number that no other file of this process gets while this object exists, so that it can
    /// be used after it is closed.
    ///
    /// - Throws: `EMFILE` or `EINVAL` if the limit on open files leaves no number.
    func reserveDescriptor() throws(Errno)

    /// `dup` of the descriptor, to a reserved number.
    ///
    /// - Throws: `EBADF` if the descriptor is closed, `EMFILE` if no number is left.
    func duplicate() throws(Errno) -> any ExaminableFile

    /// `close` of the descriptor. If its number is reserved, every later call fails with `EBADF`, including this one;
    /// otherwise the number may by then belong to another file.
    ///
    /// - Throws: `EBADF` if the descriptor is closed already.
    func closeDescriptor() throws(Errno)

    /// ``KVMGuestMemfd/map(offset:length:)`` at addresses where nothing else is mapped until this process ends, so that
    /// they can be used after the mapping is gone.
    ///
    /// - Throws: same as ``KVMGuestMemfd/map(offset:length:)``; `ENOMEM` once the process has used up such
    ///   addresses.
    func mapAlone(offset: UInt64, length: UInt64) throws(Errno) -> any ExaminableMapping
}

/// A mapping that can be changed, and read without a memory access. The errors described here for calls after
/// ``unmap()`` hold for a mapping from ``ExaminableFile/mapAlone(offset:length:)``.
public protocol ExaminableMapping: HostMapping {
    /// Reads a byte through `/proc/self/mem`.
    ///
    /// - Throws: `EIO` for a page that the host cannot access.
    func peek(at offset: UInt64) throws(Errno) -> UInt8

    /// `munmap` of the whole mapping. Calls afterwards find no mapping: ``HostMapping/advise(at:length:_:)`` and
    /// ``protect(at:length:_:)`` return `ENOMEM`, this call succeeds, and all others return `EFAULT`.
    ///
    /// - Throws: the errno of `munmap`; none is expected.
    func unmap() throws(Errno)

    /// `mremap` of the whole mapping to another address and length. This mapping no longer exists afterwards.
    ///
    /// - Throws: `EINVAL` for a length of 0, `EFAULT` where nothing is mapped.
    func move(toLength length: UInt64) throws(Errno) -> any ExaminableMapping

    /// `mprotect` of a part.
    ///
    /// - Throws: `EINVAL` for an offset that is not page aligned, `ENOMEM` where nothing is mapped.
    func protect(at offset: UInt64, length: UInt64, _ protection: Protection) throws(Errno)
}

/// A mapping whose pages come from NUMA nodes.
public protocol NodePlacing: HostMapping {
    /// `mbind` of a part.
    ///
    /// - Throws: `EINVAL` for a node that does not exist and an offset that is not page aligned, `EIO`
    ///   (``PolicyFlags/strict``), `EFAULT` where nothing is mapped, `ENOSYS` on a kernel without NUMA.
    func bind(at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags) throws(Errno)

    /// The node that a page is on (`move_pages` without nodes).
    ///
    /// - Throws: `ENOENT` for a page that is not in this process's page tables, `EFAULT` where nothing is mapped.
    func node(at offset: UInt64) throws(Errno) -> UInt32

    /// `move_pages` of one page.
    ///
    /// - Throws: same as ``node(at:)``; `ENODEV` for a node that does not exist, `EACCES` for a page in several page
    ///   tables, `EBUSY` for a page that the kernel did not move.
    func migrate(at offset: UInt64, to node: UInt32) throws(Errno)
}

/// A VM that logs which pages its guest writes.
public protocol DirtyLogging: KVMVirtualMachine {
    /// `KVM_GET_DIRTY_LOG`: the first 64 pages of a slot, one bit each, that were written since the last call.
    ///
    /// - Throws: `ENOENT` for a slot that does not exist or has no `KVM_MEM_LOG_DIRTY_PAGES`, `EINVAL` for an
    ///   invalid slot number.
    func dirtyLog(slot: UInt32) throws(Errno) -> UInt64
}

/// A vCPU with more calls that concern memory than ``KVMVCPU/run()``.
public protocol ExaminableVCPU: KVMVCPU {
    /// `KVM_PRE_FAULT_MEMORY`: maps pages for the guest, and moves `gpa` and `size` past the part that was done.
    ///
    /// - Throws: `EINVAL` for a range that is not whole pages, or a nonzero reserved field; `ENOENT` where the first
    ///   page has no memslot; `EOPNOTSUPP` without second-stage tables.
    func preFault(_ request: inout ckvm_pre_fault_memory) throws(Errno)

    /// Writes `MSR_KVM_SYSTEM_TIME_NEW`: KVM keeps its clock structure at that guest-physical address, and writes it
    /// when the vCPU next enters.
    ///
    /// - Throws: `EINVAL` if the kernel refuses the register.
    func setClock(at gpa: UInt64) throws(Errno)
}

/// A mapping whose pages can be referenced by several kinds of users.
public protocol HoldableMapping: HostMapping {
    /// Takes references on all pages of the part, in the way this kind of user does; offset and length are in bytes.
    ///
    /// - Throws: same as ``HostMapping/hold(at:length:)``; the errno of opening the kind's device (`ENOENT`,
    ///   `ENOSYS`, …) where this kernel has none.
    func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold
}

extension HostMapping {
    /// A hold of the given kind.
    ///
    /// - Throws: same as ``HoldableMapping/hold(_:at:length:)``; `ENOSYS` where the mapping supports only
    ///   ``HoldKind/vmsplice``.
    public func hold(at offset: UInt64, length: UInt64, by kind: HoldKind) throws(Errno) -> any PageHold {
        if let mapping = self as? any HoldableMapping {
            return try mapping.hold(kind, at: offset, length: length)
        }
        guard kind == .vmsplice else { throw .noFunction }
        return try hold(at: offset, length: length)
    }
}

/// A VM that counts the pages in its second-stage tables.
public protocol SecondStageCounting: KVMVirtualMachine {
    /// The `pages_4k` statistic.
    ///
    /// - Throws: `ENOTTY` where the kernel has no binary statistics (before 5.14), `ENOENT` where this one is missing.
    func countPages4K() throws(Errno) -> UInt64
}

/// A host mapping that can report which of its pages are in the process's page tables.
public protocol ResidencyCounting: HostMapping {
    /// Counts the pages of the part that can be accessed without a page fault.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the mapping.
    ///   - length: bytes.
    /// - Throws: the errno of reading `/proc/self/pagemap`, `EIO` if it ends early.
    func residentPages(at offset: UInt64, length: UInt64) throws(Errno) -> UInt64
}

/// A guest_memfd whose call accepts its struct at any address. Adapters do not conform: they read the struct
/// themselves.
public protocol ArgumentTakingGuestMemfd: KVMGuestMemfd {
    /// `KVM_SET_MEMORY_ATTRIBUTES2` with its struct in the given kind of memory.
    ///
    /// - Throws: `EFAULT` where the kernel cannot read the whole struct, or has to write to it.
    func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno)
}
