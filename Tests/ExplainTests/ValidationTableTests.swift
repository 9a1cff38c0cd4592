// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Explain

/// Compares the validation table of `explain` with the model.
struct ValidationTableTests {
    /// A linear congruential generator: the same calls on every machine.
    private struct Dice {
        var state: UInt64
        mutating func roll(_ sides: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % sides
        }
        mutating func pick<T>(_ values: [T]) -> T { values[Int(roll(UInt64(values.count)))] }
    }

    private static let versions: [(InterfaceVersion, ABIProfile)] = InterfaceVersion.allCases.compactMap {
        version in ABIProfile(rawValue: version.rawValue).map { (version, $0) }
    }

    @Test func everyVersionOfTheModelIsExplained() {
        #expect(Self.versions.count == ABIProfile.allCases.count)
    }

    private func call(_ file: any KVMGuestMemfd, _ call: ConversionArguments) -> (Errno?, UInt64) {
        var request = ckvm_memory_attributes2()
        request.offset = call.offset ?? 0
        request.size = call.size ?? 0
        request.attributes = call.attributes ?? 0
        request.flags = call.flags ?? 0
        request.reserved.1 = call.reserved ?? 0
        request.error_offset = call.errorOffset ?? 0
        do throws(Errno) { try file.convertInPlace(&request) } catch { return (error, request.error_offset) }
        return (nil, request.error_offset)
    }

    private static let pages: UInt64 = 8

    private func randomCall(_ dice: inout Dice, _ version: InterfaceVersion) -> ConversionArguments {
        var call = ConversionArguments()
        call.offset = dice.pick([0, 1, 2, 3, 7, 8, 9]) * pageSize
        call.size = dice.pick([0, 1, 2, 3, 8, 9]) * pageSize
        call.attributes = dice.pick([0, 8, 8, 0, 8, 0, 8, 4])
        call.flags = dice.pick([0, 0, 0, 0, 1, 2, 3, 8])
        call.reserved = dice.pick([0, 0, 0, 0, 0, 0, 0, 1])
        if dice.roll(8) == 0 { call.offset = (call.offset ?? 0) + 5 }
        if dice.roll(8) == 0 { call.size = (call.size ?? 0) + 5 }
        if dice.roll(16) == 0 { call.size = 0 &- pageSize }
        if version.refusesErrorOffset, dice.roll(4) == 0 { call.errorOffset = pageSize }
        return call
    }

    /// The same call with some of its arguments unknown.
    private static func part(of call: ConversionArguments, _ dice: inout Dice) -> ConversionArguments {
        var part = call
        for field in [
            \ConversionArguments.offset, \.size, \.attributes, \.flags, \.reserved, \.errorOffset, \.fileSize,
        ] where dice.roll(3) == 0 { part[keyPath: field] = nil }
        if dice.roll(3) == 0 { part.hasPrivateMemory = nil }
        if dice.roll(3) == 0 { part.states = nil }
        return part
    }

