// SPDX-License-Identifier: MIT
public import MiniVMM

/// Draws a ``ScheduleChart``: the delays of each pair of actors from left to right as coloured bands, and below them a line for each
/// band with its outcome and the place in the kernel.
///
/// A band is as wide as its delays, but wide enough for its letter. At most ``mostBands`` bands of a strip are drawn.
public struct ScheduleDrawing {
    private let chart: ScheduleChart
    private let outcomes: [String]

    private static let width = 1200.0
    private static let left = 24.0
    private static let stripHeight = 56.0
    private static let rowHeight = 24.0
    private static let narrowest = 30.0
    /// The limit for the bands of a strip.
    static let mostBands = 32
    /// Colours that people with a colour vision deficiency can distinguish (Okabe and Ito). Each outcome has a letter, too.
    private static let colours = [
        "#9fd0f0", "#f5c26b", "#8fd3b6", "#e2b3cf", "#f4e98c", "#b9c0c9", "#d9b38c", "#c5b8ee",
    ]
    private static let forbidden = "#e8543f"

    /// A drawing of a chart.
    public init(_ chart: ScheduleChart) {
        self.chart = chart
        outcomes = chart.outcomes
    }

    /// Writes an SVG document and flushes the buffer. An error of the descriptor is in ``OutputBuffer/failure``.
    public func writeSVG(to out: inout OutputBuffer) {
        write(to: &out)
        out.flush()
    }

    /// Writes an HTML page with the drawing, and flushes the buffer. It loads nothing from the network or from other files.
    public func writeHTML(to out: inout OutputBuffer) {
        out.append(
            """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
            <meta name="generator" content="MiniVMM">
            <title>
            """)
        out.append(markup: "\(chart.title) · \(chart.backend) · MiniVMM")
        out.append(
            """
            </title>
            <style>
            body { margin: 0; padding: 12px; background: #fff; }
            svg { width: 100%; max-width: 1400px; height: auto; min-width: 760px; display: block; margin: auto; }
            div { overflow-x: auto; }
            @media (prefers-color-scheme: dark) { body { background: #15181e; } div { background: #fff; border-radius: 6px; } }
            </style></head><body><div>
            """)
        write(to: &out)
        out.append("</div></body></html>")
        out.endLine()
        out.flush()
    }

    // MARK: layout

