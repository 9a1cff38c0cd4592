// SPDX-License-Identifier: MIT
public import SystemPackage

/// A row of the validation table of `KVM_SET_MEMORY_ATTRIBUTES2` (docs/ABI.md). The raw value is its number.
///
/// The kernel checks the rows in this order and returns the errno of the first one whose condition holds.
public enum ConversionRow: Int, Sendable, CaseIterable {
    /// `ENOTTY`: the kernel does not have the call.
    case noSuchCall = 0
    /// `EFAULT`: the struct cannot be read.
    case unreadable
    /// `EINVAL`: `flags` is not 0.
    case flags
    /// `EINVAL`: a reserved word is not 0.
    case reserved
    /// `EINVAL`: the VM's type has no private memory.
    case vmType
    /// `EINVAL`: `attributes` has a bit other than `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
    case attributes
    /// `EINVAL`: `size` is 0, or `offset + size` exceeds 64 bits.
    case size
    /// `EINVAL`: `offset` or `size` is not a multiple of the page size.
    case alignment
    /// `EINVAL`: the range is not inside the file.
    case endOfFile
    /// Success: all pages of the range already have the requested state, and nothing else is checked.
    case unchanged
    /// `ENOMEM`: there is no memory to record the attributes. `error_offset` is the start of the range.
    case noMemory
    /// `EAGAIN`: a page of a range that is to become private is in use. `error_offset` is the lowest such
    /// page.
    case inUse
    /// `EFAULT`: `error_offset` cannot be written back, which hides an `ENOMEM` or `EAGAIN`.
    case unwritable
    /// Success: every check passed.
    case converted

    /// The condition under which this row is the answer, as part of a sentence.
    public var condition: String {
        switch self {
        case .noSuchCall: "the kernel does not have the call"
        case .unreadable: "the struct cannot be read"
        case .flags: "flags is not 0"
        case .reserved: "a reserved word is not 0"
        case .vmType: "the VM type has no private memory"
        case .attributes: "attributes has a bit other than PRIVATE"
        case .size: "size is 0, or offset + size overflows 64 bits"
        case .alignment: "offset or size is not a multiple of the page size"
        case .endOfFile: "the range is not inside the file"
        case .unchanged: "the whole range already has the requested state"
        case .noMemory: "there is no memory to record the attributes"
        case .inUse: "the range is to become private, and one of its pages is in use"
        case .unwritable: "the result cannot be written back"
        case .converted: "every check passed"
        }
    }

    /// The errno that the call returns; nil if it succeeds.
    public var errno: Errno? {
        switch self {
        case .noSuchCall: .inappropriateIOCTLForDevice
        case .unreadable, .unwritable: .badAddress
        case .flags, .reserved, .vmType, .attributes, .size, .alignment, .endOfFile: .invalidArgument
        case .noMemory: .noMemory
        case .inUse: .resourceTemporarilyUnavailable
        case .unchanged, .converted: nil
        }
    }

    /// The value that the kernel writes to error_offset, as part of a sentence.
    var errorOffset: String {
        switch self {
        case .noMemory: "error_offset is the start of the request"
        case .inUse: "error_offset is the lowest page in use"
        default: "error_offset is not written"
        }
    }

    /// The meaning of the answer, in one or more sentences.
    public var means: String {
        switch self {
        case .noSuchCall:
            "This kernel has no in-place conversion: it is older than Linux 7.4, or its module parameter "
                + "kvm.gmem_in_place_conversion is off."
        case .unreadable:
            "The kernel reads all 128 bytes of the struct, and some of them are not mapped or not readable."
        case .flags: "Linux 7.4 has no flags. RFC v3 to v5 had the content mode there."
        case .reserved:
            "One of the eleven reserved words after error_offset was not cleared. The value of error_offset itself is ignored."
        case .vmType:
            "A default x86 VM has no private memory, so there is nothing to convert, in either direction."
        case .attributes: "The only attribute is KVM_MEMORY_ATTRIBUTE_PRIVATE, 0x8; 0 is shared."
        case .size: "The size is 0, or offset + size overflows 64 bits."
        case .alignment: "The call converts whole pages of 4096 bytes and does not round."
        case .endOfFile: "offset counts from the start of the file, and part of the range is beyond its end."
        case .unchanged:
            "There was nothing to do, so the kernel unmapped nothing and checked no references. A page of the range may still be "
                + "in use."
        case .noMemory:
            "The kernel had no memory to record the attributes. No page has changed. The record is large if the state "
                + "alternates from page to page (hazard A16)."
        case .inUse:
            "A page of the range is pinned for DMA, still mapped, or has a reference that the kernel does not expect. No page "
                + "has changed, not even those before it. The range is unmapped from the host's page tables; its pages come back "
                + "on the next access, with their contents."
        case .unwritable:
            "The struct is in memory that the kernel cannot write, so the real result is lost: it was EAGAIN or ENOMEM "
                + "(hazard A13)."
        case .converted:
            "Every page of the range has the requested state. The kernel does not write the struct."
        }
    }

    /// Advice for the caller, in one or more sentences.
    public var advice: String {
        switch self {
        case .noSuchCall:
            "minivmm probe lists what this kernel supports; --backend auto uses an adapter. On Linux 7.4, load kvm with "
                + "gmem_in_place_conversion=1. Make the call on the guest_memfd, not on the VM."
        case .unreadable:
            "Pass the address of a whole struct kvm_memory_attributes2, cleared before it is filled in."
        case .flags: "Set flags to 0. The VMM itself honours or refuses the content policy."
        case .reserved: "Clear the whole struct before filling it in."
        case .vmType:
            "Create the VM with a type that has private memory, for example KVM_X86_SW_PROTECTED_VM."
        case .attributes: "Pass 0x8 for private and 0 for shared."
        case .size: "Do not make empty requests, and check the sum before the call."
        case .alignment:
            "Align the range to 4096 bytes: round its start down and its end up, if the additional bytes may change state, too."
        case .endOfFile:
            "Compare with the size of the file. To get the offset of a guest-physical address, subtract the start of its memslot and add "
                + "the slot's guest_memfd_offset."
        case .unchanged: "Nothing. Do not use this call to find out whether a page is in use (hazard A10)."
        case .noMemory:
            "Free memory, or convert larger ranges, so that neighbouring pages have the same state."
        case .inUse:
            "Make the holder release the page (unregister the io_uring buffer, drain the pipe, wait for O_DIRECT, unpin in "
                + "VFIO), then call again; or convert around the page and try it again later. While waiting, hold no lock that the "
                + "holder needs, and limit the number of retries."
        case .unwritable: "Put the struct into writable memory and call again to see the real result."
        case .converted:
            "Update the VMM's own map of states while still holding the lock under which it made the call."
        }
    }

    /// `row 7`; `success` for ``converted``.
    public var label: String { self == .converted ? "success" : "row \(rawValue)" }
}
