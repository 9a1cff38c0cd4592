// SPDX-License-Identifier: MIT
import MiniVMM

/// The name of a file, a view, a hold or a result: a lower-case letter and up to 31 letters, digits and
/// underscores.
public struct Name: Sendable, Hashable, CustomStringConvertible {
    /// The name as a test writes it.
    public let description: String

    /// A name; nil if the text is not one.
    public init?(_ text: String) {
        let bytes = text.utf8
        guard let first = bytes.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first),
            bytes.count <= 32, bytes.allSatisfy({ Lexer.isWordByte($0) && $0 != UInt8(ascii: "-") })
        else { return nil }
        description = text
    }

    private init(known: String) { description = known }

    /// `ram`: the memory of steps that name none.
    public static let ram = Name(known: "ram")
    /// `shared`: the shared alias of a VM with two, for vCPUs.
    public static let shared = Name(known: "shared")
    /// `guest`: the guest's memory, for ``Action/convert(_:)``. It is every bound memory of the header, one
    /// after the other from guest-physical 0. Nothing else can have this name.
    public static let guest = Name(known: "guest")
}

extension VMName {
    /// The VM that steps mean when they name none.
    init(_ type: VMType) { self = type == .default ? .default : .protected }
}

extension VMType {
    var word: String { self == .default ? "default" : "protected" }

    init?(word: String) {
        switch word {
        case "default": self = .default
        case "protected": self = .softwareProtected
        default: return nil
        }
    }
}

extension Role: CustomStringConvertible {
    /// As a test writes it: `host`, `host1`, `vcpu0`, `child`.
    public var description: String {
        switch self {
        case .host(let number): number == 0 ? "host" : "host\(number)"
        case .vcpu(let number): "vcpu\(number)"
        case .child(let number): number == 0 ? "child" : "child\(number)"
        }
    }

    init?(word: String) {
        for (stem, needsNumber, make) in [
            ("host", false, Role.host), ("vcpu", true, Role.vcpu), ("child", false, Role.child),
        ] as [(String, Bool, @Sendable (Int) -> Role)] where word.hasPrefix(stem) {
            let digits = word.dropFirst(stem.count)
            if digits.isEmpty {
                guard !needsNumber else { return nil }
                self = make(0)
                return
            }
            guard digits.utf8.count <= 2, let number = Int(digits), (0..<Role.limit).contains(number) else {
                return nil
            }
            self = make(number)
            return
        }
        return nil
    }
}
