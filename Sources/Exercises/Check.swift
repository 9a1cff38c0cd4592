// SPDX-License-Identifier: MIT
import ConversionModel
import Litmus

extension Problem {
    /// Checks an answer to this problem.
    ///
    /// - Throws: ``AnswerFile/Problem`` if a line of the form was changed, or an answer cannot be read.
    package func assess(_ file: AnswerFile) throws(AnswerFile.Problem) -> Assessment {
        let fillings = try fillings(file)
        if fillings.allSatisfy(\.isEmpty) {
            return Assessment(.noAttempt, 0, of: possible, "the form is as it was written")
        }
        if case .hiddenFault(let fault) = task { return try fault.assess(fillings) }
        let empty = fillings.filter(\.isEmpty)
        if let first = empty.first {
            return Assessment(
                .incomplete, 0, of: possible, line: first.line,
                empty.count == 1 ? "this blank is empty" : "\(empty.count) blanks are empty, the first one here")
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

    /// Whether the exercise refuses the answer of somebody who believes in a kernel with this fault: the predictions that
    /// such a kernel would confirm, or steps that run on such a kernel. For ``Exercise/brokenKernel``, whether the fault is
    /// named although the kernel breaks another rule.
    package func refuses(_ fault: PlantedFault) -> Bool {
        switch task {
        case .prediction(let task): task.isRefused(ModelKernel(faults: [fault]))
        case .contents(let task): task.isRefused([fault])
        case .possibilities(let task): task.isRefused([fault])
        case .repair(let task): task.refuses(sample.first ?? [], [fault])
        case .cases(let task): task.refuses(sample, [fault])
        case .hiddenFault(let task): task.candidates.contains(fault) && task.hidden != fault
        }
    }
}
