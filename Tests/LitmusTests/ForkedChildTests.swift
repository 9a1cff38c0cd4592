// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import Litmus

/// Processes that access views for a test.
@Suite struct ForkedChildTests {
    /// A child that has still to close its descriptors would do so during its first step, which a sweep measures.
    @Test func aChildIsReadyWhenItIsThere() throws {
        for _ in 0..<20 {
            let child = try ForkedChild([:])
            let process = try #require(child.process)
            let descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd")
            #expect(descriptors.compactMap { Int($0) }.filter { $0 > 3 } == [])
        }
    }
}
