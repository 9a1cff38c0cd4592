// SPDX-License-Identifier: MIT
/// Shrinks a test that makes a kernel crash, with a boot for each candidate.
public struct CrashShrinker {
    /// Whether a test makes the same crash in a fresh boot.
    private let shows: (LitmusTest) -> Bool

    /// - Parameter shows: whether a test makes the same crash in a fresh boot.
    public init(shows: @escaping (LitmusTest) -> Bool) { self.shows = shows }

    /// The smallest test found that still shows the crash: fewer steps first, then simpler ones, then less memory. Candidates
    /// expect the answers of the model of Linux 7.4, because a test ends at its first unexpected answer.
    public func shrink(_ test: LitmusTest) -> LitmusTest {
        let predictor = Predictor(configuration: .init())
        var smallest = test
        // Predictions of different candidates may be the same test.
        var tried: Set<LitmusTest> = []
        let shrinker = Shrinker { candidate in
            guard let test = predictor.predict(candidate)?.test, test != smallest,
                tried.insert(test).inserted,
                shows(test)
            else { return false }
            smallest = test
            return true
        }
        _ = shrinker.shrink(test.withoutExpectations)
        return smallest
    }
}
