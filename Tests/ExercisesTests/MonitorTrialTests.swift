// SPDX-License-Identifier: MIT
import ConversionModel
import Testing

@testable import Exercises

/// Converters of students, right and wrong.
@Suite("Converters written in Swift")
struct MonitorTrialTests {
    /// Converts what can be converted, and leaves pages in use alone.
    private func right(_ request: MonitorTrial.Request, _ kernel: inout MonitorTrial.Kernel) {
        for memory in kernel.memories {
            var next = max(memory.lowerBound, request.pages.lowerBound)
            let end = min(memory.upperBound, request.pages.upperBound)
            while next < end {
                guard
                    case .inUse(let page) = kernel.convert(next..<end, to: request.target, preserving: true)
                else { break }
                if page > next { _ = kernel.convert(next..<page, to: request.target, preserving: true) }
                next = page + 1
            }
        }
    }

    @Test func aRightConverter() {
        for seed in Seeds.first(5, orIfMany: 100) {
            let result = MonitorTrial(seed: seed).check(right)
            #expect(result.isRight && result.cases >= 20, "seed \(seed): \(result.refutation)")
        }
    }

    /// Page by page it needs more calls, and is right, too.
    @Test func pageByPage() {
        for seed in Seeds.first(2, orIfMany: 20) {
            let result = MonitorTrial(seed: seed).check { request, kernel in
                for page in request.pages {
                    _ = kernel.convert(page..<page + 1, to: request.target, preserving: true)
                }
            }
            #expect(result.isRight, "seed \(seed): \(result.refutation)")
        }
    }

    @Test func wrongConverters() {
        let wrong: [(String, (MonitorTrial.Request, inout MonitorTrial.Kernel) -> Void)] = [
            ("does nothing", { _, _ in }),
            ("one call over two memories", { $1.convertIgnoring($0.pages, $0.target, true) }),
            (
                "gives up at a page in use",
                { request, kernel in
                    for memory in kernel.memories {
                        let pages = memory.clamped(to: request.pages)
                        kernel.convertIgnoring(pages, request.target, true)
                    }
                }
            ),
            (
                "forgets the pages behind",
                { request, kernel in
                    for memory in kernel.memories {
                        let pages = memory.clamped(to: request.pages)
                        if case .inUse(let page) = kernel.convert(pages, to: request.target, preserving: true)
                        {
                            kernel.convertIgnoring(pages.lowerBound..<page, request.target, true)
                        }
                    }
                }
            ),
            (
                "does not ask for contents",
                { request, kernel in
                    for page in request.pages {
                        kernel.convertIgnoring(page..<page + 1, request.target, false)
                    }
                }
            ),
            (
                "converts too much",
                { request, kernel in
                    for page in 0..<(kernel.memories.last?.upperBound ?? 0) {
                        kernel.convertIgnoring(page..<page + 1, request.target, true)
                    }
                }
            ),
            (
                "retries for ever",
                { request, kernel in
                    for memory in kernel.memories {
                        let pages = memory.clamped(to: request.pages)
                        var answer = kernel.convert(pages, to: request.target, preserving: true)
                        while case .inUse = answer {
                            answer = kernel.convert(pages, to: request.target, preserving: true)
                        }
                    }
                }
            ),
        ]
        for (name, convert) in wrong {
            for seed in Seeds.first(1, orIfMany: 10) {
                let result = MonitorTrial(seed: seed).check(convert)
                #expect(!result.isRight && !result.refutation.isEmpty, "\(name), seed \(seed)")
            }
        }
    }

    /// A right converter on a kernel that breaks a rule of conversions is refused as a wrong one.
    @Test func brokenKernels() {
        for seed in Seeds.first(1, orIfMany: 10) {
            let trial = MonitorTrial(seed: seed)
            // The converter is not told what a successful call writes to error_offset.
            for fault in PlantedFault.allCases
            where !fault.isConfidential && fault != .errorOffsetWrittenOnSuccess {
                #expect(!trial.check(planting: [fault], right).isRight, "\(fault), seed \(seed)")
            }
        }
    }
}

extension MonitorTrial.Kernel {
    fileprivate mutating func convertIgnoring(_ pages: Range<Int>, _ target: PageState, _ preserving: Bool) {
        _ = convert(pages, to: target, preserving: preserving)
    }
}
