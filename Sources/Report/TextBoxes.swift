// SPDX-License-Identifier: MIT

/// The areas of a drawing that texts and signs cover, to place further texts where they overlap nothing.
///
/// Widths are estimates for the widest of the usual sans-serif fonts, because a drawing has no font metrics.
struct TextBoxes {
    struct Box {
        var left, top, right, bottom: Double

        func overlaps(_ other: Box) -> Bool {
            left < other.right && other.left < right && top < other.bottom && other.top < bottom
        }
    }

    /// The boxes by the horizontal bands of the drawing that they touch.
    private var boxes: [Int: [Box]] = [:]
    private static let bandHeight = 32.0

    /// The estimated width of a text in drawing units.
    static func width(_ text: String, size: Int, isBold: Bool = false) -> Double {
        Double(text.count * size) * (isBold ? 0.68 : 0.62)
    }

    /// The estimated box of a text that begins at `x` on the baseline `y`.
    static func box(_ text: String, _ x: Double, _ y: Double, size: Int, isBold: Bool = false) -> Box {
        let height = Double(size)
        return Box(
            left: x, top: y - 0.8 * height, right: x + width(text, size: size, isBold: isBold),
            bottom: y + 0.25 * height)
    }

    private func bands(_ box: Box) -> ClosedRange<Int> {
        Int((box.top / Self.bandHeight).rounded(.down))...Int((box.bottom / Self.bandHeight).rounded(.down))
    }

    mutating func add(_ box: Box) {
        for band in bands(box) { boxes[band, default: []].append(box) }
    }

    /// A box that overlaps the given one; nil if there is none.
    func obstacle(_ box: Box) -> Box? {
        for band in bands(box) {
            if let found = boxes[band]?.first(where: box.overlaps) { return found }
        }
        return nil
    }

    /// Moves a box to the right until it overlaps nothing, and adds it.
    ///
    /// - Returns: the left edge; nil if there is no room before `end`.
    mutating func place(_ box: Box, before end: Double) -> Double? {
        var box = box
        for _ in 0..<12 {
            guard box.right <= end else { return nil }
            guard let obstacle = obstacle(box) else {
                add(box)
                return box.left
            }
            let width = box.right - box.left
            box.left = obstacle.right + 3
            box.right = box.left + width
        }
        return nil
    }
}