    /// Random calls with all arguments known: the model's answer is among the possibilities, and if one follows from the
    /// arguments, it is that one.
    @Test(arguments: versions) func explainAndTheModelAgree(
        _ version: InterfaceVersion, _ profile: ABIProfile
    ) throws {
        var dice = Dice(state: 7)
        var seen: Set<Int> = []
        for _ in 0..<2000 {
            let type: VMType = dice.roll(8) == 0 ? .default : .softwareProtected
            let backend = SoftKVM(
                .init(abi: profile, maximumAttributeRuns: dice.roll(8) == 0 ? 2 : .max))
            let vm = try backend.createVM(type, sharedBit: nil)
            let file = try vm.createGuestMemfd(size: Self.pages * pageSize, flags: [.mmap, .initShared])
            let mapping = try file.map(offset: 0, length: Self.pages * pageSize)
            // Some pages private, some in use.
            var before = AttributeMap(size: Self.pages * pageSize, initial: .shared)
            if type == .softwareProtected, dice.roll(2) == 0 {
                var first = ConversionArguments()
                first.size = dice.pick([1, 2, 4]) * pageSize
                first.attributes = 8
                if self.call(file, first).0 == nil, let size = first.size,
                    let range = PageRange(start: 0, size: size)
                {
                    before.set(range, to: .private)
                }
            }
            let hold = dice.roll(2) == 0 ? try? mapping.hold(at: 5 * pageSize, length: pageSize) : nil
            defer { hold?.release() }
            var known = randomCall(&dice, version)
            known.fileSize = Self.pages * pageSize
            known.hasPrivateMemory = type == .softwareProtected
            if let offset = known.offset, let size = known.size,
                let range = PageRange(
                    start: offset, size: version.truncatesSize ? size & ~(pageSize - 1) : size),
                range.end <= Self.pages * pageSize
            {
                known.states =
                    before.uniformValue(of: range).flatMap { .init(rawValue: $0.rawValue) } ?? .mixed
            }
            let (errno, errorOffset) = self.call(file, known)
            let possible = ValidationTable(version).possibilities(known)
            let matching = possible.filter { $0.errno == errno }
            #expect(!matching.isEmpty, "\(errno?.name ?? "0") for \(known)")
            // The kernel, the struct and its memory are always present here, so a row that follows is the answer. The
            // exception is error_offset, whose value may be from input or from output.
            if let certain = possible.last, certain.follows, known.errorOffset == nil {
                #expect(certain.errno == errno, "\(certain.row) for \(known)")
            }
            if let errno, [.resourceTemporarilyUnavailable, .noMemory].contains(errno) {
                let table = ValidationTable(version)
                #expect(matching.contains { table.fits(errorOffset, $0.errorOffset, known) })
                #expect(!matching.contains { table.fits(errorOffset + 1, $0.errorOffset, known) })
            }
            for row in matching { seen.insert(row.row.rawValue) }
            // With fewer known arguments more rows are possible, and the answer is among them.
            let part = Self.part(of: known, &dice)
            let left = ValidationTable(version).possibilities(part)
            #expect(left.contains { $0.errno == errno }, "\(errno?.name ?? "0") for \(part) of \(known)")
            if let certain = possible.last, certain.follows {
                #expect(left.contains { $0.row == certain.row }, "\(certain.row) for \(part) of \(known)")
            }
        }
        #expect(seen.isSuperset(of: version.truncatesSize ? [3, 4, 5, 6, 7, 8, 9, 10, 11] : Set(2...11)))
    }

    /// Arguments as a user would type them, and the rows that they must lead to.
    @Test(
        arguments: [
            ("ENOTTY", "", [0]), ("EFAULT", "", [1, 12]), ("EINVAL", "flags=1", [2]),
            ("EINVAL", "reserved=1", [3]),
            ("EINVAL", "vm=default", [4]), ("EINVAL", "attributes=4", [5]), ("EINVAL", "size=0", [6]),
            ("EINVAL", "offset=0xfffffffffffff000 size=0x2000", [6]), ("EINVAL", "offset=0 size=0x1800", [7]),
            ("EINVAL", "offset=1 size=4096", [7]), ("EINVAL", "offset=0x4000 size=4K file=16K", [8]),
            ("EINVAL", "offset=0x3000 size=8K file=16K", [8]), ("EINVAL", "size=32K file=16K", [8]),
            ("ENOMEM", "", [10]),
            ("ENOMEM", "offset=0x2000 size=0x4000 error_offset=0x2000", [10]),
            ("EAGAIN", "offset=0x2000 size=0x4000 error_offset=0x3000 attributes=private", [11]),
            ("EINVAL", "", [2, 3, 4, 5, 6, 7, 8]), ("11", "", [11]), ("EAGAIN", "attributes=shared", []),
            ("EAGAIN", "offset=0 size=5", []), ("0", "state=private to=private", [9]), ("ok", "", [9]),
            ("0", "state=mixed to=private", []),
            ("EAGAIN", "offset=0x2000 size=0x1000 error_offset=0x3000", [11]),
        ] as [(String, String, [Int])])
    func rowsAreFoundFromArguments(_ errno: String, _ arguments: String, _ rows: [Int]) throws {
        let words = ["errno", errno] + arguments.split(separator: " ").map(String.init)
        guard case .found(let found) = Library.answer(words) else {
            Issue.record("\(words)")
            return
        }
        let text = try #require(found.first)
        #expect(text.rows == rows, "\(text)")
        if rows.isEmpty, errno != "0" {
            let means = text.text(.means) ?? ""
            #expect(means.contains("contradicts the interface") || means.contains("No row"), "\(means)")
        }
    }

