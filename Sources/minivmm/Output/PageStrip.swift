// SPDX-License-Identifier: MIT
import MiniVMM

/// A row of cells that shows the state of pages. Each state has its own sign; colour repeats it.
struct PageStrip {
    let terminal: Terminal

    private func sign(_ cell: Cell) -> (String, Terminal.Style) {
        switch cell {
        case .private: (terminal.unicode ? "■" : "P", .private)
        case .shared: (terminal.unicode ? "□" : "s", .shared)
        case .mixed: (terminal.unicode ? "◧" : "m", .bold)
        case .held: (terminal.unicode ? "◆" : "H", .held)
        }
    }

    private enum Cell { case `private`, shared, mixed, held }

    /// The meaning of the signs, on one line.
    var legend: String { legendParts.map(\.text).joined(separator: "   ") }

    /// Prints the meaning of the signs, folded to the width.
    func printLegend(indent: Int = 0) {
        let margin = String(repeating: " ", count: indent)
        var line = margin
        var used = indent
        for (text, width) in legendParts {
            if used > indent, used + 3 + width > terminal.width {
                terminal.print(line)
                line = margin
                used = indent
            }
            line += (used > indent ? "   " : "") + text
            used += (used > indent ? 3 : 0) + width
        }
        terminal.print(line)
    }

    private var legendParts: [(text: String, width: Int)] {
        [
            (Cell.private, "private"), (.shared, "shared"), (.mixed, "some of each"),
            (.held, "held by the host"),
        ]
        .map { cell, text in
            let (sign, style) = sign(cell)
            return (terminal.styled(sign, style) + " " + text, text.count + 2)
        }
    }

    /// The pages of `range` in at most `width` cells. A cell stands for a power of two of pages.
    func draw(_ map: AttributeMap, _ range: PageRange, held: [PageRange], width: Int) -> String {
        var pagesPerCell: UInt64 = 1
        while range.pageCount > UInt64(max(1, width)) * pagesPerCell { pagesPerCell *= 2 }
        return range.chunks(of: pagesPerCell * pageSize).map { part in
            let cell: Cell =
                if held.contains(where: { $0.intersection(part) != nil }) {
                    .held
                } else {
                    switch map.uniformValue(of: part) {
                    case .private: .private
                    case .shared: .shared
                    case nil: .mixed
                    }
                }
            let (sign, style) = sign(cell)
            return terminal.styled(sign, style)
        }.joined()
    }
}
