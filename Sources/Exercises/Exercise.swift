// SPDX-License-Identifier: MIT
/// The exercises of the course, in the order of their difficulty.
///
/// A problem is made from an exercise and a seed, so every student has another one and the lecturer can make it again.
/// The model answers it: an answer is checked against the model, in all interleavings where actors race.
package enum Exercise: Int, Sendable, CaseIterable {
    /// Predict what the host reads.
    case hostReads = 1
    /// Predict what a guest with two aliases sees.
    case guestSees = 2
    /// Predict which requests are refused.
    case refusedRequests = 3
    /// Predict what becomes of contents in several versions and designs.
    case contents = 4
    /// Write steps that carry out a request although a page is in use.
    case pageInUse = 5
    /// Predict the outcomes of a race.
    case raceOutcomes = 6
    /// Add steps to a race so that a bad outcome becomes impossible.
    case raceRepair = 7
    /// Write a monitor that loses nothing.
    case monitor = 8
    /// Find the broken rule of a kernel.
    case brokenKernel = 9
    /// Predict what an SNP or TDX guest sees.
    case confidential = 10

    /// The number with which the command selects it.
    package var number: Int { rawValue }

    /// For headings, without a period.
    package var title: String {
        switch self {
        case .hostReads: "What does the host read now?"
        case .guestSees: "What does the guest see?"
        case .refusedRequests: "Which request is refused?"
        case .contents: "Who keeps the contents?"
        case .pageInUse: "Survive a page in use"
        case .raceOutcomes: "What can this race do?"
        case .raceRepair: "Repair a race"
        case .monitor: "A monitor that loses nothing"
        case .brokenKernel: "Find the broken rule"
        case .confidential: "SNP or TDX: what does the guest see?"
        }
    }

    /// The task in one line, for lists.
    package var summary: String {
        switch self {
        case .hostReads: "predict each read of the host, through conversions, holes and pages in use"
        case .guestSees: "predict accesses through two aliases: bytes, memory faults, repeated accesses"
        case .refusedRequests: "predict which calls fail, with which errno and error_offset"
        case .contents: "say what each version of the interface and each design does to the bytes"
        case .pageInUse: "write the calls that convert all that can be converted, and lose no byte"
        case .raceOutcomes: "say which outcomes are possible in some order of the steps"
        case .raceRepair: "add steps until a bad outcome is impossible in every order"
        case .monitor: "write four pieces of a monitor, which must hold in more than twenty cases"
        case .brokenKernel: "test a kernel as a black box, and name the rule that it breaks"
        case .confidential: "predict validation, acceptance, page state changes and what the host sees"
        }
    }
}
