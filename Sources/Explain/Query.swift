// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// The words of a command line: names of topics and arguments.
struct Query {
    private let names: [String]
    private let arguments: [(key: String, value: String)]
    private let version: InterfaceVersion

    /// A topic that was named, before its arguments are applied.
    private enum Topic {
        case plain(Explanation)
        case exit(ExitText)
        case errno(Errno)
    }

    /// More words are not looked at: the line is then text and no list of names.
    private static let maximumWords = 64
    /// A name has at most so many words.
    private static let maximumPhrase = 4

    init(_ words: [String], version: InterfaceVersion) {
        let words = words.prefix(Self.maximumWords)
        names = words.filter { !$0.contains("=") }
        arguments = words.filter { $0.contains("=") }.map { word in
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (String(parts[0]), parts.count > 1 ? String(parts[1]) : "")
        }
        self.version = version
    }

    var answer: Library.Answer {
        if names.isEmpty { return callAlone }
        switch topics {
        case .failure(let unknown): return unknown.answer
        case .success(let topics): return explain(topics)
        }
    }

    // MARK: names

    private struct Unknown: Error {
        let answer: Library.Answer
        init(_ answer: Library.Answer) { self.answer = answer }
    }

    private static let kindsByWord: [String: Kind] = [
        "cap": .capability, "ioctl": .call, "syscall": .call, "uapi": .call, "name": .call, "trace": .event,
        "abi": .version, "content": .contents, "policy": .contents, "glossary": .term, "word": .term,
    ]

    private static func kind(named word: String) -> Kind? {
        let folded = word.lowercased()
        return Kind(rawValue: folded) ?? kindsByWord[folded]
    }

    /// Words of a question that name nothing.
    private static let fillers: Set<String> = [
        "a", "about", "an", "and", "are", "by", "can", "do", "does", "explain", "for", "from", "get", "how",
        "i", "in", "is",
        "it", "mean", "means", "my", "of", "on", "or", "the", "to", "vs", "versus", "what", "whats", "what's",
        "when", "why",
        "with",
    ]

    private static let punctuation: Set<Character> = ["?", ",", ";", "!", ":", "\"", "'", "`"]

    /// The name without the punctuation of a sentence.
    private static func bare(_ word: String) -> String {
        var bare = word[...]
        while let last = bare.last, punctuation.contains(last) { bare.removeLast() }
        while let first = bare.first, punctuation.contains(first) { bare.removeFirst() }
        return String(bare)
    }

    private var topics: Result<[Topic], Unknown> {
        let words = names.map(Self.bare).filter { !$0.isEmpty }
        var found: [Topic] = []
        var index = 0
        while index < words.count {
            if let kind = Self.kind(named: words[index]) {
                let rest = words[(index + 1)...]
                if let (topics, count) = longest(rest, in: kind) {
                    found += topics
                    index += 1 + count
                    continue
                }
                // `content policy` is a term although `content` is a kind.
                if let (topics, count) = longest(words[index...], in: nil), count > 1 {
                    found += topics
                    index += count
                    continue
                }
                guard rest.isEmpty || topic(rest.first, in: nil) != nil else {
                    return .failure(
                        Unknown(.unknown(words[index + 1], near: Library.near(words[index + 1], kind))))
                }
                if kind == .errno, rest.isEmpty, !arguments.isEmpty {
                    return .failure(Unknown(.misused(Self.noErrno)))
                }
                found.append(.plain(Library.list(kind)))
                index += 1
                continue
            }
            if let (topics, count) = longest(words[index...], in: nil) {
                found += topics
                index += count
                continue
            }
            guard words.count > 1, Self.fillers.contains(words[index].lowercased()) else {
                return .failure(Unknown(.unknown(words[index], near: Library.near(words[index], nil))))
            }
            index += 1
        }
        guard !found.isEmpty else {
            return .failure(Unknown(.unknown(names.joined(separator: " "), near: [])))
        }
        return .success(found)
    }

    private static let noErrno =
        "errno needs a name before its arguments, for example: errno EAGAIN offset=0 size=4096"

    private func topic(_ word: String?, in kind: Kind?) -> [Topic]? {
        guard let word else { return nil }
        let found = lookUp(word, in: kind)
        return found.isEmpty ? nil : found
    }

    /// The longest name that the words begin with.
    private func longest(_ words: ArraySlice<String>, in kind: Kind?) -> (topics: [Topic], count: Int)? {
        for count in stride(from: min(Self.maximumPhrase, words.count), through: 1, by: -1) {
            let phrase = words.prefix(count).joined(separator: "_")
            if let topics = topic(phrase, in: kind) { return (topics, count) }
        }
        return nil
    }

    /// No name of a topic is longer. Pasted text may be a megabyte.
    private static let maximumBytes = 128

