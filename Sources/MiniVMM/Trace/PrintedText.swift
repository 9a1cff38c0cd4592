/// What guests print, one exit for each letter, taken together into lines.
public struct PrintedText: Sendable {
    /// A line, or the part of one that came before something else.
    public struct Line: Sendable {
        public let text: String
        public let exits: Int
        public let actor: Actor
        /// Of its first letter.
        public let time: UInt64
    }

    private var bytes: [UInt8] = []
    private var actor = Actor.host
    private var since: UInt64 = 0

    public init() {}

    /// Takes the event if it prints a letter.
    ///
    /// - Returns: whether it did, and the lines that ended.
    public mutating func take(_ event: TraceEvent, by actor: Actor, time: UInt64) -> (Bool, [Line]) {
        guard case .portOut(let port, 1, let value) = event, port == 0x3f8 || port == Console.debugPort else {
            return (false, end())
        }
        let ended = actor == self.actor ? [] : end()
        if bytes.isEmpty {
            self.actor = actor
            since = time
        }
        let byte = UInt8(truncatingIfNeeded: value)
        bytes.append(byte)
        return (true, byte == 10 || bytes.count >= 256 ? ended + end() : ended)
    }

    /// The line that has begun, if there is one.
    public mutating func end() -> [Line] {
        guard !bytes.isEmpty else { return [] }
        let letters = bytes.last == 10 ? bytes.dropLast() : bytes[...]
        defer { bytes.removeAll(keepingCapacity: true) }
        return [
            Line(
                text: String(decoding: letters, as: UTF8.self), exits: bytes.count, actor: actor, time: since)
        ]
    }
}
