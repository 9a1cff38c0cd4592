public import CKVMShim
public import SystemPackage

// Calls that no machine of this library needs, and whoever examines a kernel does. An adapter has none of them.

/// A system call on the file itself. A guest_memfd does none of them; its memory is reached by mmap and by guests only.
public enum FileCall: String, Sendable, CaseIterable {
    /// `read` and `write` of a byte.
    case read
    case write
    /// `ftruncate` to a page.
    case truncate
    /// `mmap` with `MAP_PRIVATE`.
    case mapPrivate = "map_private"
    /// `fallocate` without `FALLOC_FL_KEEP_SIZE`.
    case grow

    fileprivate var number: ckvm_file_call {
        switch self {
        case .read: CKVM_FILE_READ
        case .write: CKVM_FILE_WRITE
        case .truncate: CKVM_FILE_TRUNCATE
        case .mapPrivate: CKVM_FILE_MAP_PRIVATE
        case .grow: CKVM_FILE_GROW
        }
    }
}

/// A file on which any system call can be tried.
public protocol ExaminableFile: KVMGuestMemfd {
    func attempt(_ call: FileCall) throws(Errno)
}

/// A mapping that can be read in another way than by an access.
public protocol ExaminableMapping: HostMapping {
    /// A byte through `/proc/self/mem`.
    ///
    /// - Throws: `EIO` for a page that the host cannot touch.
    func peek(at offset: UInt64) throws(Errno) -> UInt8
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
    func setClock(at gpa: UInt64) throws(Errno)
}

extension LinuxGuestMemfd: ExaminableFile {
    public func attempt(_ call: FileCall) throws(Errno) {
        _ = try value(ckvm_file_call(descriptor, call.number))
    }
}

extension LinuxHostMapping: ExaminableMapping {
    public func peek(at offset: UInt64) throws(Errno) -> UInt8 {
        guard offset < length else { throw .badAddress }
        return UInt8(truncatingIfNeeded: try value(ckvm_peek(address + offset)))
    }
}
