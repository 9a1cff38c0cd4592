// SPDX-License-Identifier: MIT
import ConversionModel

// Parsing of actions.
extension LineParser {
    package mutating func step(of actor: Actor) throws(SyntaxError) -> Step {
        let action = try action()
        let onFault = take("converting") ? try faultConversion() : nil
        return Step(actor, action, try expectation(), onFault: onFault)
    }

    private static let words =
        [
            "read", "write", "fill", "check", "convert", "map", "unmap", "madvise", "allocate", "punch",
            "hold",
            "release", "create", "close", "bind", "unbind", "hypercall", "prefault", "clock", "again", "fork",
            "syscall", "peek", "zapped", "present", "extension", "dup", "mremap", "mprotect", "mbind",
            "migrate",
            "node", "dirty", "vm_attributes",
        ] + ConfidentialAction.words

    private mutating func action() throws(SyntaxError) -> Action {
        let start = column
        let word = try word("an action")
        guard Self.words.contains(word) else {
            throw unknown("action", word, at: start, among: Self.words)
        }
        let column = self.column
        guard take("every") else {
            if Action.patternWords.contains(word) { try refuseMisspelt("every") }
            return try action(word)
        }
        guard Action.patternWords.contains(word) else {
            let words = Action.patternWords.map { "`\($0)`" }.joined(separator: ", ")
            throw error(at: column, "`\(word)` cannot be repeated with `every`, which is for \(words)")
        }
        let stride: UInt64 = try number("a number of pages")
        guard stride > 0 else { throw error(at: column, "`every` needs a number of pages of at least 1") }
        try require("of")
        let range = try extent()
        given = Pattern(every: stride, of: range).first
        let action = try action(word)
        given = nil
        guard let pattern = Action.every(stride, of: range, action) else {
            throw error(at: column, "`\(action)` cannot be repeated with `every`")
        }
        return pattern
    }

    private mutating func action(_ word: String) throws(SyntaxError) -> Action {
        switch word {
        case "read": return .read(try place())
        case "write": return .write(try place(), try number("a byte"))
        case "fill": return .fill(try extent(), try number("a byte"))
        case "check": return .check(try extent(), try number("a byte"))
        case "convert": return .convert(try conversion())
        case "map":
            let extent = try extent()
            try require("as")
            return .map(extent, view: try name("a name for the view"))
        case "unmap": return .unmap(try name("the name of a view"))
        case "mremap": return try remap()
        case "mprotect": return .protect(try extent(), try choice(of: Protection.self))
        case "mbind": return .mbind(try extent(), try policy(), policyFlags())
        case "migrate":
            let place = try place()
            try require("to")
            return .migrate(place, node: try number("a NUMA node"))
        case "node": return .node(try place())
        case "madvise": return .advise(try extent(), try choice(of: Advice.self))
        case "allocate": return .allocate(try extent())
        case "punch": return .punch(try extent())
        case "hold": return try hold()
        case "release": return .release(try name("the name of a hold"))
        case "create": return .create(try newFile())
        case "close": return .close(try name("the name of a file"))
        case "dup":
            let file = try name("the name of a file")
            try require("as")
            return .dup(file, file: try name("a name for the other descriptor"))
        case "bind": return .bind(try binding())
        case "unbind":
            try require("slot")
            return .unbind(slot: try number("a slot"), on: try vm())
        case "dirty":
            try require("slot")
            return .dirty(slot: try number("a slot"), on: try vm())
        case "vm_attributes":
            let (extent, attributes) = (try extent(), try attributes())
            let flags: UInt64 = take("flags") ? try number("the flags word") : 0
            return .setAttributes(extent, attributes: attributes, flags: flags, on: try vm())
        case "prefault": return .preFault(try extent())
        case "clock": return .clock(try place())
        case "syscall":
            return .syscall(try name("the name of a file"), try choice(of: FileCall.self))
        case "peek": return .peek(try place())
        case "again": return .again
        case "zapped": return .zapped
        case "present": return .present(try extent())
        case "extension": return .extension(try number("the number of a capability"))
        case "hypercall": return .hypercall(try extent(), attributes: try attributes())
        case _ where ConfidentialAction.words.contains(word):
            return .confidential(try confidentialAction(word))
        default:
            let column = self.column
            guard
                case .child(let number) = try choice("a child, like `child` or `child1`", { Actor(word: $0) })
            else {
                throw error(at: column, "expected a child, like `child` or `child1`")
            }
            return .fork(child: number)
        }
    }

