// SPDX-License-Identifier: MIT
/// One line of Swift Testing's event stream (`--event-stream-output-path`, version 0). Only the keys used here.
struct Record: Decodable {
    /// `test` declares a test, `event` reports something about one.
    let kind: String
    let payload: Payload

    struct Payload: Decodable {
        let kind: String
        // Keys of a test.
        let id: String?
        let name: String?
        let testCases: [TestCase]?
        // Keys of an event.
        let testID: String?
        let testCase: TestCase?
        let messages: [Message]?
        let comments: [String]?
        let issue: Issue?

        enum CodingKeys: String, CodingKey {
            case kind, id, name, testID, messages, issue
            case testCases = "_testCases"
            case testCase = "_testCase"
            case comments = "_comments"
        }
    }

    struct TestCase: Decodable {
        let id: String
        let displayName: String
    }

    struct Message: Decodable {
        let symbol: String
        let text: String
    }

    struct Issue: Decodable {
        let isKnown: Bool?
        let severity: String?

        enum CodingKeys: String, CodingKey {
            case isKnown
            case severity = "_severity"
        }

        var isFailure: Bool { isKnown != true && severity != "warning" }
    }
}
