// SPDX-License-Identifier: MIT
import MiniVMM

/// The elements of drawings.
enum SVGElement {
    /// The colour of text.
    static let ink = "#15181e"
    /// The colour of remarks.
    static let soft = "#59606c"
    /// The colour of failures.
    static let bad = "#c2280f"

    /// One decimal is finer than a pixel.
    static func round(_ value: Double) -> Double { (value * 10).rounded() / 10 }

    static func rect(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ fill: String, stroke: Bool = false,
        to out: inout OutputBuffer
    ) {
        out.append(
            "<rect x=\"\(round(x))\" y=\"\(round(y))\" width=\"\(round(width))\" height=\"\(round(height))\" fill=\"\(fill)\""
        )
        out.append(stroke ? " stroke=\"#15181e\" stroke-width=\".8\"/>" : "/>")
        out.endLine()
    }

    static func text(
        _ x: Double, _ y: Double, _ text: String, size: Int = 13, weight: String = "normal",
        anchor: String = "start", fill: String = ink, hasOutline: Bool = false, to out: inout OutputBuffer
    ) {
        out.append(
            "<text x=\"\(round(x))\" y=\"\(round(y))\" font-size=\"\(size)\" font-weight=\"\(weight)\" text-anchor=\"\(anchor)\" fill=\"\(fill)\""
        )
        out.append(hasOutline ? " stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\">" : ">")
        out.append(markup: text)
        out.append("</text>")
        out.endLine()
    }
}
