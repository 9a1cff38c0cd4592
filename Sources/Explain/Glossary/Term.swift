// SPDX-License-Identifier: MIT
import MiniVMM

/// A term of the field, as this project uses it.
public struct Term: Sendable {
    /// The term as prose spells it.
    public let name: String
    /// Other words for it: abbreviations, long forms, inflections.
    public let synonyms: [String]
    /// One or two sentences, in plain text.
    public let means: String
    /// A document of this repository that has more, from the root, and its title.
    public let document: (title: String, path: String)
    /// Words for `minivmm explain` that have more; empty if there are none.
    public let topics: [String]

    init(
        _ name: String, _ synonyms: [String] = [], _ document: Document, _ means: String,
        topics: [String] = []
    ) {
        self.name = name
        self.synonyms = synonyms
        self.means = means
        self.document = (document.title, document.rawValue)
        self.topics = topics
    }

    /// The documents that terms refer to. The raw value is the path.
    enum Document: String {
        case interface = "docs/ABI.md"
        case confidential = "docs/CONFIDENTIAL.md"
        case litmus = "litmus/README.md"
        case guests = "guest/README.md"
        case trace = "docs/trace.md"
        case hostile = "docs/hostile-guests.md"
        case lecture = "docs/lecture.md"
        case run = "docs/run.md"
        case backends = "docs/backends.md"
        case explore = "docs/explore.md"
        case architecture = "docs/architecture.md"
        case history = "Sources/MiniVMM/MiniVMM.docc/TheInterfacesHistory.md"

        var title: String {
            switch self {
            case .interface: "The kernel interface"
            case .confidential: "SNP and TDX"
            case .litmus: "Litmus tests"
            case .guests: "Writing a guest"
            case .trace: "The trace"
            case .hostile: "Hostile guests"
            case .lecture: "The lecture"
            case .run: "Run guests"
            case .backends: "Backends"
            case .explore: "Explore"
            case .architecture: "Architecture"
            case .history: "The interface's history"
            }
        }
    }

    var explanation: Explanation {
        var text = Explanation(.term, name, name, [(.means, means)])
        if !topics.isEmpty { text.add(.see, topics.map { "minivmm explain \($0)" }.joined(separator: "; ")) }
        text.add(.see, document.path)
        return text
    }
}

/// The terms of the field. `docs/GLOSSARY.md` is ``markdown``.
public enum Glossary {
    /// All terms in alphabetical order.
    public static let all: [Term] = (memory + conversions + virtualisation + vendors + statuses + tests)
        .sorted {
            ($0.name.lowercased(), $0.name) < ($1.name.lowercased(), $1.name)
        }

    private static let byWord: [String: Term] = {
        var table: [String: Term] = [:]
        // A name comes before another term's synonym.
        for term in all { table[key(term.name)] = term }
        for term in all {
            for word in term.synonyms where table[key(word)] == nil { table[key(word)] = term }
        }
        return table
    }()

    private static func key(_ word: some StringProtocol) -> String {
        String(NearWords.folded(word).map { $0 == " " ? "_" : $0 })
    }

    /// The term with this name or synonym, in upper or lower case; blanks, `-` and `_` are the same. Also the plural.
    public static func term(_ word: String) -> Term? {
        guard word.utf8.count <= 64 else { return nil }
        let typed = key(word)
        return byWord[typed]
            ?? (typed.hasSuffix("s") && typed.count > 3 ? byWord[String(typed.dropLast())] : nil)
    }

    /// The document: every term with its meaning and a link.
    public static var markdown: String {
        var text = """
            # Glossary

            The terms of the field that this project uses. `minivmm explain WORD` explains each of them, and more: exits, errnos,
            hazards, calls. The source of this page is `Sources/Explain/Glossary`; `make glossary` writes it.


            """
        for term in all {
            let also = term.synonyms.isEmpty ? "" : " (\(term.synonyms.joined(separator: ", ")))"
            let path = term.document.path
            let link = path.hasPrefix("docs/") ? String(path.dropFirst(5)) : "../" + path
            let prose = "**\(term.name)**\(also): \(term.means) [\(term.document.title)](\(link))"
            text += wrapped(prose) + "\n\n"
        }
        text.removeLast()
        return text
    }

    /// Breaks a paragraph at blanks, at 120 columns. A link stays on one line.
    private static func wrapped(_ prose: String) -> String {
        var lines = [""]
        var words: [String] = []
        for word in prose.split(separator: " ").map(String.init) {
            if let last = words.last, last.hasPrefix("["), !last.contains("](") {
                words[words.count - 1] = last + " " + word
            } else {
                words.append(word)
            }
        }
        for word in words {
            let line = lines[lines.count - 1]
            if line.isEmpty {
                lines[lines.count - 1] = word
            } else if line.count + 1 + word.count > 120 {
                lines.append(word)
            } else {
                lines[lines.count - 1] = line + " " + word
            }
        }
        return lines.joined(separator: "\n")
    }
}
