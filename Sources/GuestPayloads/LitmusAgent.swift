// SPDX-License-Identifier: MIT
/// The guest that performs the vCPU steps of litmus tests (guest/agent.S). It is not part of ``Catalogue``.
///
/// In an endless loop it reads an order from memory, makes one access or one hypercall, and reports the result
/// through a port. The code is position independent. It is entered at its first byte, in 64-bit mode with paging
/// enabled and with the linear address of the order in RBP, and needs no stack.
public enum LitmusAgent {
    /// The flat image; empty if the executable was linked without it.
    public static var image: [UInt8] { Images.byName[name] ?? [] }

    static let name = "agent"

    /// The 32-bit words of an order:
    ///
    /// 1. a guest-virtual address, or a guest-physical one for a hypercall
    /// 2. a number of bytes, or of pages for a hypercall
    /// 3. the ``Order`` in bits 8 to 15 and a byte in bits 0 to 7
    /// 4. the attributes of `KVM_HC_MAP_GPA_RANGE`, for a hypercall only
    ///
    /// It is written before the vCPU is entered, and read when the guest has reported the previous result.
    public typealias OrderWords = (UInt32, UInt32, UInt32, UInt32)
    /// OUT, 8 bits: the byte that ``Order/read`` has read. That order has no other answer.
    public static let bytePort: UInt16 = 0xf4
    /// OUT, 32 bits: 0 for success, the negated errno of a hypercall, or for ``Order/check`` the address one
    /// past the first byte that differs.
    public static let answerPort: UInt16 = 0xf6

    /// The orders that the agent carries out: `ORDER_*` in guest/agent.S.
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
