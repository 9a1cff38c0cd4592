public import MiniVMM

/// A recorded trace as text, a line an event, as `--trace` writes it.
public struct TextListing {
    private let trace: RecordedTrace

    public init(_ trace: RecordedTrace) { self.trace = trace }

    public func write(to out: inout OutputBuffer) {
        out.append("# trace of ")
        // What a file says does not steer the terminal.
        out.append(plain: trace.identity)
        out.append(", times in microseconds")
        out.endLine()
        for event in 0..<trace.count {
            line(event, to: &out)
            out.endLine()
        }
        for note in trace.notes {
            out.append("# ")
            out.append(plain: note)
            out.endLine()
        }
        out.flush()
    }

    private func line(_ event: Int, to out: inout OutputBuffer) {
        let nanoseconds = trace.times[event] &- trace.start
        out.append(padded: "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)", left: 11)
        out.append("  ")
        out.append(padded: trace.actor(event), right: 7)
        out.append(padded: trace.name(event), right: 22)
        let shape = trace.shape(event)
        for (place, key) in shape.keys.enumerated() {
            out.append(" ")
            out.append(plain: key)
            out.append("=")
            let value = trace.value(event, place)
            switch shape.types[place] {
            case .text:
                let text = trace.strings[Int(value)]
                let isPlain = text.utf8.allSatisfy { $0 > 32 && $0 != 34 && $0 != 127 }
                if isPlain { out.append(plain: text) } else { out.append(quoted: text) }
            case .flag: out.append(value == 0 ? "no" : "yes")
            case .number, .wide:
                if shape.isAddress[place], shape.types[place] == .wide || value >= 0 {
                    out.append("0x")
                    out.append(hex: UInt64(bitPattern: value))
                } else if shape.types[place] == .wide {
                    out.append(decimal: UInt64(bitPattern: value))
                } else {
                    out.append(signed: value)
                }
            }
        }
    }
}

extension OutputBuffer {
    /// Text without control characters, the C1 ones too.
    mutating func append(plain text: String) {
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0..<32, 127..<160: append("\u{fffd}")
            default: append(contentsOf: String(scalar).utf8)
            }
        }
    }

    fileprivate mutating func append(padded text: String, right width: Int) {
        append(plain: text)
        for _ in min(width, text.utf8.count)..<width { append(32) }
    }

    fileprivate mutating func append(padded text: String, left width: Int) {
        for _ in min(width, text.utf8.count)..<width { append(32) }
        append(text)
    }
}
