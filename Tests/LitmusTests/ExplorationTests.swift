import Foundation
import MiniVMM
import SoftKVM
import Testing

@testable import Litmus

@Suite("Exploration")
struct ExplorationTests {
    @Test func scratch() throws {
        let source = try Source(parsing: try String(contentsOfFile: "/tmp/z.litmus", encoding: .utf8))
        var c: [String: Int] = [:]
        for _ in 0..<3000 {
            let o = try Oracle(source.test)
            var t = ""
            for step in source.test.steps {
                let a = try o.perform(step)
                if case .zapped = step.action { t = "\(a.model)" }
            }
            c[t, default: 0] += 1
        }
        print(c)
    }
}
