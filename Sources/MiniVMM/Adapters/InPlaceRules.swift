// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import SystemPackage

// Answers that the in-place interface prescribes, and that all adapters therefore share.

extension ckvm_memory_attributes2 {
    /// Rows 2 to 8 of the conversion table, in order, for a file of `fileSize` bytes on a VM with private memory.
    func validated(fileSize: UInt64) throws(Errno) -> (range: PageRange, state: PageState) {
        guard flags == 0 else { throw .invalidArgument }
        let hasReserved = unsafe withUnsafeBytes(of: reserved) { unsafe $0.contains { $0 != 0 } }
        guard !hasReserved, attributes & ~CKVM_MEMORY_ATTRIBUTE_PRIVATE == 0,
            let range = PageRange(start: offset, size: size), range.end <= fileSize
        else { throw .invalidArgument }
        return (range, attributes == 0 ? .shared : .private)
    }
}

extension Errno {
    /// The error for a `guest_memfd` that is not one of the VM's files: another file, or no open descriptor.
    static func noGuestMemfd(_ descriptor: UInt32) -> Errno {
        fcntl(Int32(bitPattern: descriptor), F_GETFD) < 0 ? .badFileDescriptor : .invalidArgument
    }
}

extension Advice {
    /// The pages of the file to fault in; nil for other advice, and for a range that the kernel itself refuses.
    ///
    /// A private page among them is `EFAULT`. The kernel does not return that for a mapping without access.
    func populated(at offset: UInt64, length: UInt64, of pages: PageRange) -> PageRange? {
        guard self == .populateRead || self == .populateWrite, offset % pageSize == 0, length > 0,
            offset <= pages.size, length <= pages.size - offset
        else { return nil }
        return PageRange.covering(start: pages.start + offset, size: length)
    }
}

extension HostMapping {
    /// Refuses advice that a memfd answers differently from a guest_memfd. A memfd has huge pages where the mapping's
    /// address and the free memory allow one; a guest_memfd never has (`EINVAL`). A poisoned memfd page raises SIGBUS
    /// in the monitor that has written it and in every vCPU that touches it.
    func refuse(_ advice: Advice, inMemfd isMemfd: Bool) throws(Errno) {
        guard isMemfd else { return }
        switch advice {
        case .collapse: throw .invalidArgument
        case .hwPoison: throw .notSupportedOnSocket
        default: return
        }
    }
}

extension GuestMemfdFlags {
    /// The bytes of a new file, by the rules of `KVM_CREATE_GUEST_MEMFD` on a VM that converts in place.
    ///
    /// - Throws: `EINVAL` for unknown flags and for an invalid size.
    func newFile(size: UInt64) throws(Errno) -> PageRange {
        guard isSubset(of: [.mmap, .initShared]), size <= UInt64(Int64.max),
            let bytes = PageRange(start: 0, size: size)
        else { throw .invalidArgument }
        return bytes
    }
}

extension Capability {
    /// The answer to `KVM_CHECK_EXTENSION` on a VM that converts in place; nil asks the base backend.
    var inPlaceAnswer: Int? {
        switch self {
        case .guestMemfdMemoryAttributes: Int(CKVM_MEMORY_ATTRIBUTE_PRIVATE)
        case .guestMemfdFlags: Int(CKVM_GUEST_MEMFD_FLAG_MMAP | CKVM_GUEST_MEMFD_FLAG_INIT_SHARED)
        case .guestMemfd, .userMemory2, .memoryFaultInfo: 1
        // Per-VM attributes and per-file attributes exclude each other.
        case .memoryAttributes: 0
        default: nil
        }
    }
}

extension HostMapping {
    /// Gives the mapped part of `range` the access that its states allow: private pages become inaccessible. For
    /// mappings that are memory of this process.
    ///
    /// - Parameter pages: the pages of the file that are mapped.
    func protect(_ range: PageRange, of pages: PageRange, as attributes: AttributeMap) throws(Errno) {
        guard let range = range.intersection(pages) else { return }
        for run in attributes.runs(in: range) {
            let start = address + (run.range.start - pages.start)
            _ = try value(ckvm_mprotect(start, run.range.size, run.value == .shared))
        }
    }
}

extension Backend {
    /// The bit that marks a guest-physical address as shared.
    ///
    /// - Throws: `EINVAL` for a bit below a page, or beyond the CPU's physical addresses.
    func sharedMask(bit: Int) throws(Errno) -> UInt64 {
        let width = try min(supportedCPUID().physicalAddressBits, 52)
        guard bit >= 12, bit < width else { throw .invalidArgument }
        return 1 << UInt64(bit)
    }
}
