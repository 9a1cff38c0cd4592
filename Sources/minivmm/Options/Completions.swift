// SPDX-License-Identifier: MIT
import ArgumentParser
import Explain
import GuestPayloads
import SoftKVM

/// Completions that the argument parser cannot generate.
extension CompletionKind {
    /// A built-in guest or a file.
    static var guest: CompletionKind {
        .custom { _, _, prefix in
            Catalogue.all.map(\.name).filter { $0.hasPrefix(prefix) } + Completions.files(prefix)
        }
    }

    /// The name of a planted fault. Computed only for a completion: a list of names would be computed at each start, in
    /// an eighth of the instructions of `run hello`.
    static var plantedFault: CompletionKind {
        .custom { _, _, prefix in PlantedFault.names.filter { $0.hasPrefix(prefix) } }
    }

    /// A kind followed by a name, or a name.
    static var explained: CompletionKind {
        .custom { words, index, prefix in
            let before = words.indices.contains(index - 1) ? words[index - 1] : ""
            // After a kind, the names of that kind.
            let names =
                Kind(rawValue: before).map(Library.names)
                ?? Kind.allCases.map(\.rawValue) + Kind.allCases.flatMap(Library.names)
            // A shell would split a name of several words, and take # for a comment.
            return Completions.once(
                names.filter { $0.hasPrefix(prefix) && !$0.contains(" ") && !$0.hasPrefix("#") })
        }
    }
}

enum Completions {
    /// Paths with this prefix; directories end in a slash.
    static func files(_ prefix: String) -> [String] {
        let cut = prefix.lastIndex(of: "/").map(prefix.index(after:)) ?? prefix.startIndex
        let (place, start) = (prefix[..<cut], prefix[cut...])
        // Hidden files are offered only if the prefix starts with a dot.
        return ((try? DirectoryListing.read(place.isEmpty ? "." : String(place))) ?? [])
            .filter { $0.name.hasPrefix(start) && (!$0.name.hasPrefix(".") || start.hasPrefix(".")) }
            .map { place + $0.name + ($0.isDirectory ? "/" : "") }
    }

    /// The words without repetitions.
    static func once(_ words: [String]) -> [String] {
        var seen: Set<String> = []
        return words.filter { seen.insert($0).inserted }
    }
}
