// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

// Exercise 8: four pieces of a monitor, and the cases in which they must lose nothing.
extension CaseSuite {
    /// The sizes of a problem.
    struct Shape: Sendable {
        /// Pages of the two memories, each in a memslot of its own.
        let first: Int
        let second: Int
        /// The pages that the guest asks to be shared.
        let shared: ClosedRange<Int>
        let bytes: [String]
        /// What the guest writes when its access exits with a memory fault.
        let message: String
        var pages: Int { first + second }

        init(_ chance: inout Chance) {
            first = chance.number(3...6)
            second = chance.number(2...4)
            let start = chance.number(1...(first - 1))
            message = chance.byte()
            // Across the border of the two memories in half of the problems.
            shared = start...(chance.isTrue(50) ? first : min(start + 1, first - 1))
            let low = chance.byte()
            var high = chance.byte()
            while high == low { high = chance.byte() }
            bytes = [low, high]
        }

        func byte(_ page: Int) -> String { bytes[page % 2] }
        /// A page for the host.
        func place(_ page: Int) -> String { page < first ? "\(page)" : "other:\(page - first)" }
    }

    /// The sizes and the cases of a seed.
    static func monitorCases(_ seed: UInt64) -> (Shape, CaseSuite) {
        var chance = Chance(seed: seed &* 0x9e37_79b9 &+ 0x8008)
        let shape = Shape(&chance)
        return (shape, CaseSuite(cases: cases(shape, &chance), mostSteps: 12))
    }

    static func monitor(_ seed: UInt64) -> Problem.Draft {
        let (shape, suite) = monitorCases(seed)
        let (last, from, to) = (shape.pages - 1, shape.shared.lowerBound, shape.shared.upperBound)
        var lines: [FormLine] = []
        lines.explain(
            "Write four pieces of a monitor for a guest with two memories: `ram` is guest pages 0 to \(shape.first - 1) and "
                + "`other` is guest pages \(shape.first) to \(last). The kernel is Linux 7.4, except where a case says otherwise."
        )
        lines.gap()
        lines.explain(
            "The pieces run in the order 1 to 4 in more than twenty cases that you do not see: nothing in use, one or two pages in use "
                + "(at the start, in the middle, at the end), a range that is partly private already, pages that were never "
                + "touched, a kernel without memory for more attributes (ENOMEM), versions and designs that overwrite contents "
                + "unless the request says preserve, and calls of other programs before the pieces and between them (wrong requests, "
                + "holes, memslots, large files). After each piece the check looks at every page, from both sides. No byte may "
                + "be lost, and no page may wait for another one.")
        lines.gap()
        lines.explain(
            "Your steps are \(permitted). A step without => may end in any way, like a call whose result is ignored. At most "
                + "12 steps. `convert guest:0..\(last)` is a request in guest pages (litmus/README.md).")
        lines.gap()
        lines.explain(
            "1. The guest asks for pages 0 to \(last) to become private. The host may use some of them for a while; the guest "
                + "goes on with all others.")
        lines.append(.steps([]))
        lines.explain("2. The host has ended every use. Convert what is left.")
        lines.append(.steps([]))
        lines.explain(
            "3. The guest asks for pages \(from) to \(to) to become shared, to pass on what it wrote there.")
        lines.append(.steps([]))
        lines.explain(
            "4. The guest touches page \(from) through its private alias, and the vCPU exits with a memory fault. Which policy "
                + "does the monitor convert the page with? The words behind `converting`.")
        lines.append(.blank("vcpu0 write \(from) \(shape.message) converting"))
        return Problem.Draft(
            lines: lines, task: .cases(suite),
            sample: [
                ["host convert guest:0..\(last) private preserve bisect"],
                ["host convert guest:0..\(last) private preserve"],
                ["host convert guest:\(from)..\(to) shared preserve"], ["preserve"],
            ])
    }

