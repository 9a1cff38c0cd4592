// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Looks up the topics of `minivmm explain`.
public enum Library {
    /// The result of a lookup.
    public enum Answer: Sendable {
        /// The topics with that name, one for each ``Kind`` that has it; or the list of names of a kind.
        case found([Explanation])
        /// No topic has this name. `near` has similar names, the most similar first; it may be empty.
        case unknown(String, near: [String])
        /// The words or arguments are not valid. The text says why.
        case misused(String)
    }

    /// Looks up the topic that the words of a command line name.
    ///
    /// - Parameters:
    ///   - words: a kind, a name, or a kind and a name; for an exit or an errno followed by arguments such as
    ///     `offset=0`.
    ///   - version: the version whose validation table explains an errno.
    public static func answer(_ words: [String], version: InterfaceVersion = .linux74) -> Answer {
        let isArgument = { (word: String) in word.contains("=") }
        let names = words.filter { !isArgument($0) }
        let arguments = words.filter(isArgument).map { word -> (String, String) in
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (String(parts[0]), parts.count > 1 ? String(parts[1]) : "")
        }
        guard let first = names.first else {
            return .misused("what is it that has these arguments? For instance: errno EAGAIN offset=0")
        }
        let kind = kind(named: first)
        guard names.count <= (kind == nil ? 1 : 2) else {
            return .misused("\(names.joined(separator: " ")): one thing at a time, after its kind if need be")
        }
        guard let kind else { return look(up: first, in: nil, arguments, version) }
        // A kind by itself lists what there is of it; its word may be the name of something as well.
        guard names.count == 2 else {
            if kind == .errno, !arguments.isEmpty {
                return .misused(
                    "errno: which one? For instance: errno EAGAIN \(words.filter(isArgument).joined(separator: " "))"
                )
            }
            return .found([list(kind)])
        }
        return look(up: names[1], in: kind, arguments, version)
    }

    private static func kind(named word: String) -> Kind? {
        switch word.lowercased() {
        case "cap": .capability
        case "ioctl", "uapi", "name": .call
        case "trace": .event
        case "abi": .version
        case "content", "policy": .contents
        case let word: Kind(rawValue: word)
        }
    }

    private static func look(
        up word: String, in kind: Kind?, _ arguments: [(String, String)], _ version: InterfaceVersion
    ) -> Answer {
        let kinds = kind.map { [$0] } ?? Kind.allCases
        var found: [Explanation] = []
        var takesArguments = false
        for kind in kinds {
            switch kind {
            case .exit:
                guard let exit = ExitText.named(word) else { continue }
                takesArguments = true
                var taken = ExitArguments()
                for (key, value) in arguments {
                    if let problem = taken.take(key, value) { return .misused(problem) }
                }
                found.append(exit.explanation(taken))
            case .errno:
                guard let errno = self.errno(word, chosen: kinds.count == 1) else { continue }
                takesArguments = true
                var taken = ConversionArguments()
                for (key, value) in arguments {
                    if let problem = taken.take(key, value) { return .misused(problem) }
                }
                found.append(ErrnoExplanation(errno: errno, call: taken, version: version).explanation)
            case .status where kinds.count > 1 && !Statuses.isCommon(word): continue
            default: found += plain(word, kind).map { [$0] } ?? []
            }
        }
        guard !found.isEmpty else { return .unknown(word, near: near(word, kind)) }
        guard arguments.isEmpty || takesArguments else {
            return .misused("\(word) has no arguments; an exit and an errno have some")
        }
        return .found(found)
    }

    /// A bare number is an errno only where a call that is explained here answers it.
    private static func errno(_ word: String, chosen: Bool) -> Errno? {
        guard let errno = Errno(word: word) else { return nil }
        return chosen || CallErrors.answers(errno) || Words.number(word) == nil ? errno : nil
    }

    private static func plain(_ word: String, _ kind: Kind) -> Explanation? {
        switch kind {
        case .exit, .errno: nil
        case .capability: CapabilityText.explanation(word)
        case .hazard: Hazard.named(word)?.explanation
        case .state: States.named(word)
        case .contents: Contents.named(word)
        case .call: Calls.named(word)
        case .status: Statuses.explanation(word)
        case .event: EventTexts.explanation(word)
        case .version: InterfaceVersion(rawValue: word.lowercased())?.explanation
        }
    }

    /// The names of all topics of a kind, as ``answer(_:version:)`` accepts them. For ``Kind/errno`` only
    /// those that the conversion call returns, and `ok`.
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
        }
    }

    /// What there is of a kind.
    private static func list(_ kind: Kind) -> Explanation {
        Explanation(
            kind, kind.rawValue, "\(kind.rawValue): \(kind.what)",
            [(.see, names(kind).joined(separator: " "))])
    }

    private static func near(_ word: String, _ kind: Kind?) -> [String] {
        let kinds = kind.map { [$0] } ?? Kind.allCases
        let candidates = kinds.flatMap { kind -> [String] in
            let known = names(kind)
            let prefix = kind == .exit ? "KVM_EXIT_" : kind == .capability ? "KVM_CAP_" : nil
            return known + (prefix.map { prefix in known.map { prefix + $0 } } ?? [])
        }
        let kindNames = kind == nil ? Kind.allCases.map(\.rawValue) : []
        return NearWords.nearest(to: word, among: candidates + kindNames)
    }
}