    private mutating func vm() throws(SyntaxError) -> VMName? {
        take("on") ? try choice(of: VMName.self) : nil
    }

    private mutating func remap() throws(SyntaxError) -> Action {
        let view = try name("the name of a view")
        try require("to")
        let pages: UInt64 = try number("a number of pages", upTo: LitmusTest.mostPages)
        try requirePages()
        try require("as")
        return .remap(view, pages: pages, view: try name("a name for the view"))
    }

    private mutating func policy() throws(SyntaxError) -> MemoryPolicy {
        let words = ["default", "local", "bind", "preferred"]
        switch try choice(
            "`default`, `local`, `bind` or `preferred`", among: words, { words.contains($0) ? $0 : nil })
        {
        case "bind": return .bind(try number("a NUMA node"))
        case "preferred": return .preferred(try number("a NUMA node"))
        case "local": return .local
        default: return .standard
        }
    }

    private mutating func policyFlags() -> PolicyFlags {
        var flags: PolicyFlags = []
        for (word, flag) in PolicyFlags.flagWords where take(word) { flags.insert(flag) }
        return flags
    }

    private mutating func hold() throws(SyntaxError) -> Action {
        let extent = try extent()
        let kind = take("by") ? try choice(of: HoldKind.self) : .vmsplice
        try require("as")
        return .hold(extent, by: kind, hold: try name("a name for the hold"))
    }

    private mutating func attributes() throws(SyntaxError) -> UInt64 {
        if take("attributes") { return try number("the attributes word") }
        return Attributes.word(
            try choice(
                "`shared`, `private` or `attributes` and a number",
                among: PageState.allCases.map { $0.rawValue }
            ) { PageState(rawValue: $0) })
    }

    private mutating func faultConversion() throws(SyntaxError) -> FaultConversion {
        let contents = try choice(of: ContentPolicy.self)
        return FaultConversion(contents, monitor: try monitorPolicy())
    }

    private mutating func monitorPolicy() throws(SyntaxError) -> MonitorPolicy {
        var policy = MonitorPolicy()
        policy.bisects = take("bisect")
        if take("attempts") {
            policy.attempts = try number("a number of attempts", upTo: MonitorPolicy.mostAttempts)
        }
        if take("chunk") { policy.chunk = try number("a number of pages", upTo: LitmusTest.mostPages) }
        return policy
    }

    private mutating func conversion() throws(SyntaxError) -> Conversion {
        var conversion = Conversion(try extent(), attributes: try attributes())
        if case .word(let word) = token.kind, let policy = ContentPolicy(rawValue: word), take(word) {
            conversion.contents = policy
            conversion.monitor = try monitorPolicy()
        }
        if take("flags") { conversion.flags = try number("the flags word") }
        while take("reserved") {
            let index: Int = try number("the number of a reserved word", upTo: 10)
            try require(sign: "=", UInt8(ascii: "="))
            conversion.reserved.append(Conversion.Word(index: index, value: try number("a word")))
        }
        if take("error_offset") { conversion.errorOffset = try number("a word") }
        if take("struct") { conversion.structure = try choice(of: Conversion.Structure.self) }
        return conversion
    }

    private mutating func newFile() throws(SyntaxError) -> NewFile {
        let name = try name("a name for the file")
        let column = self.column
        let count: UInt64 = try number("a size")
        let unit = try choice("`pages` or `bytes`", among: ["pages", "bytes"]) {
            ["pages": pageSize, "page": pageSize, "bytes": 1, "byte": 1][$0]
        }
        let (size, overflow) = count.multipliedReportingOverflow(by: unit)
        guard !overflow else { throw error(at: column, "the size exceeds 2^64 bytes") }
        var file = NewFile(name, size: size, flags: 0)
        for (word, bit) in NewFile.flagWords where take(word) { file.flags |= bit }
        if take("flags") { file.flags |= try number("the flags word") }
        file.preserves = take("preserve")
        file.vm = try vm()
        return file
    }

    private mutating func binding() throws(SyntaxError) -> Binding {
        try require("slot")
        let slot: UInt32 = try number("a slot")
        try require("to")
        let extent = try extent()
        try require("at")
        var binding = Binding(slot: slot, to: extent, gpa: try offset("a guest page, or `@` and a byte"))
        if take("flags") { binding.flags = try number("the flags word") }
        if take("address") { binding.address = try place() }
        binding.vm = try vm()
        return binding
    }
}
