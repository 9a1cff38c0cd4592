// SPDX-License-Identifier: MIT
/// The guest that does the steps of the vCPUs of litmus tests (guest/agent.S). It is none of the catalogue.
///
/// It reads orders from a port, makes one access or one call, and tells what came of it, for ever. It is position independent
/// and entered at its first byte, in 64-bit mode with paging on and everything it accesses mapped to itself.
public enum LitmusAgent {
    /// Empty if the executable was linked without it.
    public static var image: [UInt8] { Images.byName[name] ?? [] }

    static let name = "agent"

    /// IN of 32 bits: the next word of an order. Three words, and a fourth for a call: an address, a number of bytes or pages,
    /// ``Order`` in bits 8 to 15 with a byte in bits 0 to 7, and the attributes of the call.
    public static let orderPort: UInt16 = 0xf5
    /// OUT of 8 bits: the byte that was read.
    public static let bytePort: UInt16 = 0xf4
    /// OUT of 32 bits: 0, an errno negated, or for ``Order/check`` one past the first byte that differs.
    public static let answerPort: UInt16 = 0xf6

    public enum Order: UInt32, Sendable {
        case read
        case write
        /// Writes every byte.
        case fill
        /// Compares every byte.
        case check
        /// `KVM_HC_MAP_GPA_RANGE`, by port 0xe8 or by an instruction.
        case callByPort
        case vmmcall
        case vmcall
    }
}
