// SPDX-License-Identifier: MIT
// Compares the results of two kernels for lab/compare.
//
//     comparison [--json] NAME-OF-A DIRECTORY-OF-A NAME-OF-B DIRECTORY-OF-B
//
// A directory has the results that minivmm printed in the lab: costs.json, litmus.json and explore.json, or some of these.
// Exit status: 0 the kernels are the same, 1 they differ, 64 usage error, 65 a file is missing or is not a result.
import FoundationEssentials
import Glibc

/// Prints why the program ends, and ends it.
func fail(_ status: Int32, _ text: String) -> Never {
    try? Output.write(text + "\n", to: 2)
    exit(status)
}

enum Output {
    struct Failure: Error {}

    /// Writes all of a text to a descriptor.
    static func write(_ text: String, to descriptor: Int32) throws(Failure) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let written = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.write(descriptor, $0.baseAddress, $0.count)
            }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { throw Failure() }
            bytes = bytes.dropFirst(written)
        }
    }
}

/// Reads a result; nil if there is no such file.
func read<Results: Decodable>(
    _ directory: String, _ name: String, _ type: Results.Type, schema: String, _ got: (Results) -> String
) -> Results? {
    let path = directory + "/" + name
    guard unsafe access(path, F_OK) == 0 else { return nil }
    let results: Results
    do {
        results = try JSONDecoder().decode(type, from: try Data(contentsOf: URL(filePath: path)))
    } catch {
        fail(65, "comparison: \(path) is not a result of minivmm: \(error)")
    }
    guard got(results) == schema else {
        fail(65, "comparison: \(path) has the schema \(got(results)), not \(schema)")
    }
    return results
}

func results(_ name: String, _ directory: String) -> KernelResults {
    KernelResults(
        name: name,
        costs: read(directory, "costs.json", CostResults.self, schema: "minivmm.costs/1", \.schema),
        litmus: read(directory, "litmus.json", LitmusResults.self, schema: "minivmm.litmus/1", \.schema),
        explore: read(directory, "explore.json", ExploreResults.self, schema: "minivmm.explore/1", \.schema))
}

var arguments = Array(CommandLine.arguments.dropFirst())
let isJSON = arguments.first == "--json"
if isJSON { arguments.removeFirst() }
guard arguments.count == 4 else {
    fail(64, "usage: comparison [--json] NAME-OF-A DIRECTORY-OF-A NAME-OF-B DIRECTORY-OF-B")
}
let a = results(arguments[0], arguments[1])
let b = results(arguments[2], arguments[3])
for (name, isThere) in [
    ("costs.json", (a.costs != nil, b.costs != nil)), ("litmus.json", (a.litmus != nil, b.litmus != nil)),
    ("explore.json", (a.explore != nil, b.explore != nil)),
] where isThere.0 != isThere.1 {
    fail(65, "comparison: \(name) exists in one of \(arguments[1]) and \(arguments[3]) only")
}
guard a.costs != nil || a.litmus != nil || a.explore != nil else {
    fail(65, "comparison: no results in \(arguments[1])")
}
let comparison = Comparison(a, b)
var text = comparison.lines.map { $0 + "\n" }.joined()
if isJSON {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    do { text = String(decoding: try encoder.encode(comparison), as: UTF8.self) + "\n" } catch {
        fail(65, "comparison: the result cannot be encoded: \(error)")
    }
}
do { try Output.write(text, to: 1) } catch { fail(73, "comparison: standard output cannot be written") }
exit(comparison.same ? 0 : 1)
