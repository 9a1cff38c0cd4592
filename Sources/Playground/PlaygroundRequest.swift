// SPDX-License-Identifier: MIT
import ConversionModel
import Exercises
import LitmusModel

/// A request of the page: a command, options, an empty line, and the text of a test.
struct PlaygroundRequest {
    /// What is wrong with a request, for people.
    struct Problem: Error {
        let text: String
    }

    let command: String
    private(set) var abi = ABIProfile.linux74
    private(set) var promise: ContentPromise?
    private(set) var design: ContentDesign?
    private(set) var faults: [PlantedFault] = []
    /// Replaces the type of VM in the test; nil keeps it.
    private(set) var vm: VMType?
    /// The number of atomic pieces after which an exploration ends.
    private(set) var mostPieces = 1_000_000
    /// The reader's predictions, by line. The last one for a line counts.
    private(set) var predictions: [Int: String] = [:]
    /// The exercise, for a form.
    private(set) var exercise: Exercise?
    /// The seed of a form; nil if it follows from ``student``.
    private(set) var seed: UInt64?
    /// The student's name in a form.
    private(set) var student: String?
    let text: String

    /// The largest number of option lines.
    private static let mostOptions = 10_000

    /// Reads a request.
    ///
    /// - Throws: ``Problem`` for an unknown option or value.
    init(_ request: String) throws(Problem) {
        let bytes = Array(request.utf8)
        var lines: [String] = []
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
            let line = String(decoding: bytes[start..<end], as: UTF8.self)
            start = min(end + 1, bytes.count)
            if line.isEmpty { break }
            guard lines.count < Self.mostOptions else {
                throw Problem(text: "the request has too many options")
            }
            lines.append(line)
        }
        guard let first = lines.first else { throw Problem(text: "the request is empty") }
        command = first
        text = String(decoding: bytes[start...], as: UTF8.self)
        for line in lines.dropFirst() { try take(line) }
    }

    private mutating func take(_ line: String) throws(Problem) {
        let words = line.split(separator: " ", maxSplits: 1).map { String($0) }
        let unknown = Problem(text: "the request has an option that this version does not know: \(line)")
        guard words.count == 2 else { throw unknown }
        let value = words[1]
        switch words[0] {
        case "abi":
            guard let abi = ABIProfile(rawValue: value) else { throw unknown }
            self.abi = abi
        case "contents":
            guard let choice = ContentChoice(rawValue: value) else { throw unknown }
            promise = choice.promise
        case "design":
            guard let design = ContentDesign(rawValue: value) else { throw unknown }
            self.design = design
        case "fault":
            guard let fault = PlantedFault(name: value) else { throw unknown }
            faults.append(fault)
        case "vm":
            guard let vm = VMType(word: value) else { throw unknown }
            self.vm = vm
        case "pieces":
            guard let pieces = Int(value), (1...Interleavings.mostPieces).contains(pieces) else {
                throw unknown
            }
            mostPieces = pieces
        case "predict":
            let parts = value.split(separator: " ", maxSplits: 1)
            guard let number = parts.first, let line = Int(number), line >= 1 else { throw unknown }
            predictions[line] = parts.count == 2 ? String(parts[1]) : ""
        case "number":
            guard let exercise = Int(value).flatMap({ Exercise(rawValue: $0) }) else { throw unknown }
            self.exercise = exercise
        case "seed":
            guard let seed = UInt64(value), seed < Exercises.Problem.seeds else { throw unknown }
            self.seed = seed
        case "student":
            guard Student.isName(value) else {
                throw Problem(
                    text:
                        "a name has 1 to \(AnswerFile.longestStudent) bytes, without # and control characters"
                )
            }
            student = value
        default: throw unknown
        }
    }

    /// The rules that the model follows, without the settings of the test's header.
    var rules: Rules { rules(faults) }
    /// The same rules without the planted faults.
    var soundRules: Rules { rules([]) }

    private func rules(_ faults: [PlantedFault]) -> Rules {
        Rules(
            abi: abi, contentDesign: design, contentPromise: promise, faults: PlantedFaults(faults),
            memoryLimit: KernelModel.backedBytes)
    }
}

/// What conversions do to contents, chosen in place of the rule of the version.
enum ContentChoice: String, CaseIterable {
    case preserved
    case undefined
    case lost

    var promise: ContentPromise {
        switch self {
        case .preserved: .preserved
        case .undefined: .undefined
        case .lost: .lost
        }
    }

    var text: String {
        switch self {
        case .preserved: "every conversion preserves the bytes"
        case .undefined: "no conversion promises anything about the bytes"
        case .lost: "every conversion loses the bytes"
        }
    }
}
