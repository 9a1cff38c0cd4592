// SPDX-License-Identifier: MIT
/// What guests print, one exit for each letter, joined into lines.
///
/// A line belongs to one actor, and stands where its last letter does. It ends with a newline, after 256 letters, or
/// when its actor does something else; what other actors do meanwhile does not matter. Text trace, page and drawing
/// all join by this rule and so have the same lines.
public struct ConsoleLines<Writer: Hashable & Sendable>: Sendable {
    /// A line that has ended.
    public struct Line: Sendable {
        /// The one that printed all of its letters.
        public let actor: Writer
        /// Of the last letter.
        public fileprivate(set) var time: UInt64
        fileprivate var letters: [UInt8] = []
        /// Letters, the newline included: each was one exit.
        public fileprivate(set) var exits = 0
        /// Without its newline.
        public var text: String { String(decoding: letters, as: UTF8.self) }
    }

    private static var longest: Int { 256 }
    /// The lines that have begun: one for each actor at most, in the order in which they began.
    private var open: [Line] = []

    /// No line has begun.
    public init() {}

    /// Whether an `out` prints a letter.
    public static func isLetter(port: UInt64, size: UInt64) -> Bool {
        size == 1 && (port == UInt64(Console.serialPort) || port == UInt64(Console.debugPort))
    }

    /// - Returns: the line, if the letter ends it.
    public mutating func print(_ letter: UInt8, by actor: Writer, time: UInt64) -> Line? {
        let index = open.firstIndex { $0.actor == actor } ?? open.endIndex
        if index == open.endIndex { open.append(Line(actor: actor, time: time)) }
        open[index].time = time
        open[index].exits += 1
        if letter != 10 { open[index].letters.append(letter) }
        return letter == 10 || open[index].exits >= Self.longest ? open.remove(at: index) : nil
    }

    /// The actor does something else.
    ///
    /// - Returns: the line that this ends.
    public mutating func end(of actor: Writer) -> Line? {
        guard let index = open.firstIndex(where: { $0.actor == actor }) else { return nil }
        return open.remove(at: index)
    }

    /// The trace ends.
    public mutating func endAll() -> [Line] {
        defer { open.removeAll() }
        return open
    }
}

extension TraceEvent {
    /// The letter that the event prints.
    public var printedLetter: UInt8? {
        guard case .portOut(let port, let size, let value) = self,
            ConsoleLines<Actor>.isLetter(port: UInt64(port), size: UInt64(size))
        else { return nil }
        return UInt8(truncatingIfNeeded: value)
    }
}
