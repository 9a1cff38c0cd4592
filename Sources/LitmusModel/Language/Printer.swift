// SPDX-License-Identifier: MIT
import ConversionModel

extension LitmusTest {
    /// The written form, without comments. It ends with a newline.
    public var text: String {
        var lines = [Layout.line("test", "\"\(name)\"")]
        if !hazards.isEmpty {
            lines.append(Layout.line("hazard", hazards.map { $0.description }.joined(separator: " ")))
        }
        for words in settings.lines { lines.append(Layout.line("kernel", words)) }
        for need in needs { lines.append(Layout.line("needs", need.description)) }
        if vm != .softwareProtected { lines.append(Layout.line("vm", vm.word)) }
        if hasTwoAliases { lines.append(Layout.line("aliases", "two")) }
        for memory in memory { lines.append(Layout.line("memory", memory.description)) }
        for entry in body {
            switch entry {
            case .step(let step): lines.append(step.description)
            case .parallel(let block):
                lines.append("parallel")
                lines += block.steps.map { $0.description }
                if let preemption = block.preemption {
                    lines.append(Layout.line("preempted", preemption.description))
                }
                lines += block.clauses.map { $0.description }
                lines.append("end")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}

/// Aligns steps and expectations in columns.
private enum Layout {
    static func line(_ first: String, _ rest: String) -> String {
        first + String(repeating: " ", count: max(1, 10 - first.utf8.count)) + rest
    }

    static func line(_ first: String, _ rest: String, _ answer: String?) -> String {
        let line = line(first, rest)
        guard let answer else { return line }
        return line + String(repeating: " ", count: max(1, 46 - line.utf8.count)) + "=> " + answer
    }
}

extension Hazard: CustomStringConvertible {
    /// As a test writes it: `A6`, `H22` or `V16`.
    public var description: String { "\(table.rawValue)\(number)" }
}

extension Need: CustomStringConvertible {
    /// The text after `needs`: `holder io_uring`.
    public var description: String {
        switch self {
        case .inPlace: "in-place"
        case .preservation: "preservation"
        case .references: "references"
        case .holder(let kind): "holder \(kind.rawValue)"
        case .nodes(let count): "nodes \(count)"
        }
    }
}

extension KernelSettings {
    /// The text after `kernel`, one element for each line.
    package var lines: [String] {
        [
            isInPlaceOff ? "in-place off" : nil, attributeRuns.map { "runs \($0)" },
            design.map { "design \($0.rawValue)" },
            keptDirection.map { "keeps to-\($0.rawValue)" },
        ].compactMap { $0 }
    }
}

/// `1 page`, `2 pages`.
private func pageCount(_ pages: UInt64) -> String { "\(pages) page\(pages == 1 ? "" : "s")" }

extension Memory: CustomStringConvertible {
    /// The text after `memory`: `4 pages shared`, with the name before it if it is not ``Name/ram``.
    public var description: String {
        (name == .ram ? "" : "\(name) ") + "\(pageCount(pages)) \(initial.rawValue)"
            + (isUnbound ? " unbound" : "")
    }
}

extension Step: CustomStringConvertible {
    /// The step without its expectation, on one line: `vcpu0 read shared:0 converting preserve`.
    package var text: String { "\(actor) \(what)" }

    private var what: String { "\(action)" + (onFault.map { " converting \($0)" } ?? "") }

    /// The text after `=>`; nil if there is none.
    package var answer: String? {
        switch expectation {
        case .unspecified: nil
        case .anyOf(let outcomes): outcomes.map { $0.description }.joined(separator: " or ")
        case .named(let name): name.description
        }
    }

    /// The line of the step: actor, action and expectation in columns.
    public var description: String { Layout.line(actor.description, what, answer) }
}

extension Clause: CustomStringConvertible {
    /// The line of the clause: `allowed   a = ok, b = 0x41`.
    public var description: String {
        Layout.line(
            kind.rawValue,
            conditions.map { "\($0.result) = \($0.outcome)" }.joined(separator: ", "))
    }
}

extension StepOutcome: CustomStringConvertible {
    /// The kind of the outcome, without numbers.
    package var word: String {
        switch self {
        case .ok: "ok"
        case .errno(let number, _): ErrorNumber(rawValue: number).symbol ?? "errno"
        case .value: "byte"
        case .sigbus: "SIGBUS"
        case .differs: "differs"
        case .fault: "fault"
        case .mmio: "mmio"
        case .garbage: "garbage"
        case .status(let status, _): status.rawValue
        }
    }

    /// As a test writes it: `EAGAIN at 2`. An errno without a known symbol is `errno 200`.
    public var description: String {
        switch self {
        case .ok: "ok"
        case .errno(let number, let place):
            ErrorNumber(rawValue: number).name + (place.map { " at \(written($0))" } ?? "")
        case .value(let byte): hex(UInt64(byte))
        case .sigbus(let place): "SIGBUS" + (place.map { " at \(written($0))" } ?? "")
        case .differs(let place): "differs at \(written(place))"
        case .fault(let state, let place):
            "fault \(state.rawValue)" + (place.map { " at \(written($0))" } ?? "")
        case .mmio: "mmio"
        case .garbage: "garbage"
        case .status(let status, let place): status.rawValue + (place.map { " at \(written($0))" } ?? "")
        }
    }
}

extension Action: CustomStringConvertible {
    /// The action as a test writes it, without its actor: `read 2`.
    public var description: String {
        let arguments = arguments
        return arguments.isEmpty ? word : word + " " + arguments
    }

    /// The word with which the action begins: `read`, `mprotect`, `vm_attributes`.
    public var word: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .fill: "fill"
        case .check: "check"
        case .convert: "convert"
        case .map: "map"
        case .unmap: "unmap"
        case .remap: "mremap"
        case .protect: "mprotect"
        case .mbind: "mbind"
        case .migrate: "migrate"
        case .node: "node"
        case .advise: "madvise"
        case .allocate: "allocate"
        case .punch: "punch"
        case .hold: "hold"
        case .release: "release"
        case .create: "create"
        case .close: "close"
        case .dup: "dup"
        case .bind: "bind"
        case .unbind: "unbind"
        case .dirty: "dirty"
        case .setAttributes: "vm_attributes"
        case .hypercall: "hypercall"
        case .again: "again"
        case .fork: "fork"
        case .preFault: "prefault"
        case .clock: "clock"
        case .syscall: "syscall"
        case .peek: "peek"
        case .zapped: "zapped"
        case .present: "present"
        case .extension: "extension"
        case .every(_, let action): action.word
        case .confidential(let action): action.word
        }
    }

    private var arguments: String {
        switch self {
        case .read(let place): "\(place)"
        case .write(let place, let byte): "\(place) \(hex(UInt64(byte)))"
        case .fill(let extent, let byte): "\(extent) \(hex(UInt64(byte)))"
        case .check(let extent, let byte): "\(extent) \(hex(UInt64(byte)))"
        case .convert(let conversion): "\(conversion)"
        case .map(let extent, let view): "\(extent) as \(view)"
        case .unmap(let view): "\(view)"
        case .remap(let view, let pages, let new): "\(view) to \(pageCount(pages)) as \(new)"
        case .protect(let extent, let protection): "\(extent) \(protection.rawValue)"
        case .mbind(let extent, let policy, let flags): "\(extent) \(policy.words)\(flags.words)"
        case .migrate(let place, let node): "\(place) to \(node)"
        case .node(let place): "\(place)"
        case .advise(let extent, let advice): "\(extent) \(advice.rawValue)"
        case .allocate(let extent): "\(extent)"
        case .punch(let extent): "\(extent)"
        case .hold(let extent, let kind, let hold):
            "\(extent)" + (kind == .vmsplice ? "" : " by \(kind.rawValue)") + " as \(hold)"
        case .release(let hold): "\(hold)"
        case .create(let file): "\(file)"
        case .close(let file): "\(file)"
        case .dup(let file, let copy): "\(file) as \(copy)"
        case .bind(let binding): "\(binding)"
        case .unbind(let slot, let vm): "slot \(slot)" + (vm.map { " on \($0.rawValue)" } ?? "")
        case .dirty(let slot, let vm): "slot \(slot)" + (vm.map { " on \($0.rawValue)" } ?? "")
        case .setAttributes(let extent, let attributes, let flags, let vm):
            "\(extent) \(written(attributes: attributes))"
                + (flags == 0 ? "" : " flags \(hex(flags))") + (vm.map { " on \($0.rawValue)" } ?? "")
        case .hypercall(let extent, let attributes): "\(extent) \(written(attributes: attributes))"
        case .again: ""
        case .fork(let child): "\(Actor.child(child))"
        case .preFault(let extent): "\(extent)"
        case .clock(let place): "\(place)"
        case .syscall(let file, let call): "\(file) \(call.rawValue)"
        case .peek(let place): "\(place)"
        case .zapped: ""
        case .present(let extent): "\(extent)"
        case .extension(let number): "\(number)"
        case .every(let pattern, let action):
            "every \(pattern.stride) of " + action.arguments(on: pattern.extent)
        case .confidential(let action): action.arguments
        }
    }

    /// The arguments of an action that accepts a pattern, with the whole range in place of the page.
    private func arguments(on range: Extent) -> String {
        switch self {
        case .read: "\(range)"
        case .write(_, let byte): "\(range) \(hex(UInt64(byte)))"
        default: (moved(to: range) ?? self).arguments
        }
    }
}

extension MemoryPolicy {
    fileprivate var words: String {
        switch self {
        case .standard: "default"
        case .local: "local"
        case .bind(let node): "bind \(node)"
        case .preferred(let node): "preferred \(node)"
        }
    }
}

extension PolicyFlags {
    /// In the order in which they are written.
    package static let flagWords: [(String, PolicyFlags)] = [("strict", .strict), ("move", .move)]

