/// Something that a kernel answers and the model does not, made as small as it gets.
public struct Finding: Sendable {
    /// The smallest test that shows it; it says what the model comes to.
    public let source: Source
    /// What the kernel did instead.
    public let failure: Failure
    /// In how many of how many runs of it.
    public let seen: Int
    public let runs: Int
    /// The number of the test that showed it first, counted from 1, and how many steps that had.
    public let found: Int
    public let steps: Int
}

extension Failure {
    /// What kind of thing went wrong, without the numbers: two findings of one kind are one.
    var kind: String {
        func words(_ text: String) -> String {
            // `EAGAIN at 2` is EAGAIN, `0x41` a byte, `a = ok, b = SIGBUS` an outcome.
            if text.contains("=") { return "outcome" }
            let first = text.split(separator: " ").first.map(String.init) ?? ""
            return first.hasPrefix("0x") ? "byte" : first
        }
        let step = text.split(separator: " ").prefix(2).map { word in
            String(word.prefix { !$0.isNumber })
        }
        return (step + [words(expected), words(seen)]).joined(separator: " ")
    }

    /// What it is, in a line: the name of a test that shows it.
    var headline: String {
        let outcome = seen.split(separator: ", in ").first ?? ""
        let line = text == "parallel" ? "at once: \(outcome)" : "\(text): \(seen), and not \(expected)"
        return String(line.map { $0.isASCII && $0 != "\"" && $0 != "\\" ? $0 : "?" }.prefix(200))
    }
}
