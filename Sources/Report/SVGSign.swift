// SPDX-License-Identifier: MIT
import MiniVMM

/// The signs of events as SVG paths, the same shapes as on the HTML page. Paths do not depend on fonts.
enum SVGSign {
    private static let bad: Set<EventKind> = [
        .busy, .failedCall, .notConverted, .refusedAccess, .failedEnd, .failedStep,
    ]
    /// The letters of the events that have no shape of their own. States use other letters.
    static func letter(_ kind: EventKind) -> String? {
        switch kind {
        case .access, .refusedAccess: "a"
        case .boot: "B"
        case .file: "F"
        case .exit: "e"
        case .guestPages: "g"
        case .port: "i"
        case .other: "?"
        default: nil
        }
    }

    static func draw(_ kind: EventKind, _ x: Double, _ y: Double, to out: inout OutputBuffer) {
        let colour = bad.contains(kind) ? "#c2280f" : kind == .hold ? "#9c2f83" : "#15181e"
        let r = 5.0
        func path(_ d: String, fill: Bool = false, width: Double = 1.8) {
            let place = "transform=\"translate(\(SVGElement.round(x)) \(SVGElement.round(y)))\""
            // A white outline separates the sign from the pattern below it.
            out.append(
                "<path d=\"\(d)\" \(place) fill=\"\(fill ? "#fff" : "none")\" stroke=\"#fff\" stroke-width=\"\(width + 2)\"/>"
            )
            out.append(
                "<path d=\"\(d)\" \(place) fill=\"\(fill ? colour : "none")\" stroke=\"\(colour)\" stroke-width=\"\(fill ? 0.6 : width)\"/>"
            )
        }
        func letter(_ text: String) {
            out.append(
                "<text x=\"\(SVGElement.round(x))\" y=\"\(SVGElement.round(y + 4))\" font-size=\"12\" font-weight=\"bold\" text-anchor=\"middle\" fill=\"\(colour)\" stroke=\"#fff\" stroke-width=\"2.5\" paint-order=\"stroke\">\(text)</text>"
            )
        }
        let triangle = "M0 -\(r)L\(r) 4L-\(r) 4Z"
        let cross = "M-4 -4L4 4M4 -4L-4 4"
        let circle = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z"
        let diamond = "M0 -6L5 0L0 6L-5 0Z"
        switch kind {
        case .fault: path(triangle, fill: true)
        case .race: path(triangle)
        case .ioctl: path(circle, fill: true)
        case .busy: path(cross, width: 2.4)
        case .failedCall:
            path(circle)
            path(cross, width: 1.4)
        case .notConverted:
            path("M-3.5 -5H0.5V5H-3.5", width: 2)
            path("M-5 4L5 -4", width: 2)
        case .hold: path(diamond, fill: true)
        case .release: path(diamond)
        case .ask:
            path(diamond)
            path("M-1 -1h2v2h-2Z", fill: true)
        case .punch: path(circle)
        case .hypercall: path("M0 5V-4M-4 0L0 -5L4 0")
        case .convert: path("M2.5 -5H-1.5V5H2.5")
        case .converted: path("M-2.5 -5H1.5V5H-2.5")
        case .resume: path("M-3.5 -5L4 0L-3.5 5Z")
        case .console: path("M-4 -3.5H4M-4 0H4M-4 3.5H4", width: 1.2)
        case .wait: path("M-5.5 -1h2v2h-2ZM-1 -1h2v2h-2ZM3.5 -1h2v2h-2Z", fill: true)
        case .end: path("M-4 -4H4V4H-4Z", fill: true)
        case .failedEnd: path("M-5 -5H5V5H-5ZM-5 5L5 -5", fill: true)
        case .failedStep: path("M-5 -5H5V5H-5ZM-3 -3L3 3M3 -3L-3 3")
        case .step: path("M-4 0L-1 4L5 -4", width: 2)
        case .access, .refusedAccess, .boot, .file, .exit, .port, .guestPages, .other:
            letter(Self.letter(kind) ?? "?")
            if kind == .refusedAccess { path("M-5 5L5 -5", width: 1.6) }
        }
    }
}