    fileprivate var words: String {
        Self.flagWords.filter { contains($0.1) }.map { " " + $0.0 }.joined()
    }
}

extension Conversion: CustomStringConvertible {
    /// The text after `convert`: `0..3 private preserve`.
    public var description: String {
        var words = ["\(extent)", written(attributes: attributes)]
        if let contents {
            words.append(contents.rawValue)
            words += monitor.words
        }
        if flags != 0 { words.append("flags \(hex(flags))") }
        words += reserved.map { "reserved \($0.index) = \(hex($0.value))" }
        if errorOffset != 0 { words.append("error_offset \(hex(errorOffset))") }
        if structure != .writable { words.append("struct \(structure.rawValue)") }
        return words.joined(separator: " ")
    }
}

extension MonitorPolicy {
    /// The words for values other than the defaults.
    fileprivate var words: [String] {
        [bisects ? "bisect" : nil, attempts != 1 ? "attempts \(attempts)" : nil, chunk.map { "chunk \($0)" }]
            .compactMap { $0 }
    }
}

extension FaultConversion: CustomStringConvertible {
    /// The text after `converting`: `preserve bisect attempts 2`.
    public var description: String { ([contents.rawValue] + monitor.words).joined(separator: " ") }
}

extension NewFile: CustomStringConvertible {
    /// The text after `create`: `f 4 pages mmap init_shared`.
    public var description: String {
        var words = ["\(name)"]
        words.append(size > 0 && size % pageSize == 0 ? pageCount(size / pageSize) : "\(size) bytes")
        var rest = flags
        for (word, bit) in Self.flagWords where flags & bit != 0 {
            words.append(word)
            rest &= ~bit
        }
        if rest != 0 { words.append("flags \(hex(rest))") }
        if preserves { words.append("preserve") }
        if let vm { words.append("on \(vm.rawValue)") }
        return words.joined(separator: " ")
    }

