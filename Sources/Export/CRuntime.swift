// SPDX-License-Identifier: MIT
import CReproducer

/// The runtime of exported programs: C text in pieces, of which a program gets those that it uses.
///
/// A piece is what stands between two blank lines at the left margin: a function, a type, a macro, a variable or an include.
struct CRuntime: Sendable {
    struct Piece: Sendable {
        let text: String
        /// The names that the piece defines. For an include, those in its comment.
        let names: [String]
        let uses: Set<String>
        let isInclude: Bool
        /// Whether it is a macro of one line.
        let isConstant: Bool
        /// Whether it is something that a header may lack.
        let isGuarded: Bool
    }

    let pieces: [Piece]
    /// The pieces that define a name.
    private let definers: [String: [Int]]

    /// The runtime of programs.
    static let program = CRuntime(unsafe text(creproducer_runtime))
    /// The runtime of programs whose VM has a private and a shared alias.
    static let aliases = CRuntime(
        replace(program.pieces, by: CRuntime(unsafe text(creproducer_aliases)).pieces))
    /// The same for tests in the kernel's tree.
    static let (selftest, selftestWithAliases) = (inKernelTree(program), inKernelTree(aliases))

    private static func text(_ embedded: creproducer_text) -> String {
        unsafe String(
            decoding: UnsafeBufferPointer(start: embedded.bytes, count: embedded.count), as: UTF8.self)
    }

    init(_ text: String) { self.init(Self.pieces(of: text)) }

    /// A VM is a `struct kvm_vm` there, and the kernel's own headers define the interface.
    private static func inKernelTree(_ runtime: CRuntime) -> CRuntime {
        let others = CRuntime(unsafe text(creproducer_selftest)).pieces
        let pieces = runtime.pieces.filter { piece in
            !piece.isGuarded || !piece.text.contains("KVM") && !piece.text.contains("GUEST_MEMFD")
        }
        return CRuntime(replace(pieces.map(\.withKernelVM), by: others))
    }

    /// Puts each of the other pieces in the place of one that defines the same name, together with those before it that
    /// replace none. Includes stand behind the others.
    private static func replace(_ pieces: [Piece], by others: [Piece]) -> [Piece] {
        let known = Set(pieces.lazy.filter { !$0.isInclude }.flatMap(\.names))
        var groups: [(names: [String], pieces: [Piece])] = []
        var group: [Piece] = []
        for other in others where !other.isInclude {
            group.append(other)
            guard other.names.contains(where: known.contains) else { continue }
            groups.append((other.names, group))
            group = []
        }
        var result = pieces.filter(\.isInclude) + others.filter(\.isInclude)
        for piece in pieces where !piece.isInclude {
            if let place = groups.firstIndex(where: { !Set($0.names).isDisjoint(with: piece.names) }) {
                result += groups.remove(at: place).pieces
            } else {
                result.append(piece)
            }
        }
        return result + group
    }

    private static func pieces(of text: String) -> [Piece] {
        var blocks: [[Substring]] = []
        var isAfterBlank = true
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("/* SPDX") || line.hasPrefix(Self.remark) {
                isAfterBlank = true
            } else if line.isEmpty {
                isAfterBlank = true
            } else {
                let isInside = line.first == "\t" || line.first == "}"
                if line.hasPrefix("#include") || blocks.isEmpty || isAfterBlank && !isInside {
                    blocks.append([])
                } else if isAfterBlank {
                    blocks[blocks.count - 1].append("")
                }
                blocks[blocks.count - 1].append(line)
                isAfterBlank = false
            }
        }
        return blocks.map(Piece.init)
    }

    private init(_ pieces: [Piece]) {
        self.pieces = pieces
        var definers: [String: [Int]] = [:]
        for (index, piece) in pieces.enumerated() {
            for name in piece.names { definers[name, default: []].append(index) }
        }
        self.definers = definers
    }

    /// The line of the runtime that explains the comments of includes.
    private static let remark = "/* The names after an include"

    /// The names that a piece defines, and the names of the C library in comments of includes.
    var names: Set<String> { Set(definers.keys) }

    /// The pieces that a text needs, in their order: each stands after those that it uses.
    func pieces(for text: String) -> [Piece] {
        var used: Set<Int> = []
        var open = Array(CTokens.identifiers(in: text))
        while let name = open.popLast() {
            for index in definers[name] ?? [] where used.insert(index).inserted { open += pieces[index].uses }
        }
        return used.sorted().map { pieces[$0] }
    }
}

