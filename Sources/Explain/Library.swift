// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Looks up the topics of `minivmm explain`.
public enum Library {
    /// The result of a lookup.
    public enum Answer: Sendable {
        /// The topics that were named, or the list of names of a kind.
        case found([Explanation])
        /// No topic has this name. `near` has similar names, the most similar first; it may be empty.
        case unknown(String, near: [String])
        /// The words name topics, but the arguments are not valid. The text states the reason.
        case misused(String)
    }

    /// Looks up what the words of a command line name: one or several topics, or a line of a program's output.
    ///
    /// - Parameters:
    ///   - words: names, each optionally after its kind; `key=value` arguments of an exit, an errno or a call; or a line of
    ///     a log, in one word or in several.
    ///   - version: the version whose validation table explains an errno.
    public static func answer(_ words: [String], version: InterfaceVersion = .linux74) -> Answer {
        let line = words.joined(separator: " ")
        let split = line.prefix(LogLine.maximumBytes).split(whereSeparator: \.isWhitespace).map(String.init)
        guard !split.isEmpty else { return .unknown("", near: []) }
        let answer = Query(split, version: version).answer
        guard case .unknown = answer else { return answer }
        // A single word without punctuation is a typing error and not a line.
        guard split.count > 1 || split[0].contains(where: { "(){}[]<>:\",".contains($0) }) else {
            return answer
        }
        let found = explanations(ofLine: line, version: version)
        return found.isEmpty ? answer : .found(found)
    }

    /// Explains a line of a log or of another program's output: a trace of this program, strace, QEMU, a Rust VMM, the
    /// kernel's log.
    ///
    /// - Returns: the topics of the line, the most specific first; empty if it is not recognised.
    public static func explanations(
        ofLine line: String, version: InterfaceVersion = .linux74
    ) -> [Explanation] {
        LogReader(line: LogLine(line), version: version).explanations
    }

    /// The names of all topics of a kind, as ``answer(_:version:)`` accepts them. For ``Kind/errno`` only the errnos of
    /// the conversion call, and `ok`.
    public static func names(_ kind: Kind) -> [String] {
        switch kind {
        case .exit: ExitText.all.map(\.name)
        case .errno:
            ConversionRow.allCases.compactMap { $0.errno?.name }.removingRepetitions + ["EOPNOTSUPP", "ok"]
        case .capability: CapabilityText.all.map(\.name)
        case .hazard: Hazard.all.map(\.id)
        case .state: States.all.map(\.name)
        case .contents: Contents.all.map(\.name)
        case .call: Calls.all.map(\.name)
        case .status: Statuses.names
        case .event: EventTexts.names
        case .version: InterfaceVersion.allCases.map(\.rawValue)
        case .message: Messages.all.map(\.name)
        case .term: Glossary.all.map(\.name)
        }
    }

    /// The topic that lists the names of a kind.
    static func list(_ kind: Kind) -> Explanation {
        Explanation(
            kind, kind.rawValue, "\(kind.rawValue): \(kind.what)",
            [(.see, names(kind).joined(separator: ", "))])
    }

    /// The names that are most similar to a word, of a kind or of all.
    static func near(_ word: String, _ kind: Kind?) -> [String] {
        let kinds = kind.map { [$0] } ?? Kind.allCases
        let candidates = kinds.flatMap { kind -> [String] in
            let known = names(kind)
            let prefix = kind == .exit ? "KVM_EXIT_" : kind == .capability ? "KVM_CAP_" : nil
            return known + (prefix.map { prefix in known.map { prefix + $0 } } ?? [])
        }
        let kindNames = kind == nil ? Kind.allCases.map(\.rawValue) : []
        // A word that is much longer than every name resembles none.
        return NearWords.nearest(to: String(word.prefix(128)), among: candidates + kindNames)
    }
}
