// SPDX-License-Identifier: MIT
import ConversionModel

/// Choices from a seed: the same ones for the same seed, on every platform. None is made by the standard library, whose
/// algorithms may change.
struct Chance: Sendable {
    private var generator: SplitMix64

    init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    mutating func next() -> UInt64 { generator.next() }

    /// A number from 0 up to, but not including, `limit`; 0 if `limit` is not positive.
    mutating func below(_ limit: Int) -> Int {
        guard limit > 0 else { return 0 }
        return Int(truncatingIfNeeded: (next() >> 11) % UInt64(limit))
    }

    /// A number of a closed range.
    mutating func number(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + below(range.upperBound - range.lowerBound + 1)
    }

    mutating func isTrue(_ percent: Int) -> Bool { below(100) < percent }

    /// An element; nil if there is none.
    mutating func pick<Element>(_ elements: [Element]) -> Element? {
        elements.isEmpty ? nil : elements[below(elements.count)]
    }

    /// An element of two or more.
    mutating func pick<Element>(_ first: Element, _ others: Element...) -> Element {
        let place = below(others.count + 1)
        return place == 0 ? first : others[place - 1]
    }

    /// The elements in a random order (Fisher and Yates).
    mutating func shuffled<Element>(_ elements: [Element]) -> [Element] {
        var elements = elements
        var last = elements.count - 1
        while last > 0 {
            elements.swapAt(last, below(last + 1))
            last -= 1
        }
        return elements
    }

    /// A byte that is not 0, in hexadecimal.
    mutating func byte() -> String { hexByte(UInt8(number(0x11...0xee))) }
}

/// `0x0a`.
func hexByte(_ byte: UInt8) -> String {
    let digits: [Character] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f",
    ]
    return "0x" + String(digits[Int(byte >> 4)]) + String(digits[Int(byte & 15)])
}

extension String {
    /// The text with spaces behind it, at least one.
    func padded(to width: Int) -> String {
        self + String(repeating: " ", count: Swift.max(1, width - utf8.count))
    }
}
