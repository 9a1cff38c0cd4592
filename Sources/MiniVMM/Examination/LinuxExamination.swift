// SPDX-License-Identifier: MIT
public import CKVMShim
import Glibc
import Synchronization
public import SystemPackage

// The calls of ExaminableObjects.swift, passed to the running kernel.

extension FileCall {
    var number: ckvm_file_call {
        switch self {
        case .read: CKVM_FILE_READ
        case .write: CKVM_FILE_WRITE
        case .truncate: CKVM_FILE_TRUNCATE
        case .mapPrivate: CKVM_FILE_MAP_PRIVATE
        case .grow: CKVM_FILE_GROW
        }
    }
}

extension LinuxGuestMemfd: ExaminableFile {
    /// Moves the file to a number of 512 or more (half the limit on open files if that is less) and closes
    /// the old one. A second call does nothing.
    ///
    /// - Throws: `EMFILE` if the limit on open files is below 128 or no number is left, `EINVAL` from
    ///   `fcntl(F_DUPFD_CLOEXEC)`, `EBADF` if the descriptor is closed.
    public func reserveDescriptor() throws(Errno) {
        try state.withLock { state throws(Errno) in
            guard !state.isReserved else { return }
            let number = try ReservedDescriptors.duplicate(state.number)
            _ = ckvm_close(state.number)
            state = (number, isOpen: true, isReserved: true)
        }
    }

    /// `fcntl(F_DUPFD_CLOEXEC)` to a reserved number.
    ///
    /// - Throws: `EBADF` if the descriptor is closed; `EMFILE` if the limit on open files is below 128 or no
    ///   number is left.
    public func duplicate() throws(Errno) -> any ExaminableFile {
        let number = try ReservedDescriptors.duplicate(descriptor)
        return LinuxGuestMemfd(owning: number, size: size, isReserved: true)
    }

    /// `close(2)`. The number stays in ``descriptor``.
    ///
    /// - Throws: `EBADF` if the descriptor is closed already.
    public func closeDescriptor() throws(Errno) {
        // Not under the lock: other threads may use the number meanwhile.
        let number = state.withLock { state in
            state.isOpen = false
            return state.number
        }
        _ = try value(ckvm_close(number))
    }

    /// Makes the system call.
    ///
    /// - Throws: its errno: on a correct kernel `EINVAL`, `ENODEV` or `EOPNOTSUPP`, and `EBADF` for a closed
    ///   descriptor.
    public func attempt(_ call: FileCall) throws(Errno) {
        _ = try value(ckvm_file_call(descriptor, call.number))
    }

    /// `mmap` at an address from 2^45 up that this process has not used before; both arguments in bytes.
    ///
    /// - Throws: `ENODEV` without ``GuestMemfdFlags/mmap``, `EINVAL` for a length of 0 and an offset that is
    ///   not page aligned, `EBADF` for a closed descriptor, `ENOMEM` once such addresses are used up.
    public func mapAlone(offset: UInt64, length: UInt64) throws(Errno) -> any ExaminableMapping {
        // mmap refuses these arguments before it looks for a free address.
        guard length > 0, offset <= UInt64(Int64.max) else {
            return try mapAnywhere(offset: offset, length: length)
        }
        guard let room = PrivateAddresses.take(length) else { throw .noMemory }
        try value(Int(ckvm_mmap_shared_at(room, length, descriptor, offset)))
        return LinuxHostMapping(try OwnedMapping(owning: room, length: length))
    }
}

extension LinuxGuestMemfd: ArgumentTakingGuestMemfd {
    /// `KVM_SET_MEMORY_ATTRIBUTES2` with a copy of the struct in the given kind of memory.
    ///
    /// - Throws: `EFAULT` if the kernel cannot read the whole struct, or has to write `error_offset` to it;
    ///   otherwise the errno of docs/ABI.md, section 2; the errno of `mmap` if the memory cannot be created.
    public func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno) {
        _ = try memory.withArgument(request) { address throws(Errno) in
            try ioctl(descriptor, CKVM_SET_MEMORY_ATTRIBUTES2, value: address)
        }
    }
}