    @Test func anImpossibleErrorOffsetIsReported() throws {
        let words = ["errno", "EAGAIN", "offset=0x2000", "size=0x1000", "error_offset=0x3000"]
        guard case .found(let found) = Library.answer(words) else { return #expect(Bool(false)) }
        #expect(found.first?.text(.means)?.contains("contradicts the interface") == true)
    }

    @Test func versionsDiffer() throws {
        func rows(_ words: String, _ version: InterfaceVersion) -> [Int] {
            guard
                case .found(let found) = Library.answer(
                    words.split(separator: " ").map(String.init), version: version)
            else { return [] }
            return found.first?.rows ?? []
        }
        let retried = "errno EINVAL error_offset=0x1000"
        #expect(rows(retried, .rfcV2) == [3] && rows(retried, .rfcV4) == [3])
        #expect(rows(retried, .linux74) != [3] && rows(retried, .rfcV5) != [3])
        #expect(rows("errno EINVAL offset=0 size=0x1800", .rfcV1) != [7])
        #expect(rows("errno EOPNOTSUPP flags=zero to=private vm=protected", .rfcV4) == [2])
        #expect(rows("errno EOPNOTSUPP flags=zero to=private vm=protected", .linux74) == [])
        #expect(rows("errno EAGAIN to=shared", .rfcV1) == [11])
    }

    @Test func otherVersionsThatFitAreNamed() throws {
        func versions(_ words: String, _ version: InterfaceVersion = .linux74) throws -> String? {
            guard
                case .found(let found) = Library.answer(
                    words.split(separator: " ").map(String.init), version: version)
            else { return nil }
            return try #require(found.first).text(.versions)
        }
        #expect(try versions("errno EOPNOTSUPP")?.hasPrefix("rfc-v3, rfc-v4, rfc-v5 ") == true)
        #expect(try versions("errno EAGAIN to=shared")?.hasPrefix("rfc-v1 ") == true)
        let fine = "offset=0 size=4096 to=private flags=0 reserved=0 file=4096 vm=protected"
        #expect(
            try versions("errno EINVAL \(fine) error_offset=4096")?.hasPrefix("rfc-v2, rfc-v3, rfc-v4 ")
                == true)
        #expect(try versions("errno EINVAL offset=0 size=0x1800", .linux74) == nil)
        #expect(try versions("errno EPERM") == nil)
    }

    /// Texts depend on the version.
    @Test func textsDependOnTheVersion() throws {
        func text(_ words: String, _ version: InterfaceVersion) throws -> String {
            guard
                case .found(let found) = Library.answer(
                    words.split(separator: " ").map(String.init), version: version)
            else { return "" }
            let sections = try #require(found.first).sections
            return sections.map { "\($0.label.rawValue): \($0.text)" }.joined(separator: "\n")
        }
        #expect(try text("errno EFAULT", .linux74).contains("128 bytes"))
        #expect(try text("errno EFAULT", .rfcV1).contains("64 bytes"))
        #expect(try text("errno ENOTTY", .rfcV1).contains("0xd6"))
        #expect(try text("errno EINVAL flags=3", .rfcV4).contains("PRESERVE"))
        #expect(try !text("errno EINVAL flags=4", .v6).contains("content mode"))
        #expect(try text("errno EAGAIN", .rfcV1).contains("both directions"))
        #expect(try text("errno EAGAIN", .v6).contains("H2"))
        #expect(try !text("errno EAGAIN", .linux74).contains("H2"))
        #expect(try text("errno 0 offset=0 size=0x1800", .rfcV1).contains("down to 0x1000"))
        #expect(try text("errno EINVAL error_offset=4096", .rfcV2).contains("retry-with-the-same-struct"))
        #expect(try text("errno 0 state=shared to=shared", .rfcV5).contains("random bytes"))
    }
}