    private func lookUp(_ word: String, in kind: Kind?) -> [Topic] {
        guard word.utf8.count <= Self.maximumBytes else { return [] }
        let kinds = kind.map { [$0] } ?? Kind.allCases
        var found: [Topic] = []
        for candidate in kinds {
            switch candidate {
            case .exit: if let exit = ExitText.named(word) { found.append(.exit(exit)) }
            case .errno:
                if let errno = Self.errno(word, chosen: kind != nil) { found.append(.errno(errno)) }
            case .status where kind == nil && !Statuses.isCommon(word): break
            // Another topic has more than the glossary.
            case .term where kind == nil && !found.isEmpty: break
            default: if let text = Self.plain(word, candidate) { found.append(.plain(text)) }
            }
        }
        return found
    }

    /// Without its kind a number is an errno only if a call that is explained here returns it.
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
        case .message: Messages.named(word)
        case .term: Glossary.term(word)?.explanation
        }
    }

    // MARK: arguments

    /// `call=KVM_RUN errno=EFAULT`, without a name.
    private var callAlone: Library.Answer {
        let named = arguments.first { NearWords.folded($0.key) == "errno" }.map(\.value)
        guard let word = named, arguments.contains(where: { NearWords.folded($0.key) == "call" }) else {
            if arguments.count == 1, NearWords.folded(arguments[0].key) == "call" {
                let name = arguments[0].value
                return Calls.named(name).map { .found([$0]) } ?? .misused(Self.noCall(name))
            }
            return .misused(
                "these arguments need a name before them, for example: errno EAGAIN offset=0 size=4096")
        }
        guard let errno = Errno(word: word) else { return .misused("errno=\(word) is not an errno") }
        let others = arguments.filter { NearWords.folded($0.key) != "errno" }
        return explain([.errno(errno)], others)
    }

    private static func noCall(_ name: String) -> String {
        "call=\(name) is not a call that explain has an entry for\(NearWords.suggestion(for: name, among: CallErrno.names))"
    }

    private func explain(_ topics: [Topic]) -> Library.Answer {
        // `KVM_RUN EFAULT` is the errno of that call and not two topics.
        if arguments.isEmpty, topics.count == 2, let pair = Self.pair(topics) {
            return explain([.errno(pair.errno)], [("call", pair.call)])
        }
        return explain(topics, arguments)
    }

    private static func pair(_ topics: [Topic]) -> (call: String, errno: Errno)? {
        var (call, errno): (String?, Errno?) = (nil, nil)
        for topic in topics {
            switch topic {
            case .plain(let text) where text.kind == .call: call = CallErrno.canonicalName(text.name)
            case .errno(let known): errno = known
            default: return nil
            }
        }
        guard let call, let errno else { return nil }
        return (call, errno)
    }

    private func explain(_ topics: [Topic], _ arguments: [(key: String, value: String)]) -> Library.Answer {
        var found: [Explanation] = []
        var isTaken = arguments.isEmpty
        for topic in topics {
            switch topic {
            case .plain(let text): found.append(text)
            case .exit(let exit):
                var taken = ExitArguments()
                for (key, value) in arguments {
                    if let problem = taken.take(key, value, of: exit) { return .misused(problem) }
                }
                isTaken = true
                found.append(exit.explanation(taken))
            case .errno(let errno):
                switch Self.errno(errno, arguments, version) {
                case .success(let text): found.append(text)
                case .failure(let refused): return refused.answer
                }
                isTaken = true
            }
        }
        guard isTaken else {
            return .misused(
                "\(names.joined(separator: " ")) takes no arguments; only an exit and an errno do")
        }
        return .found(found.removingRepetitions)
    }

    private static func errno(
        _ errno: Errno, _ arguments: [(key: String, value: String)], _ version: InterfaceVersion
    ) -> Result<Explanation, Unknown> {
        var others = arguments
        var call: String?
        if let index = others.firstIndex(where: { NearWords.folded($0.key) == "call" }) {
            let name = others.remove(at: index).value
            guard let known = CallErrno.canonicalName(name) else {
                return .failure(Unknown(.misused(noCall(name))))
            }
            call = known
        }
        guard let call, call != "KVM_SET_MEMORY_ATTRIBUTES2" else {
            var taken = ConversionArguments()
            for (key, value) in others {
                if let problem = taken.take(key, value) { return .failure(Unknown(.misused(problem))) }
            }
            return .success(
                ErrnoExplanation(errno: errno, call: taken, version: version, isNamed: call != nil)
                    .explanation)
        }
        var text = CallErrno(call: call, errno: errno)
        for (key, value) in others {
            guard call.hasPrefix("KVM_SET_USER_MEMORY_REGION") else {
                return .failure(Unknown(.misused("\(key)=: explain uses no arguments of \(call)")))
            }
            if let problem = text.slot.take(key, value) { return .failure(Unknown(.misused(problem))) }
        }
        return .success(text.explanation)
    }
}
