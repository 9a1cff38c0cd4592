// SPDX-License-Identifier: MIT
/// Collects events into results. A function's result is returned when the function has ended.
struct Report {
    /// The result of a test function or of one of its cases.
    struct Result {
        var name: String
        /// Lines that describe the failures; empty if there are none.
        var failures: [String] = []
        var hasFailed = false
        /// The reason for skipping it; nil if it ran.
        var skipped: String?
        var cases: [Result] = []
    }

    /// Number of functions in the run.
    private(set) var planned = 0
    private(set) var hasEnded = false
    private(set) var passed = 0
    private(set) var failed = 0
    /// Number of skipped tests per reason.
    private(set) var skips: [String: Int] = [:]
    private var running: [String: Result] = [:]
    private var caseIndex: [String: Int] = [:]

    /// - Returns: the result of the function that ends with this record; nil if none does.
    mutating func add(_ record: Record) -> Result? {
        let payload = record.payload
        if record.kind == "test" {
            if payload.kind == "function", payload.id != nil { planned += 1 }
            return nil
        }
        if payload.kind == "runEnded" { hasEnded = true }
        guard let test = payload.testID, let name = Self.name(of: test) else { return nil }
        switch payload.kind {
        case "testCaseStarted":
            change(test, name) {
                $0.cases.append(Result(name: payload.testCase?.displayName ?? ""))
                return $0.cases.count - 1
            }.map { caseIndex[Self.key(test, payload.testCase)] = $0 }
        case "issueRecorded" where payload.issue?.isFailure != false:
            let lines = (payload.messages ?? []).map(\.text)
            let index = caseIndex[Self.key(test, payload.testCase)]
            change(test, name) { result in
                result.hasFailed = true
                if let index, result.cases.indices.contains(index) {
                    result.cases[index].hasFailed = true
                    result.cases[index].failures += lines
                } else {
                    result.failures += lines
                }
                return nil
            }
        case "testCaseCancelled", "testSkipped", "testCancelled":
            let reason =
                (payload.comments ?? payload.messages?.map(\.text))?.joined(separator: "; ").replacing(
                    "\n", with: " ") ?? ""
            let index = caseIndex[Self.key(test, payload.testCase)]
            change(test, name) { result in
                if let index, result.cases.indices.contains(index) {
                    result.cases[index].skipped = reason
                } else {
                    result.skipped = reason
                }
                return nil
            }
            if payload.kind == "testSkipped" { return end(test, name) }
        case "testEnded": return end(test, name)
        default: break
        }
        return nil
    }

    @discardableResult
    private mutating func change(
        _ test: String, _ name: String, _ body: (inout Result) -> Int?
    ) -> Int? {
        body(&running[test, default: Result(name: name)])
    }

    private mutating func end(_ test: String, _ name: String) -> Result {
        var result = running.removeValue(forKey: test) ?? Result(name: name)
        let parts = result.cases.isEmpty ? [result] : result.cases
        if result.skipped == nil, !result.hasFailed, let first = parts.first?.skipped,
            parts.allSatisfy({ $0.skipped != nil })
        {
            result.skipped = first
        }
        for part in parts {
            if part.hasFailed {
                failed += 1
            } else if let reason = part.skipped {
                skips[reason, default: 0] += 1
            } else {
                passed += 1
            }
        }
        // The failure was outside all cases.
        if result.hasFailed, !result.cases.isEmpty, !result.cases.contains(where: \.hasFailed) { failed += 1 }
        return result
    }

    private static func key(_ test: String, _ testCase: Record.TestCase?) -> String {
        "\(test)\n\(testCase?.id ?? "")"
    }

    /// Strips module and source location from `Module.Suite/function(_:)/File.swift:1:2`; nil for a suite.
    private static func name(of id: String) -> String? {
        let parts = id.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count >= 2, parts.last?.contains(".swift:") == true else { return nil }
        let suite = parts[0].split(separator: ".").dropFirst()
        return (suite + parts[1..<(parts.count - 1)]).joined(separator: ".")
    }
}