    private func write(to out: inout OutputBuffer) {
        let head = 68 + 26 * Double(titleLines.count)
        let whole = SVGElement.round(head + chart.strips.reduce(0) { $0 + height($1) })
        out.append(
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(whole)" \
            width="\(Self.width)" height="\(whole)" \
            font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" role="img">
            <defs><pattern id="waits" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
            <path d="M0 0V8" stroke="#15181e" stroke-width="2.5" opacity=".45"/></pattern></defs>
            <rect width="100%" height="100%" fill="#fff"/>

            """)
        var top = 34.0
        for line in titleLines {
            SVGElement.text(Self.left, top, line, size: 20, weight: "bold", to: &out)
            top += 26
        }
        SVGElement.text(
            Self.left, top, "\(chart.backend). \(chart.unit)", size: 14, fill: SVGElement.soft, to: &out)
        top += 34
        for strip in chart.strips {
            draw(strip, top, to: &out)
            top += height(strip)
        }
        out.append("</svg>")
        out.endLine()
    }

    /// The title in lines that fit the drawing.
    private var titleLines: [String] {
        var lines: [String] = []
        for word in chart.title.split(separator: " ") {
            if let last = lines.last, last.count + word.count < 88 {
                lines[lines.count - 1] = last + " " + word
            } else {
                lines.append(String(word.prefix(88)))
            }
        }
        return Array(lines.prefix(3))
    }

    private func shown(_ strip: ScheduleChart.Strip) -> ArraySlice<ScheduleChart.Band> {
        strip.bands.prefix(Self.mostBands)
    }

    private func height(_ strip: ScheduleChart.Strip) -> Double {
        let rows = shown(strip).count + (strip.bands.count > Self.mostBands ? 1 : 0)
        return 26 + (strip.note.isEmpty ? 0 : 20) + Self.stripHeight + 18 + Double(rows) * Self.rowHeight + 30
    }

    /// The widths of the bands: proportional to the delays, but at least ``narrowest``.
    private func widths(_ bands: ArraySlice<ScheduleChart.Band>) -> [Double] {
        let lengths = bands.map { Double($0.delays.upperBound - $0.delays.lowerBound) + 1 }
        let all = lengths.reduce(0, +)
        let room = Self.width - 2 * Self.left - Double(bands.count) * Self.narrowest
        return lengths.map { Self.narrowest + max(0, room) * $0 / max(1, all) }
    }

    private func draw(_ strip: ScheduleChart.Strip, _ top: Double, to out: inout OutputBuffer) {
        var y = top + 18
        SVGElement.text(Self.left, y, strip.title, size: 16, weight: "bold", to: &out)
        if !strip.note.isEmpty {
            y += 20
            SVGElement.text(Self.left, y, strip.note, size: 13, fill: SVGElement.soft, to: &out)
        }
        y += 8
        let bands = shown(strip)
        var x = Self.left
        for (band, width) in zip(bands, widths(bands)) {
            draw(band, x, y, width, to: &out)
            x += width
        }
        y += Self.stripHeight + 18 + 14
        for band in bands {
            row(band, y, to: &out)
            y += Self.rowHeight
        }
        if strip.bands.count > bands.count {
            SVGElement.text(
                Self.left, y, "… and \(strip.bands.count - bands.count) more intervals", size: 14,
                fill: SVGElement.soft, to: &out)
        }
    }

    /// A band: the outcomes of its schedules one above the other, with the letter of the most frequent one.
    private func draw(
        _ band: ScheduleChart.Band, _ x: Double, _ y: Double, _ width: Double, to out: inout OutputBuffer
    ) {
        let all = Double(max(1, band.outcomes.reduce(0) { $0 + $1.count }))
        out.append("<g><title>")
        out.append(
            markup: "\(band.label): \(band.outcomes.map(\.text).joined(separator: " or ")) \(band.place)")
        out.append("</title>")
        out.endLine()
        var top = y
        for outcome in band.outcomes {
            let height = Self.stripHeight * Double(outcome.count) / all
            SVGElement.rect(x, top, width, height, colour(outcome), to: &out)
            top += height
        }
        if band.waits { SVGElement.rect(x, y, width, Self.stripHeight, "url(#waits)", to: &out) }
        SVGElement.rect(x, y, width, Self.stripHeight, "none", stroke: true, to: &out)
        SVGElement.text(
            x + width / 2, y + Self.stripHeight / 2 + 7, letters(band), size: 18, weight: "bold",
            anchor: "middle", hasOutline: true, to: &out)
        out.append("</g>")
        out.endLine()
    }

    private func row(_ band: ScheduleChart.Band, _ y: Double, to out: inout OutputBuffer) {
        SVGElement.rect(
            Self.left, y - 14, 30, 18, band.outcomes.first.map(colour) ?? "none", stroke: true, to: &out)
        if band.waits { SVGElement.rect(Self.left, y - 14, 30, 18, "url(#waits)", to: &out) }
        SVGElement.text(
            Self.left + 15, y, letters(band), size: 13, weight: "bold", anchor: "middle", hasOutline: true,
            to: &out)
        SVGElement.text(Self.left + 190, y, band.label, size: 14, anchor: "end", to: &out)
        let wrong = band.outcomes.contains { !$0.isAllowed }
        let outcome = band.outcomes.map(\.text).joined(separator: " or ") + (wrong ? " (forbidden)" : "")
        SVGElement.text(
            Self.left + 206, y, Self.cut(outcome, 480), size: 14, weight: wrong ? "bold" : "normal",
            fill: wrong ? SVGElement.bad : SVGElement.ink, to: &out)
        SVGElement.text(
            Self.left + 206 + 490, y, Self.cut(band.place, 455), size: 13, fill: SVGElement.soft, to: &out)
    }

    /// A text that is cut at the estimated width.
    private static func cut(_ text: String, _ width: Double) -> String {
        let most = Int(width / TextBoxes.width("x", size: 13) * 1.12)
        return text.count <= most ? text : text.prefix(most - 1) + "…"
    }

    private func letters(_ band: ScheduleChart.Band) -> String {
        band.outcomes.prefix(3).map { letter(number($0)) }.joined(separator: "/")
    }

    private func number(_ outcome: ScheduleChart.Outcome) -> Int {
        outcomes.firstIndex(of: outcome.text) ?? 0
    }

    /// A to Z, then A1 and so on.
    private func letter(_ number: Int) -> String {
        let letter = String(UnicodeScalar(UInt8(65 + number % 26)))
        return number < 26 ? letter : "\(letter)\(number / 26)"
    }

    private func colour(_ outcome: ScheduleChart.Outcome) -> String {
        outcome.isAllowed ? Self.colours[number(outcome) % Self.colours.count] : Self.forbidden
    }
}
