// SPDX-License-Identifier: MIT
/// Joins a guest's output, one exit per letter, into lines.
///
/// A line belongs to one actor and has the time of its last letter. It ends with a newline, after 256 letters, or
/// when its actor does something else; events of other actors do not end it. Text trace, page and drawing all use this
/// rule and therefore have the same lines.
public struct ConsoleLines<Writer: Hashable & Sendable>: Sendable {
    /// A finished line.
    public struct Line: Sendable {
        /// The actor that printed all its letters.
        public let actor: Writer
        /// The time of the last letter.
        public fileprivate(set) var time: UInt64
        fileprivate var letters: [UInt8] = []
        /// The number of letters including the newline: each was one exit.
        public fileprivate(set) var exits = 0
        /// The text without its newline.
        public var text: String { String(decoding: letters, as: UTF8.self) }
    }

    private static var longest: Int { 256 }
    /// Unfinished lines, at most one per actor, in the order in which they began.
    private var open: [Line] = []

    /// Starts without any lines.
    public init() {}

    /// Whether an `out` prints a letter.
    public static func isLetter(port: UInt64, size: UInt64) -> Bool {
        size == 1 && (port == UInt64(Console.serialPort) || port == UInt64(Console.debugPort))
    }

    /// - Returns: the line if the letter ends it.
    public mutating func print(_ letter: UInt8, by actor: Writer, time: UInt64) -> Line? {
        let index = open.firstIndex { $0.actor == actor } ?? open.endIndex
        if index == open.endIndex { open.append(Line(actor: actor, time: time)) }
        open[index].time = time
        open[index].exits += 1
        if letter != 10 { open[index].letters.append(letter) }
        return letter == 10 || open[index].exits >= Self.longest ? open.remove(at: index) : nil
    }

    /// The actor has done something else.
    ///
    /// - Returns: the line that this ends.
    public mutating func end(of actor: Writer) -> Line? {
        guard let index = open.firstIndex(where: { $0.actor == actor }) else { return nil }
        return open.remove(at: index)
    }

    /// The trace has ended.
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
