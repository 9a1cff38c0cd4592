// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

// The parallel blocks of a program.
extension ProgramBody {
    mutating func racing(
        _ block: Parallel, _ number: Int
    ) throws(ExportProblem) -> (functions: String, calls: [String]) {
        let suffix = blocks == 1 ? "" : "_\(number + 1)"
        let seen = "result\(suffix)"
        let resultNames = block.steps.compactMap(\.result)
        var fields: [Name: String] = [:]
        for name in resultNames { fields[name] = results.name("result", "\(name)", ["", "_result"]) }
        var lines: [String] = []
        if !resultNames.isEmpty {
            lines += [
                "/* The results of the parallel block. */", "static struct {",
                "\tconst char *\(resultNames.map { fields[$0] ?? "" }.joined(separator: ", *"));",
                "} \(seen);", "",
            ]
        }
        var actors: [String] = []
        for actor in block.actors {
            let function = "\(actor)_steps\(suffix)"
            var body: [String] = []
            for step in block.steps where step.actor == actor {
                body += CText.comment(step.text)
                guard let name = step.result, let field = fields[name] else {
                    body += try writer.racingStep(step)
                    continue
                }
                body += try writer.racingLines(step, result: "\(seen).\(field)")
            }
            lines += ["static void \(function)(void)", "{"] + body + ["}", ""]
            let process: String
            if case .child(let number) = actor {
                process = ", &\(writer.child(number)).pid"
            } else {
                process = ""
            }
            actors.append("\t{ \"\(actor)\", \(function)\(process.isEmpty ? ", NULL" : process) },")
        }
        lines += ["static const struct actor actors\(suffix)[] = {"] + actors + ["};", ""]
        var calls = ["", "\trace(actors\(suffix), COUNT(actors\(suffix)));"]
        if !resultNames.isEmpty {
            lines += judging(block, number, suffix, seen, resultNames, fields)
            calls.append("\tjudge_block\(suffix)();")
        }
        return (lines.joined(separator: "\n"), calls)
    }

    /// The function that judges and counts the results of a run.
    private func judging(
        _ block: Parallel, _ number: Int, _ suffix: String, _ seen: String, _ names: [Name],
        _ fields: [Name: String]
    ) -> [String] {
        func condition(_ name: Name, _ outcome: StepOutcome) -> String {
            "is(\(seen).\(fields[name] ?? ""), \(pattern(outcome)))"
        }
        func pattern(_ outcome: StepOutcome) -> String {
            CText.string(CText.patterns(outcome, poisons: false).first ?? "")
        }
        func all(_ conditions: [String]) -> String { conditions.joined(separator: " && ") }
        var alternatives: [String] = []
        var remark: String
        if permitted.indices.contains(number), let outcomes = permitted[number].outcomes {
            remark = "The outcomes that the test and the model of Linux 7.4 permit."
            alternatives = outcomes.map { outcome in all(zip(names, outcome).map(condition)) }
        } else {
            remark =
                "The outcomes that the test permits. There are too many interleavings to compare with a model."
            alternatives = block.clauses.filter { $0.kind != .forbidden }.map { clause in
                all(clause.conditions.map { condition($0.result, $0.outcome) })
            }
            if !block.clauses.contains(where: { $0.kind == .allowed }) { alternatives = [] }
        }
        let forbidden = block.clauses.filter { $0.kind == .forbidden }.map { clause in
            "!(" + all(clause.conditions.map { condition($0.result, $0.outcome) }) + ")"
        }
        var lines = ["/* \(remark) */", "static bool is_permitted\(suffix)(void)", "{"]
        let permittedText =
            alternatives.isEmpty
            ? "true"
            : alternatives.count == 1
                ? alternatives[0] : alternatives.map { "(\($0))" }.joined(separator: " ||\n\t       ")
        if forbidden.isEmpty || !(permitted.indices.contains(number) && permitted[number].outcomes == nil) {
            lines.append("\treturn \(permittedText);")
        } else {
            lines.append(
                "\treturn \(forbidden.joined(separator: " && ")) &&\n\t       (\(permittedText));")
        }
        lines += ["}", ""]
        let texts = names.map { CText.string("\($0)") }.joined(separator: ", ")
        let values = names.map { "\(seen).\(fields[$0] ?? "")" }.joined(separator: ", ")
        lines += [
            "static void judge_block\(suffix)(void)", "{",
            "\tstatic const char *const names[] = { \(texts) };",
            "\tconst char *const results[] = { \(values) };", "",
            "\tcount_outcome(names, results, COUNT(results), is_permitted\(suffix)());", "}",
        ]
        return lines
    }

    /// The schedule of a finding: runs in which the first block's intruder preempts there.
    private func written() -> [String] {
        for case .parallel(let block) in program {
            guard let preemption = block.preemption, preemption.second == nil else { return [] }
            let actors = block.actors
            guard let victim = actors.firstIndex(of: preemption.victim),
                let intruder = actors.firstIndex(of: preemption.intruder)
            else { return [] }
            return CText.comment("preempted \(preemption)")
                + ["\trun_around(\(victim), \(intruder), \(preemption.delay), run);"]
        }
        return []
    }

    func loops() -> String {
        // Schedules are for the block with the most actors; a smaller one leaves out those that it does not have.
        let sizes = program.compactMap {
            if case .parallel(let block) = $0 { block.actors.count } else { nil }
        }
        let largest = (sizes.firstIndex(of: sizes.max() ?? 0) ?? 0) + 1
        let actors = blocks == 1 ? "actors" : "actors_\(largest)"
        return function(
            "int main(int argc, char *argv[])",
            [
                "\tunsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 0) : \(CProgram.runs);",
                "",
            ] + (form == .c ? ["\tbegin();"] : []) + written() + [
                "\tfor (unsigned long i = 0; i < runs; i++)", "\t\trun();",
                "\tsweep(COUNT(\(actors)), run, \(CProgram.places));",
                "\treport(\(actors));",
            ])
    }
}