/// Addresses that a process uses only once, far below those that mmap chooses by itself.
enum PrivateAddresses {
    private static let next = Mutex<UInt64>(1 << 45)
    private static let end: UInt64 = 5 << 44

    /// - Returns: nil when they are used up.
    static func take(_ length: UInt64) -> UInt64? {
        next.withLock { next in
            let start = next
            // A gap, so that adjacent mappings are not merged.
            let (end, overflow) = start.addingReportingOverflow(length)
            guard !overflow, end < Self.end - 2 * pageSize else { return nil }
            next = (end + 2 * pageSize - 1) & ~(pageSize - 1)
            return start
        }
    }
}

/// Descriptor numbers that no other file gets: the kernel always hands out the lowest free number.
enum ReservedDescriptors {
    private static let lowest: Int32 = 512
    /// With a lower limit on open files, ordinary descriptors would reach these numbers.
    private static let lowestLimit: Int32 = 128
    /// Numbers of live objects, open or closed.
    private static let taken = Mutex<Set<Int32>>([])

    static func duplicate(_ descriptor: Int32) throws(Errno) -> Int32 {
        let limit = Int32(clamping: sysconf(Int32(_SC_OPEN_MAX)))
        guard limit >= lowestLimit else { throw .tooManyOpenFiles }
        return try taken.withLock { taken throws(Errno) in
            var least = min(lowest, limit / 2)
            while true {
                let number = Int32(try value(ckvm_duplicate(descriptor, least)))
                guard taken.contains(number) else {
                    taken.insert(number)
                    return number
                }
                // The number is closed, but a live object may still use it that way.
                _ = ckvm_close(number)
                least = number + 1
            }
        }
    }

    static func free(_ number: Int32) { taken.withLock { _ = $0.remove(number) } }
}

extension LinuxHostMapping: ExaminableMapping {
    /// `munmap` of the whole mapping. Further calls unmap the same addresses again.
    ///
    /// - Throws: the errno of `munmap`; none is expected.
    public func unmap() throws(Errno) {
        let isMapped = mapping.withLock { mapping in
            defer { mapping = nil }
            return mapping != nil
        }
        if !isMapped { _ = try value(ckvm_munmap(address, length)) }
    }

    private func moved(toLength new: UInt64, at room: UInt64) throws(Errno) -> OwnedMapping {
        try mapping.withLock { mapping throws(Errno) in
            try value(Int(ckvm_mremap(address, length, new, room)))
            mapping.take()?.disown()
            return try OwnedMapping(owning: room, length: new)
        }
    }

    /// `pread` from `/proc/self/mem`.
    ///
    /// - Throws: `EIO` for a page that the host cannot access, `EFAULT` for an offset past the end of the
    ///   mapping, the errno of opening the file.
    public func peek(at offset: UInt64) throws(Errno) -> UInt8 {
        guard offset < length else { throw .badAddress }
        return UInt8(truncatingIfNeeded: try value(ckvm_peek(address + offset)))
    }

    /// `mprotect`.
    ///
    /// - Throws: `EINVAL` for an offset that is not page aligned, `ENOMEM` where nothing is mapped, `EFAULT`
    ///   if the part leaves the mapping.
    public func protect(at offset: UInt64, length: UInt64, _ protection: Protection) throws(Errno) {
        let start = try start(of: offset, length)
        _ = try value(
            ckvm_mprotect_to(start, length, protection.isReadable, protection.isWritable))
    }

    /// `mremap(MREMAP_MAYMOVE | MREMAP_FIXED)` to an address that this process has not used before.
    ///
    /// - Throws: `EINVAL` for a length of 0, `EFAULT` where nothing is mapped, `ENOMEM` once such addresses
    ///   are used up.
    public func move(toLength new: UInt64) throws(Errno) -> any ExaminableMapping {
        guard let room = PrivateAddresses.take(max(new, 1)) else { throw .noMemory }
        return LinuxHostMapping(try moved(toLength: new, at: room))
    }
}

