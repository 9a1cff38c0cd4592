// SPDX-License-Identifier: MIT
/// The seed of a student: the same for the same name, on every machine.
package enum Student {
    /// The name without spaces at its ends, and with ASCII letters in lower case, so that `Ada` and `ada ` are one student.
    package static func normal(_ name: String) -> String {
        var out: [UInt8] = []
        for byte in AnswerFile.normal(name).utf8 {
            out.append((UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte + 32 : byte)
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Whether a form can have this name.
    package static func isName(_ text: String) -> Bool {
        let name = normal(text)
        return !name.isEmpty && name != "?" && text.utf8.count <= AnswerFile.longestStudent
            && text.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "#") }
    }

    /// The seed of a student (FNV-1a and a round of SplitMix64), below ``Problem/seeds``.
    package static func seed(of name: String) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in normal(name).utf8 {
            hash ^= UInt64(byte)
            hash &*= 0x0000_0100_0000_01b3
        }
        var chance = Chance(seed: hash)
        return chance.next() % Problem.seeds
    }
}
