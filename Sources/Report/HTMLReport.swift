// SPDX-License-Identifier: MIT
import CReportPage
public import MiniVMM
import SystemPackage

/// A trace as one self-contained HTML page: it loads nothing from the network or from other files.
public struct HTMLReport {
    private let trace: RecordedTrace
    private let timeline: Timeline
    private let title: String

    /// - Parameter title: what was run; the heading of the page.
    public init(_ trace: RecordedTrace, _ timeline: Timeline, title: String) {
        self.trace = trace
        self.timeline = timeline
        self.title = title
    }

    /// Writes the page and flushes the buffer. An error of the descriptor is in ``OutputBuffer/failure``.
    public func write(to out: inout OutputBuffer) {
        // The policy allows only the scripts and styles in the page: no text of a trace can load or send data.
        out.append(
            """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
            script-src 'unsafe-inline'; img-src data:">
            <meta name="generator" content="MiniVMM">
            <title>
            """)
        out.append(markup: "\(title) · \(trace.identity) · MiniVMM")
        out.append("</title>\n<style>\n")
        unsafe out.append(creport_style)
        out.append("</style></head><body>\n")
        unsafe out.append(creport_body)
        out.append("<script id=\"trace\" type=\"application/json\">\n")
        writeData(to: &out)
        out.append("</script>\n<script>\n")
        unsafe out.append(creport_script)
        out.append("</script></body></html>")
        out.endLine()
        out.flush()
    }

    private func writeData(to out: inout OutputBuffer) {
        out.append("{\"title\":")
        out.append(inScript: title)
        out.append(",\"backend\":")
        out.append(inScript: trace.identity)
        out.append(trace.isSimulated ? ",\"simulated\":true" : ",\"simulated\":false")
        if let ending = trace.ending {
            out.append(",\"ending\":")
            out.append(inScript: ending)
        }
        if let well = trace.endedWell { out.append(well ? ",\"endedWell\":true" : ",\"endedWell\":false") }
        out.append(",\"start\":")
        out.append(decimal: trace.start)
        out.append(",\"startText\":\"")
        out.append(decimal: trace.start)
        out.append("\",\"drawn\":")
        out.append(inScript: timeline.drawnText(trace))
        out.append(",\"leftOut\":")
        out.append(decimal: trace.leftOut)
        out.append(",\"opening\":")
        out.append(decimal: UInt64(timeline.opening(trace)))
        out.append(",\"count\":")
        out.append(decimal: UInt64(trace.count))
        out.endLine()
        list(",\"notes\":[", trace.notes, &out) { $1.append(inScript: $0) }
        list(",\"actors\":[", trace.actors, &out) { $1.append(inScript: $0) }
        list(",\"kinds\":[", EventKind.allCases, &out) { kind, out in
            out.append("[")
            out.append(inScript: kind.label)
            out.append(",")
            out.append(inScript: kind.group)
            out.append(",")
            out.append(decimal: UInt64(kind.weight))
            out.append(kind.marksPages ? ",1]" : ",0]")
        }
        list(",\"states\":[", Timeline.State.allCases, &out) { state, out in
            out.append("[")
            out.append(inScript: "\(state)")
            out.append(",")
            out.append(inScript: state.letter)
            out.append("]")
        }
        list(",\"shapes\":[", trace.shapes, &out) { write($0, to: &$1) }
        writeNames(to: &out)
        list(",\"rows\":[", timeline.rows, &out) { row, out in
            out.append(decimal: row.page)
            out.append(",")
            out.append(decimal: row.pages)
            out.append(",")
            out.append(String(row.weight))
        }
        let painted = Timeline.State.allCases.sorted { $0.paintOrder < $1.paintOrder }
        list(
            ",\"segments\":[",
            painted.lazy.flatMap { state in timeline.segments.lazy.filter { $0.state == state } }, &out
        ) {
            segment, out in
            out.append(decimal: UInt64(segment.state.rawValue))
            for number in [
                segment.rows.lowerBound, segment.rows.count, segment.events.lowerBound,
                segment.events.upperBound,
            ] {
                out.append(",")
                out.append(decimal: UInt64(number))
            }
        }
        // The count covers the guest's conversions; the list also has the monitor's conversion at boot.
        out.append(",\"conversionText\":")
        out.append(inScript: trace.conversions.description)
        list(",\"conversions\":[", timeline.conversions, &out) { conversion, out in
            for number in [conversion.start, conversion.end, conversion.cause ?? -1, conversion.resume ?? -1]
            {
                out.append(signed: Int64(number))
                out.append(",")
            }
            out.append(conversion.succeeded ? "1" : "0")
        }
        writeEvents(to: &out)
        out.append("}")
        out.endLine()
    }

    /// Writes the parts of a shape that the script uses: name, keys, types, the format of each value, and the
    /// sentence.
    private func write(_ shape: RecordedTrace.Shape, to out: inout OutputBuffer) {
        out.append("[")
        out.append(inScript: shape.name)
        list(",[", shape.keys, &out) { $1.append(inScript: $0) }
        out.append(",\"")
        for type in shape.types {
            switch type {
            case .number: out.append("n")
            case .wide, .text: out.append("s")
            case .flag: out.append("b")
            }
        }
        out.append("\",\"")
        for key in shape.known { out.append(key?.letter ?? ".") }
        out.append("\",")
        out.append(inScript: shape.event.map { EventSchema.of($0).sentence } ?? "")
        out.append("]")
    }

