// SPDX-License-Identifier: MIT
import ConversionModel

/// The name of a file, a view, a hold or a result: a lower-case letter and up to 31 letters, digits and
/// underscores.
public struct Name: Sendable, Hashable, CustomStringConvertible {
    /// The name as a test writes it.
    public let description: String

    /// A name; nil if the text is not a valid name.
    public init?(_ text: String) {
        let bytes = text.utf8
        guard let first = bytes.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first),
            bytes.count <= 32, bytes.allSatisfy({ Lexer.isWordByte($0) && $0 != UInt8(ascii: "-") })
        else { return nil }
        description = text
    }

    private init(known: String) { description = known }

    /// `ram`: the default memory of steps.
    public static let ram = Name(known: "ram")
    /// `shared`: the shared alias of a VM with two, for vCPUs.
    public static let shared = Name(known: "shared")
    /// `guest`: the guest's memory, for ``Action/convert(_:)``. It is every bound memory of the header, one
    /// after the other from guest-physical 0. Nothing else can have this name.
    public static let guest = Name(known: "guest")
}

extension VMName {
    /// The VM of steps that name none.
    package init(_ type: VMType) {
        switch type {
        case .default: self = .default
        case .softwareProtected: self = .protected
        case .snp: self = .snp
        case .tdx: self = .tdx
        }
    }
}

extension VMType {
    /// The word after `vm`.
    package var word: String { VMName(self).rawValue }

    package static let words = ["protected", "default", "snp", "tdx"]

    package init?(word: String) {
        guard Self.words.contains(word), let name = VMName(rawValue: word) else { return nil }
        self = name.type
    }
}

extension Actor {
    package init?(word: String) {
        for (stem, needsNumber, make) in [
            ("host", false, Actor.host), ("vcpu", true, Actor.vcpu), ("child", false, Actor.child),
        ] as [(String, Bool, @Sendable (Int) -> Actor)] where word.hasPrefix(stem) {
            let digits = word.dropFirst(stem.count)
            if digits.isEmpty {
                guard !needsNumber else { return nil }
                self = make(0)
                return
            }
            guard digits.utf8.count <= 2, digits.allSatisfy({ $0.isNumber }), let number = Int(digits),
                (0..<Actor.limit).contains(number)
            else {
                return nil
            }
            self = make(number)
            return
        }
        return nil
    }
}

extension Actor {
    /// The kind of actor, without its number.
    package var word: String {
        switch self {
        case .host: "host"
        case .vcpu: "vcpu"
        case .child: "child"
        }
    }
}

extension Clause {
    /// `a = ok, b = EAGAIN at 0`.
    package var conditionText: String {
        conditions.map { "\($0.result) = \($0.outcome)" }.joined(separator: ", ")
    }
}