extension CRuntime.Piece {
    init(_ lines: [Substring]) {
        let text = lines.joined(separator: "\n")
        isInclude = lines.first?.hasPrefix("#include") == true
        isConstant = lines.count == 1 && text.hasPrefix("#define")
        isGuarded = text.hasPrefix("#ifndef")
        if isInclude, let comment = text.firstRange(of: " /*") {
            self.text = String(text[..<comment.lowerBound])
            (names, uses) = (Array(CTokens.list(text[comment.upperBound...])), [])
        } else {
            self.text = text
            (names, uses) = (lines.flatMap(Self.names), CTokens.identifiers(in: text))
        }
    }

    /// A VM as a `struct kvm_vm`, where programs have its descriptor.
    private static let kernelVM = [
        ("int vm,", "struct kvm_vm *vm,"), ("int vm)", "struct kvm_vm *vm)"),
        ("int vm =", "struct kvm_vm *vm ="),
        ("int vm;", "struct kvm_vm *vm;"), ("ioctl(vm,", "ioctl(vm->fd,"),
    ]

    /// The piece for a program whose VMs are those of kvm_util.h.
    fileprivate var withKernelVM: Self {
        guard !isInclude else { return self }
        let text = Self.kernelVM.reduce(text) { $0.replacing($1.0, with: $1.1) }
        return Self(text.split(separator: "\n", omittingEmptySubsequences: false))
    }

    /// The names that a line defines: a macro, a type, constants of an enumeration, a function or a variable.
    private static func names(of line: Substring) -> [String] {
        if line.hasPrefix("#define ") { return CTokens.list(line.dropFirst(8)).prefix(1).map { $0 } }
        if line.drop(while: { $0 == "\t" }).hasPrefix("enum {") {
            return Array(CTokens.list(line.prefix { $0 != "}" }).dropFirst())
        }
        if line.hasPrefix("struct "), line.hasSuffix("{") { return [CTokens.list(line)[1]] }
        guard line.hasPrefix("static ") || line.hasPrefix("typedef ") else { return [] }
        return CTokens.list(line.prefix { !"(=[;".contains($0) }).suffix(1)
    }
}

/// Identifiers of a C text.
enum CTokens {
    private static func isPart(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    /// All words in order, of text without comments.
    static func list(_ text: some StringProtocol) -> [String] {
        text.utf8.split { !isPart($0) }.map { String(decoding: $0, as: UTF8.self) }
    }

    /// The identifiers outside of comments and strings.
    static func identifiers(in text: String) -> Set<String> {
        let bytes = Array(text.utf8)
        var names: Set<String> = []
        var place = 0
        while place < bytes.count {
            let byte = bytes[place]
            if byte == UInt8(ascii: "/"), place + 1 < bytes.count, bytes[place + 1] == UInt8(ascii: "*") {
                place += 2
                while place + 1 < bytes.count,
                    !(bytes[place] == UInt8(ascii: "*") && bytes[place + 1] == UInt8(ascii: "/"))
                {
                    place += 1
                }
                place += 2
            } else if byte == UInt8(ascii: "\"") {
                place += 1
                while place < bytes.count, bytes[place] != byte {
                    place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
                }
                place += 1
            } else if isPart(byte) {
                let start = place
                while place < bytes.count, isPart(bytes[place]) { place += 1 }
                if !isDigit(byte) { names.insert(String(decoding: bytes[start..<place], as: UTF8.self)) }
            } else {
                place += 1
            }
        }
        return names
    }
}