    /// In the order in which they are written.
    package static let flagWords = [
        ("mmap", GuestMemfdFlags.mmap.rawValue), ("init_shared", GuestMemfdFlags.initShared.rawValue),
    ]
}

extension Binding: CustomStringConvertible {
    /// The text after `bind`: `slot 1 to f:0..3 at 16`.
    public var description: String {
        var words = ["slot \(slot) to \(extent) at \(written(gpa))"]
        if flags != Self.guestMemfd { words.append("flags \(hex(UInt64(flags)))") }
        if let address { words.append("address \(address)") }
        if let vm { words.append("on \(vm.rawValue)") }
        return words.joined(separator: " ")
    }
}

extension Place: CustomStringConvertible {
    /// A page number if the byte is the first of a page, else a byte: `2`, `other:2`, `@0x1001`.
    public var description: String { (name == .ram ? "" : "\(name):") + written(offset) }
}

extension Extent: CustomStringConvertible {
    /// Page numbers if the range is whole pages, else bytes: `2`, `0..3`, `other:0..1`, `@0x1+4097`.
    public var description: String {
        let prefix = name == .ram ? "" : "\(name):"
        guard let pages else { return "\(prefix)@\(hex(offset))+\(size)" }
        return prefix + "\(pages.first)" + (pages.last > pages.first ? "..\(pages.last)" : "")
    }
}

/// A byte offset: a page number if it is the first byte of a page.
package func written(_ offset: UInt64) -> String {
    offset % pageSize == 0 ? "\(offset / pageSize)" : "@\(hex(offset))"
}

private func written(attributes: UInt64) -> String {
    Attributes.state(attributes)?.rawValue ?? "attributes \(hex(attributes))"
}

package func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
