// SPDX-License-Identifier: MIT
/// What a guest's machine needs and a kernel does not have. Another kernel may have it.
public enum Lack: Sendable, Hashable, CaseIterable {
    /// No VM type has private memory (`KVM_X86_SW_PROTECTED_VM`).
    case privateMemory
    /// A VM cannot have two aliases of its memory: no access says whether it is private or shared.
    case aliases
    /// Contents do not survive a conversion.
    case preservation
    /// A VM with private memory has no guest_memfd that starts shared (`MMAP | INIT_SHARED` is `EINVAL`).
    case sharedGuestMemfd
    /// `KVM_SET_MEMORY_ATTRIBUTES2` is `ENOTTY`.
    case conversion
}

extension Lack: CustomStringConvertible {
    /// What is said of the kernel: `has no VM type with private memory`.
    public var description: String {
        switch self {
        case .privateMemory: "has no VM type with private memory (KVM_X86_SW_PROTECTED_VM)"
        case .aliases: "cannot tell private from shared accesses, so a VM has one alias of its memory"
        case .preservation:
            "does not preserve contents when memory is converted, and the guest needs that"
        case .sharedGuestMemfd:
            "has no guest_memfd that starts shared on a VM with private memory (MMAP | INIT_SHARED is EINVAL), "
                + "so it cannot convert in place"
        case .conversion: "cannot convert memory: it has no such call (ENOTTY)"
        }
    }
}

/// A machine that no kernel can have.
public enum ConfigurationError: Error, Sendable, Hashable {
    /// RAM has 1 to 64 regions, and at least a page for each.
    case regions(Int)
    /// RAM is whole pages, from 1 MiB to 1 TiB. In bytes.
    case ramSize(UInt64)
    /// 1 to 16.
    case vcpus(Int)
    /// The address of the shared alias would have this bit, and the alias has to begin above 4 GiB.
    case sharedBitTooLow(Int)
    /// RAM of so many bytes reaches into the shared alias.
    case ramReachesAlias(ramSize: UInt64, sharedBit: Int)
    /// RAM has no room for its page tables.
    case pageTables
}

extension ConfigurationError: CustomStringConvertible {
    /// One line: what was asked for, and what is possible.
    public var description: String {
        switch self {
        case .regions(let count): "\(count) regions: from 1 to 64 are possible, with a page at least in each"
        case .ramSize(let size):
            "RAM of \(size) bytes: it must be whole pages of 4096 bytes, from 1 MiB to 1 TiB"
        case .vcpus(let count): "\(count) vCPUs: from 1 to 16 are possible"
        case .sharedBitTooLow(let bit):
            "two aliases need 33 or more physical address bits, so that the shared one starts above 4 GiB; this CPU "
                + "would have it at bit \(bit)"
        case .ramReachesAlias(let size, let bit):
            "RAM of \(hex(size)) bytes reaches into the shared alias, which starts at bit \(bit) on this CPU"
        case .pageTables: "RAM is too small for its page tables"
        }
    }
}
