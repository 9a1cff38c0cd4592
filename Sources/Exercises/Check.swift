// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

extension Problem {
    /// Checks an answer to this problem.
    ///
    /// - Throws: ``AnswerFile/Problem`` if a line of the form was changed, or an answer cannot be read.
    package func assess(_ file: AnswerFile) throws(AnswerFile.Problem) -> Assessment {
        let fillings = try fillings(file)
        if fillings.allSatisfy({ $0.isEmpty }) {
            return Assessment(.noAttempt, 0, of: possible, "the form is as it was written")
        }
        if case .hiddenFault(let fault) = task { return try fault.assess(fillings) }
        let empty = fillings.filter { $0.isEmpty }
        if let first = empty.first {
            return Assessment(
                .incomplete, 0, of: possible, line: first.line,
                empty.count == 1
                    ? "this blank is empty" : "\(empty.count) blanks are empty, the first one here")
        }
        return switch task {
        case .prediction(let task): try task.assess(fillings)
        case .contents(let task): try task.assess(fillings)
        case .possibilities(let task): try task.assess(fillings)
        case .repair(let task): try task.assess(fillings)
        case .cases(let task): try task.assess(fillings)
        case .hiddenFault(let task): try task.assess(fillings)
        }
    }

    /// The points of a right answer.
    package var possible: Int {
        switch task {
        case .prediction(let task): task.asked.count
        case .contents(let task): task.rows.count
        case .possibilities(let task): task.rows.count
        case .repair: 1
        case .cases(let task): task.cases.count
        case .hiddenFault: HiddenFault.points
        }
    }

    /// The faults of a list for which the exercise refuses the answer of somebody who believes in a kernel with that fault: the
    /// predictions that such a kernel would confirm, or steps that run on such a kernel. For ``Exercise/brokenKernel``, those
    /// that are named although the kernel breaks another rule.
    package func refused(among faults: [PlantedFault]) -> [PlantedFault] {
        switch task {
        case .prediction(let task):
            let sound = task.outcomes(on: ModelKernel())
            return faults.filter { task.outcomes(on: ModelKernel(faults: [$0])) != sound }
        case .contents(let task):
            let sound = task.rows.map { $0.fate() }
            return faults.filter { fault in task.rows.map { $0.fate([fault]) } != sound }
        case .possibilities(let task):
            let sound = task.answers()
            return faults.filter { task.answers([$0]) != sound }
        case .repair(let task): return faults.filter { task.refuses(sample.first ?? [], [$0]) }
        case .cases(let task): return task.refused(sample, among: faults)
        case .hiddenFault(let task):
            return task.candidates.filter { faults.contains($0) && $0 != task.hidden }
        }
    }
}
