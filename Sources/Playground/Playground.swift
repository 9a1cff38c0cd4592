// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// Answers a request of the playground's page. Nothing is kept from one request to the next.
///
/// A request is a command, lines with options, an empty line, and the text of a litmus test. docs/playground.md lists the
/// commands and the members of their answers.
///
/// - Returns: a JSON object on one line; with the member `error`, if the request cannot be read.
public func answer(_ request: String) -> String {
    var json = JSONText()
    do throws(PlaygroundRequest.Problem) {
        let request = try PlaygroundRequest(request)
        switch request.command {
        case "facts": json.object { $0.facts() }
        case "check": json.object { $0.check(request) }
        case "run": json.object { $0.run(request) }
        case "exercises": json.object { $0.exercises() }
        case "exercise": try json.exercise(request)
        case "assess": json.object { $0.assess(request.text) }
        default: throw PlaygroundRequest.Problem(text: "unknown command \(request.command)")
        }
    } catch {
        json.object { $0.member("error", error.text) }
    }
    return json.text
}

extension JSONText {
    /// What can be chosen beside a test.
    fileprivate mutating func facts() {
        members("abis", ABIProfile.allCases) { json, abi in
            json.member("name", abi.rawValue)
            json.member("text", abi.name)
        }
        members("contents", ContentChoice.allCases) { json, choice in
            json.member("name", choice.rawValue)
            json.member("text", choice.text)
        }
        members("designs", ContentDesign.allCases) { json, design in
            json.member("name", design.rawValue)
            json.member("text", design.text)
        }
        members("faults", PlantedFault.allCases) { json, fault in
            json.member("name", fault.name)
            json.member("text", fault.description)
            json.member("group", fault.rule)
        }
        members("vms", VMType.words) { json, word in json.member("name", word) }
    }

    /// The first error of a test, or its steps.
    fileprivate mutating func check(_ request: PlaygroundRequest) {
        do throws(SyntaxError) {
            let source = try request.source()
            member("test") { $0.summary(of: source) }
        } catch {
            problem(error)
        }
    }

    mutating func problem(_ error: SyntaxError) {
        member("problem") { json in
            json.member("line", error.line)
            json.member("column", error.column)
            json.member("message", error.message)
        }
    }

    private mutating func summary(of source: Source) {
        member("name", source.test.name)
        member("vm", source.test.vm.word)
        let blocks = Program(source.test).blocks
        name("steps")
        array { json in
            for (index, step) in source.test.steps.enumerated() {
                let block = blocks.firstIndex { block in
                    block.actors.contains { $0.contains { $0.index == index } }
                }
                json.object { json in
                    json.member("line", source.places[index].line)
                    json.member("column", source.places[index].column)
                    json.member("actor", step.actor.description)
                    json.member("text", step.text)
                    json.member("step", step.description)
                    json.member("expectation", step.answer)
                    if let block { json.member("block", block) }
                }
            }
        }
        members("blocks", blocks) { json, block in
            json.member("line", source.places[block.first].line)
            json.strings("results", block.results.map { $0.description })
        }
    }
}

extension PlaygroundRequest {
    /// The test of the request, on the VM that was chosen.
    ///
    /// - Throws: the first error of the text, or that the test is impossible on the chosen VM.
    func source() throws(SyntaxError) -> Source {
        let source = try Source(parsing: text)
        if let impossible = source.impossibility() { throw impossible }
        guard let vm, vm != source.test.vm else { return source }
        var test = source.test
        test.vm = vm
        if let problem = test.firstProblem() {
            let place = problem.step.flatMap { source.places.indices.contains($0) ? source.places[$0] : nil }
            throw SyntaxError(
                line: place?.line ?? 1, column: place?.column ?? 1,
                message: "with vm \(vm.word): \(problem.message)")
        }
        return Source(test, placedAs: source)
    }
}

extension ContentDesign {
    /// A description in a sentence without its period.
    fileprivate var text: String {
        switch self {
        case .creationFlag: "a flag at the creation of each file decides"
        case .buildPreserve: "a build option of the kernel decides: contents are preserved"
        case .buildScramble: "a build option of the kernel decides: contents are overwritten"
        case .modulePreserve: "a module parameter of the host decides: contents are preserved"
        case .moduleScramble: "a module parameter of the host decides: contents are overwritten"
        case .callFlag: "a flag of each call decides"
        }
    }
}
