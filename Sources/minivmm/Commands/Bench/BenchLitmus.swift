// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SoftKVM

// The cost of litmus tests, in runs and in states.
extension Bench {
    private static let pair = """
        test "two actors"
        memory 2 pages shared
        parallel
        host convert 0 private => a
        host1 read 0 => b
        end
        """

    static let three = """
        test "three actors of four steps"
        memory 4 pages shared
        parallel
        host convert 0..1 private => a0
        host convert 0..3 shared => a1
        host write 0 1 => a2
        host convert 2 private => a3
        host1 convert 1 shared => b0
        host1 read 0 => b1
        host1 write 1 9 => b2
        host1 convert 0 private => b3
        vcpu0 write 0 2 => c0
        vcpu0 read 1 => c1
        vcpu0 write 2 3 => c2
        vcpu0 read 3 => c3
        end
        """

    /// - Parameter backend: where tests are run by threads; nil if there is none.
    func litmusRows(_ backend: (any Backend)?) -> [Row] {
        var rows: [Row] = []
        if let backend, let source = try? Source(parsing: Self.pair) {
            let runs = 20_000
            var report = Report(verdict: .skipped(""))
            let elapsed = time {
                report = Runner(backend, .init(runs: runs, findsOrders: false)).report(source)
            }
            if report.verdict == .passed {
                rows.append(
                    Row(
                        name: "litmus: runs of two actors", value: Double(runs) * 1e9 / Double(elapsed),
                        unit: "runs/s", bound: -1000))
            }
        }
        return rows
    }
}
