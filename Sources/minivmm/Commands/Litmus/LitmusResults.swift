// SPDX-License-Identifier: MIT
import FoundationEssentials

/// The part of the output of `litmus --format json` (schema `minivmm.litmus/1`) that tables are made of.
struct LitmusResults: Decodable {
    struct Test: Decodable {
        let file: String
        let hazards: [String]
        let verdict: String
        /// Of a sweep: a map for each pair of actors.
        let sweep: [Map]?
        let blocks: [Block]?
    }
    struct Map: Decodable {
        /// From 1.
        let block: Int
        let intruder: String
        let second: Second?
        let schedules: Int
        let exact: Bool
        let intervals: [Interval]
    }
    /// The delay of the first preemption, of a map over the second one.
    struct Second: Decodable {
        let firstDelayNs: UInt64
    }
    struct Interval: Decodable {
        let fromNs: UInt64
        let toNs: UInt64
        let schedule: String
        let outcomes: [Share]
        let functions: [String]
        let intruderWaits: Bool
    }
    struct Share: Decodable {
        let outcome: String
    }
    struct Block: Decodable {
        struct Outcome: Decodable {
            let results: String
            let count: Int?
        }
        let runs: Int?
        let outcomes: [Outcome]
    }
    let schema: String
    let backend: String
    let host: String
    let tests: [Test]

    var title: String { "\(backend) (\(host))" }

    /// - Throws: a usage error if the file is not such an output.
    init(path: String) throws {
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            self = try decoder.decode(Self.self, from: Data(try LitmusFiles.read(path, most: 64 << 20)))
        } catch let error as LitmusFiles.Failure {
            throw stop(error.description, .validationFailure)
        } catch let error as DecodingError {
            throw stop(
                "\(path) is not the output of litmus --format json: \(error.place)", .validationFailure)
        }
        guard schema == "minivmm.litmus/1" else {
            throw stop("\(path): its schema is \(schema), not minivmm.litmus/1", .validationFailure)
        }
    }
}

extension DecodingError {
    /// The error on one line, without its context.
    fileprivate var place: String {
        switch self {
        case .keyNotFound(let key, _): "`\(key.stringValue)` is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            "`\(context.codingPath.map(\.stringValue).joined(separator: "."))` has another type"
        default: "it is not JSON"
        }
    }
}
