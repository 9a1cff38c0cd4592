// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

// Calls that no machine of this library needs, for tests of a kernel. Adapters have only those that they can pass on.

/// A file on which any system call can be tried, also with a descriptor that is closed.
public protocol ExaminableFile: KVMGuestMemfd {
    /// A system call that no guest_memfd supports.
    ///
    /// - Throws: the errno of the call, `EBADF` if the descriptor is closed. A correct kernel never succeeds.
    func attempt(_ call: FileCall) throws(Errno)

    /// Gives the descriptor a number that no other file of this process gets as long as this object lives, so that it can
    /// be used once it is closed.
    ///
    /// - Throws: `EMFILE` or `EINVAL` where the limit on open files leaves none.
    func reserveDescriptor() throws(Errno)

    /// `dup` of the descriptor, with a number of that kind.
    ///
    /// - Throws: `EBADF` if the descriptor is closed, `EMFILE` if no number is left.
    func duplicate() throws(Errno) -> any ExaminableFile

    /// `close` of the descriptor. Every call afterwards is `EBADF`, this one too, if the number is reserved; else it may by
    /// then be another file's.
    ///
    /// - Throws: `EBADF` if the descriptor is closed already.
    func closeDescriptor() throws(Errno)

    /// ``KVMGuestMemfd/map(offset:length:)`` at addresses where nothing else is mapped until this process ends, so that
    /// they can be used once the mapping is gone.
    ///
    /// - Throws: as ``KVMGuestMemfd/map(offset:length:)``; `ENOMEM` once the process has used up such
    ///   addresses.
    func mapAlone(offset: UInt64, length: UInt64) throws(Errno) -> any ExaminableMapping
}

/// A mapping that can be changed, and read in another way than by an access. What is said here of calls after
/// ``unmap()`` holds for one of ``ExaminableFile/mapAlone(offset:length:)``.
public protocol ExaminableMapping: HostMapping {
    /// A byte through `/proc/self/mem`.
    ///
    /// - Throws: `EIO` for a page that the host cannot touch.
    func peek(at offset: UInt64) throws(Errno) -> UInt8

    /// `munmap` of all of it. Calls afterwards find no mapping: `ENOMEM` of ``HostMapping/advise(at:length:_:)`` and
    /// ``protect(at:length:_:)``, `EFAULT` of the others; this one succeeds.
    ///
    /// - Throws: the errno of `munmap`; none is expected.
    func unmap() throws(Errno)

    /// `mremap` of all of it to another address and length. This mapping is gone then.
    ///
    /// - Throws: `EINVAL` for no bytes, `EFAULT` where nothing is mapped.
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
    /// - Throws: `EINVAL` for a node that is not there and an offset that is not page aligned, `EIO`
    ///   (``PolicyFlags/strict``), `EFAULT` where nothing is mapped, `ENOSYS` on a kernel without NUMA.
    func bind(at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags) throws(Errno)

    /// The node that a page is on (`move_pages` without nodes).
    ///
    /// - Throws: `ENOENT` for a page that is not in this process's page tables, `EFAULT` where nothing is mapped.
    func node(at offset: UInt64) throws(Errno) -> UInt32

    /// `move_pages` of one page.
    ///
    /// - Throws: as ``node(at:)``; `ENODEV` for a node that is not there, `EACCES` for a page in several page tables,
    ///   `EBUSY` for one that the kernel did not move.
    func migrate(at offset: UInt64, to node: UInt32) throws(Errno)
}

/// A VM that logs which pages its guest writes.
public protocol DirtyLogging: KVMVirtualMachine {
    /// `KVM_GET_DIRTY_LOG`: the first 64 pages of a slot, one bit each, that were written since the last call.
    ///
    /// - Throws: `ENOENT` for a slot that is not there or has no `KVM_MEM_LOG_DIRTY_PAGES`, `EINVAL` for a number
    ///   that no slot can have.
    func dirtyLog(slot: UInt32) throws(Errno) -> UInt64
}

/// A vCPU with the calls that concern memory beside ``KVMVCPU/run()``.
public protocol ExaminableVCPU: KVMVCPU {
    /// `KVM_PRE_FAULT_MEMORY`: maps pages for the guest. `gpa` and `size` are moved past what was done.
    ///
    /// - Throws: `EINVAL` for what is no whole pages, or a word that has to be 0; `ENOENT` where the first page has no
    ///   memslot; `EOPNOTSUPP` without second-stage tables.
    func preFault(_ request: inout ckvm_pre_fault_memory) throws(Errno)

    /// Writes `MSR_KVM_SYSTEM_TIME_NEW`: KVM keeps its clock's structure at that guest-physical address, and writes it when
    /// the vCPU enters next.
    ///
    /// - Throws: `EINVAL` if the kernel does not take the register.
    func setClock(at gpa: UInt64) throws(Errno)
}

/// A mapping on whose pages users of any kind can take references.
public protocol HoldableMapping: HostMapping {
    /// Takes references on all pages of the part, as this kind of user does; both numbers in bytes.
    ///
    /// - Throws: as ``HostMapping/hold(at:length:)``; what opening the kind's device gives (`ENOENT`,
    ///   `ENOSYS`, …) where this kernel has none.
    func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold
}

extension HostMapping {
    /// A hold of the given kind.
    ///
    /// - Throws: as ``HoldableMapping/hold(_:at:length:)``; `ENOSYS` where the mapping has no other kind than
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
    /// - Throws: `ENOTTY` where the kernel has no binary statistics (before 5.14), `ENOENT` where they have no such one.
    func countPages4K() throws(Errno) -> UInt64
}

/// A host mapping of which the kernel says what is in the process's page tables.
public protocol ResidencyCounting: HostMapping {
    /// Pages of the part that can be touched without a page fault.
    ///
    /// - Parameters:
    ///   - offset: bytes from the start of the mapping.
    ///   - length: bytes.
    /// - Throws: the errno of reading `/proc/self/pagemap`, `EIO` if it ends early.
    func residentPages(at offset: UInt64, length: UInt64) throws(Errno) -> UInt64
}

/// A guest_memfd whose call takes its struct wherever the caller has it. An adapter is none: it reads the struct itself.
public protocol ArgumentTakingGuestMemfd: KVMGuestMemfd {
    /// `KVM_SET_MEMORY_ATTRIBUTES2` with its struct in such memory.
    ///
    /// - Throws: `EFAULT` where the kernel cannot read all of it, or has something to write to it.
    func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno)
}