    /// Writes the names of guest calls and errnos.
    private func writeNames(to out: inout OutputBuffer) {
        out.append(",\"calls\":{")
        for (index, call) in GuestCallNumber.allCases.enumerated() {
            out.append(index == 0 ? "\"" : ",\"")
            out.append(decimal: call.rawValue)
            out.append("\":")
            out.append(inScript: call.name)
        }
        out.append("},\"errnos\":{")
        var isFirst = true
        for errno in Errno.named {
            out.append(isFirst ? "\"" : ",\"")
            isFirst = false
            out.append(decimal: UInt64(errno.rawValue))
            out.append("\":")
            out.append(inScript: errno.name)
        }
        out.append("}")
        out.endLine()
    }

    /// Writes for each event the time since the previous one, the actor, shape, kind, rows and values.
    private func writeEvents(to out: inout OutputBuffer) {
        // Integers that a double cannot represent are written as texts, after the texts of the trace.
        var wide: [UInt64] = []
        var last = trace.start
        list(",\"events\":[", 0..<trace.count, &out) { event, out in
            let time = trace.times[event]
            out.append(signed: Int64(bitPattern: time &- last))
            last = time
            out.append(",")
            out.append(decimal: UInt64(trace.actorOf[event]))
            out.append(",")
            out.append(decimal: UInt64(trace.shapeOf[event]))
            out.append(",")
            out.append(decimal: UInt64(timeline.kinds[event].rawValue))
            out.append(",")
            let rows = timeline.rowsOf[event]
            out.append(signed: rows.isEmpty ? -1 : Int64(rows.lowerBound))
            out.append(",")
            out.append(decimal: UInt64(rows.count))
            let types = trace.shape(event).types
            for place in types.indices {
                out.append(",")
                let value = trace.value(event, place)
                if types[place] == .wide {
                    wide.append(UInt64(bitPattern: value))
                    out.append(decimal: UInt64(trace.strings.count + wide.count - 1))
                } else {
                    out.append(signed: value)
                }
            }
        }
        out.append(",\"strings\":[")
        for (index, text) in trace.strings.enumerated() {
            if index > 0 { out.append(",") }
            out.append(inScript: text)
            out.endLine()
        }
        for (index, value) in wide.enumerated() {
            if index + trace.strings.count > 0 { out.append(",") }
            out.append("\"0x")
            out.append(hex: value)
            out.append("\"")
        }
        out.append("]")
    }

    private func list<S: Sequence>(
        _ start: StaticString, _ elements: S, _ out: inout OutputBuffer,
        _ write: (S.Element, inout OutputBuffer) -> Void
    ) {
        out.append(start)
        var isFirst = true
        for element in elements {
            if !isFirst { out.append(",") }
            isFirst = false
            write(element, &out)
            // Newlines bound the length of a line and flush the buffer.
            out.endLine()
        }
        out.append("]")
    }
}

extension Timeline.State {
    /// The order of painting: later states cover earlier ones. Shared pages cover private ones, because they are
    /// exposed to the host; overlays cover both.
    var paintOrder: Int {
        switch self {
        case .unallocated: 0
        case .private: 1
        case .shared: 2
        case .unvalidated, .unassigned, .pending, .blocked: 3
        case .hole: 4
        case .detached: 5
        case .converting: 6
        case .failed: 7
        case .held: 8
        }
    }
}

extension EventKey {
    /// The format of a value in the script: `p` address of a page, `x` other address, `B` bytes, `t` duration,
    /// `e` errno, `r` negative errno, `c` guest call, `.` unchanged.
    fileprivate var letter: StaticString {
        if self == .gpa || self == .errorOffset { return "p" }
        switch unit {
        case .bytes: return "B"
        case .ns: return "t"
        case .errno: return "e"
        case .negativeErrno: return "r"
        case .call: return "c"
        case .bit, nil: return type == .address ? "x" : "."
        }
    }
}

extension OutputBuffer {
    mutating func append(signed value: Int64) {
        if value < 0 { append(45) }
        append(decimal: value.magnitude)
    }

    /// Appends a JSON string for a script element. The string cannot end the element or open a comment.
    mutating func append(inScript text: String) {
        let text = VisibleText.escaped(text)
        let start = bytes.count
        append(quoted: text)
        guard bytes[start...].contains(60) else { return }
        var safe = OutputBuffer(.standardOutput)
        safe.append(34)
        for (index, part) in text.split(separator: "<", omittingEmptySubsequences: false).enumerated() {
            if index > 0 { safe.append("\\u003c") }
            var piece = OutputBuffer(.standardOutput)
            piece.append(quoted: String(part))
            safe.append(contentsOf: piece.bytes.dropFirst().dropLast())
        }
        safe.append(34)
        removeLast(bytes.count - start)
        append(contentsOf: safe.bytes)
    }

    /// Appends text between tags or in a quoted attribute. Characters that XML forbids become spaces.
    mutating func append(markup text: String) {
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": append("&amp;")
            case "<": append("&lt;")
            case ">": append("&gt;")
            case "\"": append("&quot;")
            case "\u{0}"..<"\u{20}", "\u{7f}", "\u{fffe}", "\u{ffff}": append(" ")
            case _ where VisibleText.isHidden(scalar): append(VisibleText.escape(scalar))
            default: append(contentsOf: String(scalar).utf8)
            }
        }
    }

    mutating func append(_ part: creport_part) {
        let bytes = unsafe UnsafeBufferPointer(start: part.bytes, count: part.count)
        unsafe append(contentsOf: bytes)
    }
}
