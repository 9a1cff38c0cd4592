// SPDX-License-Identifier: MIT
// Exercise 3: requests that the kernel may refuse.
extension Prediction {
    static func refusedRequests(_ seed: UInt64) -> Problem.Draft {
        draft(seed, salt: 0x3003, Demand(blanks: 9, kinds: 3, outcomes: 4)) { lines in
            lines.explain(
                "A monitor makes requests of Linux 7.4, some of them wrong on purpose, some of them wrong in two ways. Say for "
                    + "each ? what the kernel answers: ok, an errno, or an errno with the page that the kernel writes to "
                    + "error_offset: EAGAIN at 2. For a byte of a file, `at @0x1800`. `read` has a byte or SIGBUS, "
                    + "`extension`, `present` and `zapped` a number. Steps with an outcome behind => are facts."
            )
        } sketch: { chance in
            // Each problem begins with the situation of one rule, because random requests seldom meet some of them.
            var sketch = RequestSketch(&chance, around: FaultProbe.lines(ofNumber: seed))
            sketch.draw(&chance)
            return sketch.sketch
        }
    }
}

/// Draws requests around the rows of the validation table (docs/ABI.md).
private struct RequestSketch {
    var sketch: Prediction.Sketch
    private let pages: Int
    private let isLarge: Bool
    private let isDefault: Bool
    private var held: Int?
    /// Whether the situation has holds or memslots of its own, with which others would be confused.
    private var holdsOwn = false
    private var files = 0

    /// - Parameter situation: lines of a header and of steps with which the test begins.
    init(_ chance: inout Chance, around situation: [String]) {
        isLarge = situation.contains { $0.after("memory 1048580") != nil }
        isDefault = situation.contains("vm default")
        let unaligned =
            situation.first { $0.after("memory") != nil }.flatMap { $0.after("memory") } ?? "4 pages"
        let count = unaligned.utf8.split(separator: 0x20).first.map { String(decoding: $0, as: UTF8.self) }
        pages = Int(clamping: count.flatMap(AnswerFile.number) ?? 4)
        sketch = Prediction.Sketch(header: ["test      \"which request is refused\""])
        for line in situation {
            if line.after("host") != nil || line.after("vcpu0") != nil {
                // A fill is not worth a question.
                if line.after("host fill") != nil { sketch.step(line) } else { sketch.ask(line) }
                if line.after("host hold") != nil || line.after("host unbind") != nil { holdsOwn = true }
            } else {
                sketch.header.append(line)
            }
        }
        sketch.certain = sketch.steps.count
    }

    mutating func draw(_ chance: inout Chance) {
        sketch.step("host write \(min(pages, 4) - 1) \(chance.byte())")
        for _ in 0..<chance.number(9...12) { request(&chance) }
        for _ in 0..<3 { look(&chance) }
    }

    private mutating func request(_ chance: inout Chance) {
        switch chance.below(30) {
        case 0...15: sketch.ask("host convert " + conversion(&chance))
        case 16...17: if !holdsOwn { hold(&chance) }
        case 18...22: look(&chance)
        case 23...25: file(&chance)
        case 26: slot(&chance)
        case 27: sketch.ask("host punch \(chance.pick("1", "0..1", "@0x1800+0x1000", "@0x1000+0x800"))")
        case 28: sketch.ask("host extension \(chance.pick(248, 251, 252, 253))")
        default: sketch.ask("host zapped")
        }
    }

