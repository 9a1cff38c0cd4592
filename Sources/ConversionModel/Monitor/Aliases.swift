// SPDX-License-Identifier: MIT
/// The number of aliases of the guest's RAM.
public enum Aliases: String, Sendable, CaseIterable {
    /// One plain memslot. The guest converts explicitly, by hypercall.
    case one
    /// A private alias and a shared one: an access through the wrong alias is a memory fault.
    case two
}

extension MemoryFault {
    /// Whether the access wants its pages converted. If not, it ran into a conversion in progress, and the
    /// vCPU only has to enter again.
    ///
    /// With one alias the kernel takes the kind of an access from the page's attribute, so an access has no preferred
    /// kind; a conversion would undo the one in progress. With two aliases the pages may be in the wanted state
    /// by now.
    ///
    /// - Parameter known: the state of the pages according to the monitor; nil if it is unknown or not
    ///   uniform.
    package func asksForConversion(_ aliases: Aliases, known: @autoclosure () -> PageState?) -> Bool {
        aliases == .two && known() != wants
    }
}