    private static func cases(_ shape: Shape, _ chance: inout Chance) -> [Case] {
        let last = shape.pages - 1
        let middle = chance.number(1...(shape.first - 1))
        let inOther = chance.number(shape.first...last)
        let mixed = chance.number(0...(shape.first - 2))
        var cases = [
            item("no page is in use", shape),
            item("page 0 is in use", shape, held: [0]),
            item("page \(middle) is in use", shape, held: [middle]),
            item("page \(last) is in use", shape, held: [last]),
            item("pages 0 and \(inOther) are in use", shape, held: [0, inOther]),
            item(
                "pages \(mixed) to \(mixed + 1) are private already", shape,
                before: [line("host", "convert \(mixed)..\(mixed + 1) private")]),
            item(
                "page \(mixed) is private already and page \(mixed + 1) is in use", shape, held: [mixed + 1],
                before: [line("host", "convert \(mixed) private")]),
            item("no page has been touched", shape, isFilled: false),
            item(
                "no page has been touched and page \(middle) is in use", shape, held: [middle],
                isFilled: false),
            item("the kernel has no memory for another run of attributes", shape, held: [middle], runs: 3),
            item("the design is call-flag", shape, settings: ["kernel    design call-flag"]),
        ]
        cases.append(
            item("the version is RFC v5, where each call decides", shape, kernel: ModelKernel(abi: .rfcV5)))
        cases.append(item("a hole is punched while page \(middle) is in use", shape, held: [middle], hole: 0))
        return cases + kernelCases(shape)
    }

    static func item(
        _ name: String, _ shape: Shape, held: [Int] = [], before: [String] = [], isFilled: Bool = true,
        runs: Int? = nil, settings: [String] = [], kernel: ModelKernel = ModelKernel(), hole: Int? = nil,
        extras: Extras = Extras()
    ) -> Case {
        func byte(_ page: Int) -> String { isFilled && page != hole ? shape.byte(page) : "0x0" }
        var given = ["test \"a case\""] + settings
        given.append(runs.map { "kernel runs \($0)" } ?? "aliases two")
        given += ["memory \(shape.first) pages shared", "memory other \(shape.second) pages shared"]
        if isFilled {
            for page in 0..<shape.pages {
                given.append(line("host", "fill \(shape.place(page)) \(shape.byte(page))"))
            }
        }
        given += extras.start + before
        for (place, page) in held.enumerated() {
            given.append(line("host", "hold \(shape.place(page)) as use\(place)"))
        }
        if let hole { given.append(line("host", "punch \(shape.place(hole))")) }
        var lines: [Line] = given.map { .given($0) }
        lines.append(.answer(0))
        if runs == nil { lines += looks(shape, shared: held, byte) }
        lines += extras.afterFirst.map { .given($0) }
        for place in held.indices { lines.append(.given(line("host", "release use\(place)"))) }
        lines.append(.answer(1))
        if runs != nil {
            // The kernel refuses a part of the request or all of it, and nothing is lost.
            for page in 0..<shape.pages {
                lines.append(.given(line("host", "read \(shape.place(page))", "SIGBUS or \(byte(page))")))
                lines.append(.given(line("vcpu0", "read \(page)", byte(page))))
            }
            return Case(name: name, kernel: kernel, lines: lines)
        }
        lines += looks(shape, shared: [], byte)
        lines += extras.afterSecond.map { .given($0) }
        lines.append(.answer(2))
        let shared = Array(shape.shared)
        lines += looks(shape, shared: shared, byte)
        let page = shape.shared.lowerBound
        // While the page is in use the access waits. It is repeated after the release.
        lines.append(.given(line("host", "hold \(shape.place(page)) as late")))
        lines.append(.words("vcpu0 write \(page) \(shape.message) converting", 3, " => EAGAIN at \(page)"))
        lines.append(.given(line("host", "read \(shape.place(page))", byte(page))))
        lines.append(.given(line("host", "release late")))
        lines.append(.given(line("vcpu0", "again", "ok")))
        lines.append(.given(line("vcpu0", "read \(page)", shape.message)))
        lines.append(.given(line("vcpu0", "read @\(page * 4096 + 1)", byte(page))))
        lines += looks(shape, shared: Array(shared.dropFirst()), { $0 == page ? shape.message : byte($0) })
        return Case(name: name, kernel: kernel, lines: lines)
    }

    /// Steps that look at every page from both sides.
    private static func looks(_ shape: Shape, shared: [Int], _ byte: (Int) -> String) -> [Line] {
        var lines: [String] = []
        for page in 0..<shape.pages {
            if shared.contains(page) {
                lines.append(line("host", "read \(shape.place(page))", byte(page)))
                lines.append(line("vcpu0", "read shared:\(page)", byte(page)))
            } else {
                lines.append(line("host", "read \(shape.place(page))", "SIGBUS"))
                lines.append(line("vcpu0", "read \(page)", byte(page)))
            }
        }
        return lines.map { .given($0) }
    }
}
