// SPDX-License-Identifier: MIT
/// A feature that a guest's machine needs and a backend lacks. Another backend may have it.
public enum Lack: Sendable, Hashable, CaseIterable {
    /// No VM type has private memory (`KVM_X86_SW_PROTECTED_VM`).
    case privateMemory
    /// A VM cannot have two aliases of its memory: accesses cannot be marked as private or shared.
    case aliases
    /// Conversions lose contents.
    case preservation
    /// A VM with private memory has no guest_memfd that starts shared (`MMAP | INIT_SHARED` is `EINVAL`).
    case sharedGuestMemfd
    /// `KVM_SET_MEMORY_ATTRIBUTES2` is `ENOTTY`.
    case conversion
    /// No SNP or TDX VM.
    case confidentialVM
    /// `KVM_CREATE_IRQCHIP` and `KVM_CREATE_PIT2` do not exist.
    case interruptControllers
}

extension Lack: CustomStringConvertible {
    /// A predicate about the backend: `has no VM type with private memory`.
    public var description: String {
        switch self {
        case .privateMemory: "has no VM type with private memory (KVM_X86_SW_PROTECTED_VM)"
        case .aliases: "cannot tell private from shared accesses, so a VM has one alias of its memory"
        case .preservation:
            "loses the contents of memory that is converted, and this guest needs them preserved"
        case .sharedGuestMemfd:
            "has no guest_memfd that starts shared on a VM with private memory (MMAP | INIT_SHARED is EINVAL), "
                + "so it cannot convert in place"
        case .confidentialVM: "has no SNP or TDX VM, which only the model in SoftKVM has (--backend soft)"
        case .interruptControllers:
            "has no interrupt controllers (KVM_CREATE_IRQCHIP), which are KVM's own: only a backend on /dev/kvm has them"
        case .conversion: "cannot convert memory in place: KVM_SET_MEMORY_ATTRIBUTES2 does not exist (ENOTTY)"
        }
    }
}

/// A machine that no backend can have.
public enum ConfigurationError: Error, Sendable, Hashable {
    /// RAM can have 1 to 64 regions, each of at least one page.
    case regions(Int)
    /// RAM must be whole pages, from 1 MiB to 1 TiB. In bytes.
    case ramSize(UInt64)
    /// 1 to 16 are possible.
    case vcpus(Int)
    /// The shared alias would use this bit, but the alias has to begin above 4 GiB.
    case sharedBitTooLow(Int)
    /// RAM of this size overlaps the shared alias.
    case ramReachesAlias(ramSize: UInt64, sharedBit: Int)
    /// RAM has no room for its page tables.
    case pageTables
    /// An SNP or TDX guest starts in 64-bit mode.
    case modeOfConfidentialVM(CPUMode)
    /// A guest of this format starts on one vCPU.
    case oneCPUOnly(String)
}

extension ConfigurationError: CustomStringConvertible {
    /// One line: the requested value, and what is possible.
    public var description: String {
        switch self {
        case .regions(let count): "\(count) regions: use 1 to 64, each of at least one page"
        case .ramSize(let size):
            "RAM of \(size) bytes: it must be whole pages of 4096 bytes, from 1 MiB to 1 TiB"
        case .vcpus(let count): "\(count) vCPUs: use 1 to 16"
        case .sharedBitTooLow(let bit):
            "two aliases need at least 33 physical address bits, so that the shared one starts above 4 GiB; on this "
                + "CPU it would be bit \(bit)"
        case .ramReachesAlias(let size, let bit):
            "RAM of \(hex(size)) bytes overlaps the shared alias, which starts at bit \(bit) on this CPU"
        case .pageTables: "RAM is too small for its page tables"
        case .modeOfConfidentialVM(let mode):
            "an SNP or TDX guest starts in 64-bit mode, this image in \(mode.text): the bit that makes memory private is in the "
                + "entries of page tables that have 64 bits"
        case .oneCPUOnly(let format):
            "\(format): such a guest starts on one vCPU and wakes the others by their APIC, which this machine does not have; use "
                + "--vcpus 1"
        }
    }
}
