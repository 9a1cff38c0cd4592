// SPDX-License-Identifier: MIT
import MiniVMM

/// The known arguments of a `KVM_SET_MEMORY_ATTRIBUTES2` call. An unknown argument is nil.
public struct ConversionArguments: Sendable, Equatable {
    /// The states of a range's pages. The raw value is the argument of `state=`.
    public enum States: String, Sendable, CaseIterable {
        /// All pages are shared.
        case shared
        /// All pages are private.
        case `private`
        /// Some pages are shared and some are private.
        case mixed
    }

    /// Bytes from the start of the guest_memfd.
    public var offset: UInt64?
    /// Bytes of the range.
    public var size: UInt64?
    /// The attributes word: 8 is private, 0 is shared.
    public var attributes: UInt64?
    /// The flags word. Linux 7.4 has no flags; in RFC v3 to v5, 1 is ZERO and 2 is PRESERVE.
    public var flags: UInt64?
    /// The value of any reserved word.
    public var reserved: UInt64?
    /// `error_offset` after the call: bytes from the start of the file.
    public var errorOffset: UInt64?
    /// Bytes of the guest_memfd.
    public var fileSize: UInt64?
    /// Whether the VM's type has private memory: true for `vm=protected`, false for `vm=default`.
    public var hasPrivateMemory: Bool?
    /// The states of the range's pages before the call.
    public var states: States?

    /// A call without known arguments.
    public init() {}

    /// The keys that the command line accepts, in the order in which messages list them.
    public static let keys = [
        "offset", "size", "attributes", "flags", "reserved", "error_offset", "file", "vm", "state",
    ]

    /// Sets the argument `key=value`.
    ///
    /// - Returns: nil if it was set, else why it was refused.
    mutating func take(_ key: String, _ value: String) -> String? {
        func number(_ field: WritableKeyPath<ConversionArguments, UInt64?>) -> String? {
            guard let parsed = Words.number(value) else {
                return "\(key)=\(value) is not a number of at most 64 bits"
            }
            self[keyPath: field] = parsed
            return nil
        }
        switch NearWords.folded(key) {
        case "offset", "address": return number(\.offset)
        case "size": return number(\.size)
        case "attributes", "attr", "attrs", "to", "target":
            switch value.lowercased() {
            case "private": attributes = 8
            case "shared": attributes = 0
            default: return number(\.attributes)
            }
        case "flags":
            switch value.lowercased() {
            case "zero": flags = 1
            case "preserve": flags = 2
            default: return number(\.flags)
            }
        case "reserved": return number(\.reserved)
        case "error_offset": return number(\.errorOffset)
        case "file", "file_size": return number(\.fileSize)
        case "vm":
            switch value.lowercased() {
            case "protected", "sw_protected", "1": hasPrivateMemory = true
            case "default", "0": hasPrivateMemory = false
            default: return "vm=\(value): must be protected or default"
            }
        case "state":
            guard let known = States(rawValue: value.lowercased()) else {
                return "state=\(value): must be private, shared or mixed"
            }
            states = known
        default:
            return
                "the conversion call has no argument \(key)\(Words.suggestion(for: key, among: Self.keys)) "
                + "Its arguments are \(Self.keys.joined(separator: ", "))."
        }
        return nil
    }

    /// Whether nothing is known of the call.
    public var isEmpty: Bool { self == ConversionArguments() }

    /// The requested state.
    var target: PageState? { attributes.map { $0 & 8 == 0 ? .shared : .private } }

    /// For people: `offset 0x2000, size 0x4000 (4 pages), to private`.
    var text: String {
        var parts: [String] = []
        if let offset { parts.append("offset \(Words.hex(offset))") }
        if let size {
            let pages = size % pageSize == 0 && size > 0 ? " (\(Words.count(size / pageSize, "page")))" : ""
            parts.append("size \(Words.hex(size))\(pages)")
        }
        if let attributes {
            parts.append(
                attributes == 8
                    ? "to private" : attributes == 0 ? "to shared" : "attributes \(Words.hex(attributes))")
        }
        if let flags { parts.append("flags \(Words.hex(flags))") }
        if let reserved { parts.append("a reserved word \(Words.hex(reserved))") }
        if let fileSize { parts.append("a file of \(Words.hex(fileSize)) bytes") }
        if let hasPrivateMemory {
            parts.append("on a \(hasPrivateMemory ? "VM with private memory" : "default VM")")
        }
        if let states { parts.append("the range is \(states.rawValue)") }
        return parts.joined(separator: ", ")
    }
}
