// SPDX-License-Identifier: MIT
// The model defines pages, states and words of the interface; re-exported so that users need no second import.
@_exported public import ConversionModel

/// The private and shared bytes of a file or an address space.
public typealias AttributeMap = RunMap<PageState>
