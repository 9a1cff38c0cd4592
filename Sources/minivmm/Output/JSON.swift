// SPDX-License-Identifier: MIT
import MiniVMM

/// A JSON value with its members in the order given, for `--json`.
enum JSON {
    case string(String)
    case number(UInt64)
    case integer(Int64)
    case real(Double)
    case bool(Bool)
    case null
    case array([JSON])
    case object([(String, JSON)])

    /// Compact text, one line.
    var text: String {
        var out = OutputBuffer(.standardOutput)
        write(to: &out)
        return String(decoding: out.bytes, as: UTF8.self)
    }

    private func write(to out: inout OutputBuffer) {
        switch self {
        case .string(let text):
            // JSON cannot contain bytes that are not UTF-8.
            let hasBytes = text.unicodeScalars.contains { ByteText.byte($0) != nil }
            out.append(quoted: hasBytes ? ByteText.visible(text) : text)
        case .number(let value): out.append(decimal: value)
        case .integer(let value): out.append(String(value))
        case .real(let value): out.append(value.isFinite ? String(value) : "null")
        case .bool(let value): out.append(value ? "true" : "false")
        case .null: out.append("null")
        case .array(let values):
            out.append("[")
            for (index, value) in values.enumerated() {
                if index > 0 { out.append(",") }
                value.write(to: &out)
            }
            out.append("]")
        case .object(let members):
            out.append("{")
            for (index, member) in members.enumerated() {
                if index > 0 { out.append(",") }
                out.append(quoted: member.0)
                out.append(":")
                member.1.write(to: &out)
            }
            out.append("}")
        }
    }
}