    /// A range, a state, and up to two flaws.
    private func conversion(_ chance: inout Chance) -> String {
        let last = min(pages, 40) - 1
        let first = chance.number(0...last)
        let end = chance.number(first...last)
        var range = first == end ? "\(first)" : "\(first)..\(end)"
        var attributes = chance.isTrue(60) ? "private" : "shared"
        var rest = ""
        for _ in 0..<chance.pick(0, 0, 1, 1, 1, 2) {
            switch chance.below(14) {
            case 0: rest = " flags \(chance.pick(1, 2, 0x100))" + rest
            case 1: rest += rest.isEmpty ? " reserved \(chance.below(11)) = \(chance.number(1...9))" : ""
            case 2: attributes = "attributes \(chance.pick("0x9", "0x1", "0x18", "0x10"))"
            case 3: range = "@\(first * 4096)+0"
            case 4: range = "@\(first * 4096)+0xffffffffffffffff"
            case 5: range = "@\(first * 4096)+\(chance.pick(100, 4097, 6144))"
            case 6: range = "@\(first * 4096 + chance.pick(512, 2048))+4096"
            case 7: range = "\(first)..\(pages)"
            case 8: range = "\(pages)..\(pages + chance.below(2))"
            case 9: range = "\(pages + 3)"
            case 10: if rest.isEmpty { rest = " error_offset \(chance.pick("0x1000", "7"))" }
            case 11, 12:
                if rest.isEmpty { rest = " struct \(chance.pick("readonly", "unmapped", "cut", "cut"))" }
            default: range = isLarge ? "@0+0x100000000" : "0..\(last)"
            }
        }
        return range + " " + attributes + rest
    }

    private mutating func hold(_ chance: inout Chance) {
        if held == nil {
            let first = chance.below(min(pages, 8))
            let isRange = chance.isTrue(30) && first + 1 < min(pages, 8)
            sketch.ask("host hold \(isRange ? "\(first)..\(first + 1)" : "\(first)") as pin")
            held = first
        } else if chance.isTrue(50) {
            sketch.step("host release pin")
            held = nil
        } else {
            sketch.step("host punch \(held ?? 0)")
        }
    }

    private mutating func look(_ chance: inout Chance) {
        let page = chance.below(min(pages, 8))
        switch chance.below(isDefault ? 3 : 4) {
        case 0, 1: sketch.ask("host read \(page)")
        case 2: sketch.ask("host present 0..\(min(pages, 8) - 1)")
        default: sketch.ask("vcpu0 write \(page) \(chance.byte())")
        }
    }

    private mutating func file(_ chance: inout Chance) {
        guard files < 2 else { return }
        files += 1
        let name = files == 1 ? "file" : "spare"
        switch chance.below(isDefault ? 2 : 5) {
        case 0: sketch.ask("host create \(name) 2 pages mmap flags \(chance.pick("0x4", "0x100"))")
        case 1:
            sketch.ask("host create \(name) 2 pages")
            sketch.ask("host map \(name):0..1 as \(name)view")
        case 2:
            sketch.step("host create \(name) 2 pages mmap\(chance.pick("", " init_shared"))")
            sketch.step("host map \(name):0..1 as \(name)view")
            sketch.ask("host read \(name)view:0")
            sketch.ask("host convert \(name):0..1 \(chance.pick("private", "shared"))")
        case 3:
            sketch.step("host create \(name) 2 pages mmap init_shared on default")
            sketch.step("host map \(name):0..1 as \(name)view")
            sketch.ask("host convert \(name):0..1 \(chance.pick("private", "shared"))")
        default:
            sketch.step("host create \(name) 2 pages mmap init_shared on second")
            sketch.step("host map \(name):0..1 as \(name)view")
            sketch.ask("host bind slot 7 to \(name):0..1 at 64")
        }
    }

    private mutating func slot(_ chance: inout Chance) {
        guard !isLarge, !isDefault, !holdsOwn, pages >= 4 else { return }
        switch chance.below(3) {
        case 0: sketch.ask("host bind slot 1 to ram:1..2 at 96")
        case 1:
            sketch.step("host unbind slot 0")
            sketch.ask("vcpu0 read \(chance.below(4))")
            sketch.step("host bind slot 0 to ram:0..\(pages - 1) at 0")
        default: sketch.ask("host bind slot 0 to ram:0..1 at 0")
        }
    }
}
