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
        case .size: "size is 0, or offset + size wraps around"
        case .alignment: "offset or size is no multiple of the page size"
        case .endOfFile: "the range starts or ends behind the end of the file"
        case .unchanged: "the whole range is already so"
        case .noMemory: "there is no memory for the attributes"
        case .inUse: "to private, and a page of the range is in use"
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

    /// What the kernel then has in error_offset.
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
            "This kernel has no conversion in place: it is older than Linux 7.4, or its module parameter "
                + "kvm.gmem_in_place_conversion is off."
        case .unreadable: "The kernel reads all 128 bytes of the struct, and not all of them were there."
        case .flags: "The applied version has no flags. Versions 3 to 5 as posted had the content mode there."
        case .reserved:
            "One of the eleven words behind error_offset was not cleared. error_offset itself may hold anything."
        case .vmType:
            "A default x86 VM has no private memory, so there is nothing to convert, in either direction."
        case .attributes: "The only attribute is KVM_MEMORY_ATTRIBUTE_PRIVATE, 0x8; 0 is shared."
        case .size: "The request names no bytes, or more than there are addresses."
        case .alignment: "The call converts whole pages, 4096 bytes each, and rounds nothing."
        case .endOfFile: "offset counts from the start of the file, and not all of the range is in it."
        case .unchanged:
            "Nothing was to be done and nothing was checked: no unmap, no look at references. Somebody may hold these "
                + "pages all the same."
        case .noMemory:
            "The kernel had no memory to record the attributes. No page has changed. Many small pieces of "
                + "alternating state make that record large (hazard A16)."
        case .inUse:
            "A page of the range is pinned for DMA, still mapped, or has a reference that the kernel did not expect. No page "
                + "has changed, those before it neither. The host's mappings of the range are gone and come back at the "
                + "next touch, data intact."
        case .unwritable:
            "The struct lies in memory that cannot be written, so the real answer is lost: it was EAGAIN or ENOMEM "
                + "(hazard A13)."
        case .converted: "Every page of the range has the state asked for. The struct is not written."
        }
    }

    /// Advice for the caller, in one or more sentences.
    public var advice: String {
        switch self {
        case .noSuchCall:
            "minivmm probe says what this kernel can do; --backend auto takes an adapter. On 7.4, load kvm with "
                + "gmem_in_place_conversion=1. The call goes to the guest_memfd, not to the VM."
        case .unreadable:
            "Pass the address of a whole struct kvm_memory_attributes2, cleared before it is filled."
        case .flags: "Set flags to 0. What becomes of the contents is the VMM's to honour or refuse."
        case .reserved: "Clear the whole struct before filling it."
        case .vmType:
            "Create the VM with a type that has private memory, KVM_X86_SW_PROTECTED_VM for instance."
        case .attributes: "Pass 0x8 for private and 0 for shared."
        case .size: "Leave out empty requests, and check the sum before the call."
        case .alignment:
            "Align the range to 4096 bytes, down at its start and up at its end, if all of it may change."
        case .endOfFile:
            "Compare with the file's size; from a guest-physical address subtract the start of its memslot first."
        case .unchanged: "Nothing. To find out whether a page is in use, this call is no test (hazard A10)."
        case .noMemory:
            "Free memory, or convert in larger pieces, so that neighbours have the same state again."
        case .inUse:
            "Have whoever holds the page let go (unregister an io_uring buffer, drain a pipe, wait for O_DIRECT, unpin in "
                + "VFIO), then call again; or convert around it and come back. Wait without holding anything that the "
                + "holder needs, and not for ever."
        case .unwritable: "Put the struct into writable memory and call again: it tells the real answer."
        case .converted: "Change your own map of the states under the lock that you made the call under."
        }
    }

    /// `row 7`; `success` for ``converted``.
    public var label: String { self == .converted ? "success" : "row \(rawValue)" }
}
