// SPDX-License-Identifier: MIT
import MiniVMM

/// What is known of a conversion call; nil is not known.
public struct ConversionArguments: Sendable, Equatable {
    public enum States: String, Sendable, CaseIterable { case shared, `private`, mixed }

    public var offset: UInt64?
    public var size: UInt64?
    public var attributes: UInt64?
    public var flags: UInt64?
    /// Of any reserved word.
    public var reserved: UInt64?
    /// As found after the call.
    public var errorOffset: UInt64?
    /// Bytes of the file.
    public var fileSize: UInt64?
    public var hasPrivateMemory: Bool?
    /// What the range was before.
    public var states: States?

    public init() {}

    /// The keys, in the order in which they are told.
    public static let keys = [
        "offset", "size", "attributes", "flags", "reserved", "error_offset", "file", "vm", "state",
    ]

    /// Takes `key=value`.
    ///
    /// - Returns: nil if it was taken, else what is wrong with it.
    mutating func take(_ key: String, _ value: String) -> String? {
        func number(_ field: WritableKeyPath<ConversionArguments, UInt64?>) -> String? {
            guard let parsed = Words.number(value) else { return "\(key)=\(value): no number of 64 bits" }
            self[keyPath: field] = parsed
            return nil
        }
        switch NearWords.folded(key) {
        case "offset", "address": return number(\.offset)
        case "size": return number(\.size)
        case "attributes", "to", "target":
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
            default: return "vm=\(value): protected or default"
            }
        case "state":
            guard let known = States(rawValue: value.lowercased()) else {
                return "state=\(value): private, shared or mixed"
            }
            states = known
        default:
            let near = NearWords.nearest(to: key, among: Self.keys, limit: 1).map { "; did you mean \($0)=?" }
            return
                "\(key)=: no argument of the call\(near.first ?? ""). There are \(Self.keys.joined(separator: ", "))."
        }
        return nil
    }

    public var isEmpty: Bool { self == ConversionArguments() }

    /// The state asked for.
    var target: PageState? { attributes.map { $0 & 8 == 0 ? .shared : .private } }

    /// For people: `16 KiB at 0x2000, to private`.
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
        if let states { parts.append("the range being \(states.rawValue)") }
        return parts.joined(separator: ", ")
    }
}
