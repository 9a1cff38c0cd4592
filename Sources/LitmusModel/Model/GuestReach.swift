// SPDX-License-Identifier: MIT
import ConversionModel

/// What a vCPU of a test can access. Kernels run an agent in the guest, whose own memory is above.
package enum GuestReach {
    /// The largest number of bytes of a step; it keeps a step short on a kernel that interprets its guests.
    package static let mostBytes = 4 * pageSize
    /// The guest-physical address of the agent. Tests use the addresses below.
    package static let end: UInt64 = (1 << 30) - (1 << 20)
    /// The agent's pages in the second-stage tables after it has run, one bit each: its code, three levels of page tables, and its
    /// orders. With two aliases the shared one has a page table of its own, and orders are read through it.
    package static func agentPages(hasTwoAliases: Bool) -> UInt8 { hasTwoAliases ? 0b11_1111 : 0b10_1111 }

    /// - Throws: if a part of the extent is out of reach.
    package static func check(_ extent: Extent) throws(Stop) {
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        guard !overflow, end <= self.end else {
            throw .broken("a vCPU can only access guest-physical addresses below \(hex(self.end))")
        }
    }

    /// The arguments of `KVM_HC_MAP_GPA_RANGE`.
    ///
    /// - Throws: if the agent cannot make the call.
    package static func hypercall(
        _ extent: Extent, _ attributes: UInt64
    ) throws(Stop) -> (UInt64, UInt64, UInt64) {
        guard extent.offset % pageSize == 0, extent.size % pageSize == 0 else {
            throw .broken("a hypercall is for whole pages, which \(extent) is not")
        }
        let word = Attributes.hypercallWord(attributes)
        // The operands of an order are 32 bits wide.
        guard extent.offset <= UInt32.max, extent.size / pageSize <= UInt32.max, word <= UInt32.max else {
            throw .broken("a hypercall of a test is for pages below 4 GiB, with attributes below 2^32")
        }
        return (extent.offset, extent.size / pageSize, word)
    }
}

extension Attributes {
    /// The attributes of `KVM_HC_MAP_GPA_RANGE` for those of a conversion. Any other word is passed unchanged.
    package static func hypercallWord(_ attributes: UInt64) -> UInt64 {
        switch state(attributes) {
        case .private?: MapRequest.encrypted
        case .shared?: 0
        case nil: attributes
        }
    }
}
