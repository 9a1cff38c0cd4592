// SPDX-License-Identifier: MIT
/// Reads the console of one boot: the test that is running, and the kernel's reports during it.
public struct BootLog: Sendable {
    /// A test, as it was announced.
    public struct Test: Sendable, Hashable {
        /// Its number in the exploration, from 1; nil for a probe and outside of explorations.
        public let number: Int?
        /// The kind of step or machine whose support it finds out; nil for another test.
        public let probed: String?
        /// Its text in the language of litmus tests.
        public let text: String
    }

    /// An event that a line of the console reports.
    public enum Event: Sendable, Hashable {
        /// A test begins.
        case began(Test)
        /// The kernel differs from the model in this test.
        case differed(text: String)
        /// The kernel has printed a report while this test ran; nil before the first one.
        case reported(KernelReport, during: Test?)
    }

    /// The test that was announced last; nil before the first.
    public private(set) var running: Test?
    /// The last lines of the kernel, without time stamps and announcements.
    public private(set) var lastLines: [String] = []

    private var announcements = AnnouncementReader()
    private var parser = KernelReportParser()

    /// The log of a boot that has printed nothing.
    public init() {}

    /// Reads one line.
    ///
    /// - Parameter line: of the console, without its line end. Lines without a time stamp are not the kernel's, and ignored.
    public mutating func add(_ line: Substring) -> [Event] {
        guard let message = Self.message(of: line) else { return [] }
        let (isPart, announcement) = announcements.add(message)
        guard isPart else {
            lastLines.append(String(message))
            if lastLines.count > KernelReport.mostLines { lastLines.removeFirst() }
            return parser.add(message).map { [.reported($0, during: running)] } ?? []
        }
        // A report of the test before ends here, at the latest.
        var events: [Event] = parser.finish().map { [.reported($0, during: running)] } ?? []
        switch announcement {
        case .test(let number, let text): events.append(begin(Test(number: number, probed: nil, text: text)))
        case .probe(let step, let text): events.append(begin(Test(number: nil, probed: step, text: text)))
        case .difference(let text): events.append(.differed(text: text))
        case nil: break
        }
        return events
    }

    private mutating func begin(_ test: Test) -> Event {
        running = test
        return .began(test)
    }

    /// The report under way, at the end of the boot.
    public mutating func finish() -> KernelReport? { parser.finish() }

    /// The message of a line `[    1.234567] MESSAGE`, with or without the caller `[    T71]`. Nil for any other line.
    private static func message(of line: Substring) -> Substring? {
        guard var message = afterBracket(line, { $0.contains(".") && Double($0) != nil }) else { return nil }
        if let rest = afterBracket(message, { $0.first == "T" || $0.first == "C" }) { message = rest }
        return message
    }

    /// The rest of a line after `[TEXT] ` if TEXT, without leading spaces, is accepted; otherwise nil.
    private static func afterBracket(_ line: Substring, _ accepts: (Substring) -> Bool) -> Substring? {
        guard line.first == "[", let end = line.firstIndex(of: "]") else { return nil }
        guard accepts(line[..<end].dropFirst().drop { $0 == " " }) else { return nil }
        let rest = line[line.index(after: end)...]
        return rest.first == " " ? rest.dropFirst() : rest
    }
}
