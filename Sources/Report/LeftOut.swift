import MiniVMM

/// The events of a long trace that are not kept, and what became of the pages meanwhile.
struct LeftOut: Sendable {
    /// Bytes that guest-physical memory may have: what is above is not followed.
    private static let most: UInt64 = 1 << 52
    /// Ranges of pages that are told of at most.
    static let mostRanges = 20_000

    private(set) var count = 0
    private(set) var firstTime: UInt64 = 0
    private(set) var lastTime: UInt64 = 0
    private var states = AttributeMap(size: most, initial: .shared)
    /// Pages that something happened to (`private` stands for yes).
    private var changed = AttributeMap(size: most, initial: .shared)

    /// Takes the fields of an event.
    mutating func take(_ fields: [LineScanner.Field], in line: [UInt8]) {
        func number(_ key: StaticString) -> UInt64? {
            fields.first { $0.type != .text && $0.keyIs(key, in: line) }.map { UInt64(bitPattern: $0.bits) }
        }
        func has(_ key: StaticString, _ text: StaticString) -> Bool {
            fields.contains { $0.type == .text && $0.keyIs(key, in: line) && $0.textIs(text, in: line) }
        }
        let time = number("t") ?? lastTime
        if count == 0 { firstTime = time }
        lastTime = time
        count += 1
        if has("event", "boot") {
            set(0, number("ram_bytes"), .shared)
        } else if has("event", "file") {
            set(number("gpa"), number("size"), has("state", "private") ? .private : .shared)
        } else if has("event", "set-memory-attributes2"), number("errno") == 0 {
            let start = number("gpa") ?? number("offset")
            set(start, number("size"), has("target", "private") ? .private : .shared)
        }
    }

    private mutating func set(_ start: UInt64?, _ size: UInt64?, _ state: PageState) {
        guard let start, let size, let range = PageRange.covering(start: start, size: size),
            range.end <= Self.most
        else { return }
        states.set(range, to: state)
        changed.set(range, to: .private)
    }

    /// What the pages are that something happened to, in order, until the body says that it is enough.
    func forEachRange(_ body: (PageRange, PageState) -> Bool) {
        guard let all = PageRange(start: 0, size: Self.most) else { return }
        for (range, isChanged) in changed.runs(in: all) where isChanged == .private {
            for (part, state) in states.runs(in: range) where !body(part, state) { return }
        }
    }
}
