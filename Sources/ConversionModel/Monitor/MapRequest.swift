// SPDX-License-Identifier: MIT
/// The arguments of `KVM_HC_MAP_GPA_RANGE`. All monitors of this package decode them here.
package struct MapRequest: Hashable, Sendable {
    /// Guest-physical range, without the shared bit.
    package let range: PageRange
    package let target: PageState
    /// Nil leaves the choice to the monitor.
    package let contents: ContentPolicy?

    /// `KVM_HC_MAP_GPA_RANGE`.
    package static var number: UInt64 { 12 }
    /// `KVM_MAP_GPA_RANGE_ENCRYPTED`.
    package static var encrypted: UInt64 { 1 << 4 }
    /// The bits of `KVM_MAP_GPA_RANGE_PAGE_SZ_*`.
    private static var pageSizeMask: UInt64 { 0xf }

    /// - Parameter arguments: RBX, RCX and RDX: the address, the number of pages and the attributes.
    /// - Returns: nil if the arguments are invalid, which is `-EINVAL`.
    package init?(_ arguments: (UInt64, UInt64, UInt64)) {
        let (gpa, count, attributes) = arguments
        let (size, overflow) = count.multipliedReportingOverflow(by: pageSize)
        // The page size in bits 0 to 3 is a hint: 4 KiB, 2 MiB or 1 GiB.
        guard !overflow, let range = PageRange(start: gpa, size: size),
            attributes & Self.pageSizeMask <= 2
        else { return nil }
        self.range = range
        target = attributes & Self.encrypted != 0 ? .private : .shared
        // An extension of MiniVMM, in bits that KVM leaves to the monitor.
        switch attributes & ~(Self.pageSizeMask | Self.encrypted) {
        case 0x000: contents = nil
        case 0x100: contents = .preserve
        case 0x200: contents = .zero
        case 0x300: contents = .unspecified
        default: return nil
        }
    }
}