extension MemoryPolicy {
    /// The mode, and the node if there is one.
    var words: (mode: Int32, node: UInt32?) {
        switch self {
        case .standard: (0, nil)
        case .preferred(let node): (1, node)
        case .bind(let node): (2, node)
        case .local: (4, nil)
        }
    }
}

extension LinuxHostMapping: NodePlacing {
    /// `mbind(2)`.
    ///
    /// - Throws: `EINVAL` for a node that does not exist and an offset that is not page aligned, `EIO` with
    ///   ``PolicyFlags/strict``, `EFAULT` where nothing is mapped or if the part leaves the mapping, `ENOSYS`
    ///   on a kernel without NUMA.
    public func bind(
        at offset: UInt64, length: UInt64, _ policy: MemoryPolicy, _ flags: PolicyFlags
    ) throws(Errno) {
        let start = try start(of: offset, length)
        let (mode, node) = policy.words
        _ = try value(ckvm_mbind(start, length, mode, node.map { Int32(clamping: $0) } ?? -1, flags.rawValue))
    }

    /// `move_pages(2)` of one page without nodes.
    ///
    /// - Throws: `ENOENT` for a page that is not in the page tables, `EFAULT` where nothing is mapped or for
    ///   an offset past the end.
    public func node(at offset: UInt64) throws(Errno) -> UInt32 {
        UInt32(try value(ckvm_move_page(try start(of: offset, 1), -1)))
    }

    /// `move_pages(2)` of one page.
    ///
    /// - Throws: same as ``node(at:)``; `ENODEV` for a node that does not exist, `EACCES` for a page in several
    ///   page tables, `EBUSY` for a page that the kernel did not move.
    public func migrate(at offset: UInt64, to node: UInt32) throws(Errno) {
        _ = try value(ckvm_move_page(try start(of: offset, 1), Int32(clamping: node)))
    }
}

extension LinuxVM: DirtyLogging {
    /// `KVM_GET_DIRTY_LOG`; bit 0 is the first page of the slot.
    ///
    /// - Throws: `ENOENT` if there is no such slot or it has no `KVM_MEM_LOG_DIRTY_PAGES`, `EINVAL` for an
    ///   invalid slot number.
    public func dirtyLog(slot: UInt32) throws(Errno) -> UInt64 {
        var first: UInt64 = 0
        _ = try value(unsafe ckvm_dirty_log(vm.rawValue, slot, &first))
        return first
    }
}

extension LinuxVCPU: ExaminableVCPU {
    /// `KVM_PRE_FAULT_MEMORY`, repeated after `EINTR`.
    ///
    /// - Throws: `EINVAL` for a range that is not whole pages, or a nonzero reserved field; `ENOENT` where the
    ///   first page has no memslot; `EAGAIN` while its slot is being deleted; `EFAULT` for a page that is not
    ///   available; `EOPNOTSUPP` without second-stage tables.
    public func preFault(_ request: inout ckvm_pre_fault_memory) throws(Errno) {
        try ioctl(vcpu, CKVM_PRE_FAULT_MEMORY, &request)
    }

    /// `KVM_SET_MSRS` of `MSR_KVM_SYSTEM_TIME_NEW`, with the enable bit set.
    ///
    /// - Throws: `EINVAL` if the kernel refuses the register.
    public func setClock(at gpa: UInt64) throws(Errno) {
        var request = ckvm_msrs1()
        request.nmsrs = 1
        request.index = CKVM_MSR_SYSTEM_TIME_NEW
        request.data = gpa | 1
        // The ioctl returns the number of registers written.
        guard try ioctl(vcpu, CKVM_SET_MSRS, &request) == 1 else { throw .invalidArgument }
    }
}
