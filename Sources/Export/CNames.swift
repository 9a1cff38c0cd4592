// SPDX-License-Identifier: MIT
import Litmus

/// The C names of a test's objects. A name that C or the program itself uses gets a suffix.
struct CNames {
    private var names: [String: String] = [:]
    private var taken: Set<String>

    /// - Parameter reserved: names that the program uses itself.
    init(reserved: Set<String>) { taken = reserved.union(Self.keywords) }

    /// The C name of an object.
    ///
    /// - Parameters:
    ///   - kind: the namespace, which tells objects of the same name apart.
    ///   - suffixes: tried in order; the first name that is free is taken.
    mutating func name(_ kind: String, _ name: String, _ suffixes: [String]) -> String {
        let key = kind + " " + name
        if let known = names[key] { return known }
        let base = name.replacing("-", with: "_")
        var number = 2
        var chosen = suffixes.lazy.map { base + $0 }.first { !taken.contains($0) }
        while chosen == nil {
            let next = base + (suffixes.last ?? "") + "_\(number)"
            if !taken.contains(next) { chosen = next }
            number += 1
        }
        let result = chosen ?? base
        taken.insert(result)
        names[key] = result
        return result
    }

    /// The C name of an object that has one.
    func known(_ kind: String, _ name: String) -> String? { names[kind + " " + name] }

    private static let keywords: Set<String> = [
        "alignas", "alignof", "asm", "auto", "bool", "break", "case", "char", "const", "constexpr",
        "continue",
        "default", "do", "double", "else", "enum", "extern", "false", "float", "for", "goto", "if", "inline",
        "int", "long", "nullptr", "register", "restrict", "return", "short", "signed", "sizeof", "static",
        "static_assert", "struct", "switch", "thread_local", "true", "typedef", "typeof", "union", "unsigned",
        "void", "volatile", "while", "linux", "unix", "errno", "main", "environ", "stdin", "stdout", "stderr",
    ]
}
