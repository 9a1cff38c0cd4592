// SPDX-License-Identifier: MIT
/// The guest that performs the vCPU steps of litmus tests (guest/agent.S). It is not part of ``Catalogue``.
///
/// It loops forever: it reads an order from a port, makes one access or one hypercall, and reports the result
/// through another port. The code is position independent. It is entered at its first byte, in 64-bit mode
/// with paging enabled, and needs no stack.
public enum LitmusAgent {
    /// The flat image; empty if the executable was linked without it.
    public static var image: [UInt8] { Images.byName[name] ?? [] }

    static let name = "agent"

    /// IN, 32 bits: the next word of an order. An order has three words, a hypercall's has four: a
    /// guest-virtual address (for a hypercall a guest-physical one), a number of bytes (for a hypercall of
    /// pages), ``Order`` in bits 8 to 15 with a byte in bits 0 to 7, and the attributes of
    /// `KVM_HC_MAP_GPA_RANGE`.
    public static let orderPort: UInt16 = 0xf5
    /// OUT, 8 bits: the byte that ``Order/read`` has read, and the only answer to that order.
    public static let bytePort: UInt16 = 0xf4
    /// OUT, 32 bits: 0 for success, the negated errno of a hypercall, or for ``Order/check`` the address one
    /// past the first byte that differs.
    public static let answerPort: UInt16 = 0xf6

    /// What the agent does with an order: `ORDER_*` in guest/agent.S.
    public enum Order: UInt32, Sendable {
        /// Reads one byte and sends it to ``LitmusAgent/bytePort``.
        case read
        /// Writes the byte of the order to one address.
        case write
        /// Writes the byte of the order to each address of the range.
        case fill
        /// Compares each byte of the range with the byte of the order.
        case check
        /// `KVM_HC_MAP_GPA_RANGE` through port 0xe8, with the same registers as the instructions below.
        case callByPort
        /// `KVM_HC_MAP_GPA_RANGE` by VMMCALL, the hypercall instruction of AMD CPUs.
        case vmmcall
        /// `KVM_HC_MAP_GPA_RANGE` by VMCALL, the hypercall instruction of Intel CPUs.
        case vmcall
    }
}
