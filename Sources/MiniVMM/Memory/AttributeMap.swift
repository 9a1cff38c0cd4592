// SPDX-License-Identifier: MIT
// The pages, states and words of the interface are the model's, and this module's users need no second import for them.
@_exported public import ConversionModel

/// Which bytes of a file or an address space are private.
public typealias AttributeMap = RunMap<PageState>
