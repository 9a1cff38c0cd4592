// SPDX-License-Identifier: MIT
public import MiniVMM

/// A recorded trace as text. The output is byte for byte the text trace of the same run.
public struct TextListing {
    private let trace: RecordedTrace

    /// A listing of all events and notes of a trace.
    public init(_ trace: RecordedTrace) { self.trace = trace }

    /// Writes the lines and flushes the buffer. An error of the descriptor is in ``OutputBuffer/failure``.
    public func write(to out: inout OutputBuffer) {
        out.append("# trace of ")
        // Control characters in a file must not reach the terminal.
        out.append(VisibleText.escaped(trace.identity))
        out.append(
            trace.isSimulated ? ", simulated time in microseconds" : ", times in microseconds")
        out.endLine()
        for event in 0..<trace.count {
            line(event, to: &out)
            out.endLine()
        }
        for note in trace.notes {
            out.append("# ")
            out.append(VisibleText.escaped(note))
            out.endLine()
        }
        out.flush()
    }

    private func line(_ event: Int, to out: inout OutputBuffer) {
        out.beginTextLine(trace.times[event] &- trace.start)
        out.appendTextActor(trace.actor(event))
        out.appendTextName(trace.name(event))
        let shape = trace.shape(event)
        for (place, key) in shape.keys.enumerated() {
            out.append(" ")
            out.append(VisibleText.escaped(key))
            out.append("=")
            let value = trace.value(event, place)
            switch shape.types[place] {
            case .text: out.appendText(trace.strings[Int(value)])
            case .flag: out.appendText(value != 0)
            case .number where value < 0: out.appendText(value)
            case .number, .wide:
                out.appendText(UInt64(bitPattern: value), isAddress: shape.isAddress(place))
            }
        }
    }
}
