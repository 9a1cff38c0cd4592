// SPDX-License-Identifier: MIT
/// Finds the fields of one flat JSON object in place, without making strings.
struct LineScanner: Sendable {
    struct Field: Sendable {
        /// The bytes of the key between its quotes.
        var key = 0..<0
        var keyHash: UInt64 = 0
        var type = RecordedTrace.ValueType.number
        /// The number; 1 for true, 0 for false.
        var bits: Int64 = 0
        /// The bytes of a text between its quotes. Values that are neither text, whole number nor flag are texts
        /// that consist of their JSON source.
        var text = 0..<0
        var textHash: UInt64 = 0
        var isEscaped = false

        func keyIs(_ name: StaticString, in bytes: [UInt8]) -> Bool { Self.equal(key, name, bytes) }
        func textIs(_ name: StaticString, in bytes: [UInt8]) -> Bool { Self.equal(text, name, bytes) }

        private static func equal(_ range: Range<Int>, _ name: StaticString, _ bytes: [UInt8]) -> Bool {
            guard range.count == name.utf8CodeUnitCount else { return false }
            for index in 0..<range.count {
                guard unsafe bytes[range.lowerBound + index] == name.utf8Start[index] else { return false }
            }
            return true
        }
    }

    static let seed: UInt64 = 0xcbf2_9ce4_8422_2325
    static let prime: UInt64 = 0x100_0000_01b3
    /// The limit for the nesting of arrays and objects.
    private static let deepest = 64

    private(set) var fields: [Field] = []
    private var position = 0
    private var end = 0

    /// Scans one line.
    mutating func scan(_ bytes: [UInt8], _ line: Range<Int>) throws(ReportError) {
        fields.removeAll(keepingCapacity: true)
        position = line.lowerBound
        end = line.upperBound
        skipSpace(bytes)
        try expect(123, bytes)
        skipSpace(bytes)
        if peek(bytes) == 125 {
            position += 1
        } else {
            while true {
                var field = Field()
                skipSpace(bytes)
                (field.key, field.keyHash, _) = try quoted(bytes)
                skipSpace(bytes)
                try expect(58, bytes)
                skipSpace(bytes)
                try value(bytes, &field)
                fields.append(field)
                guard fields.count <= 1000 else { throw ReportError("more than 1000 keys") }
                skipSpace(bytes)
                let next = peek(bytes)
                position += 1
                if next == 44 { continue }
                if next == 125 { break }
                throw ReportError("not JSON: a comma or a brace is missing")
            }
        }
        skipSpace(bytes)
        guard position == end else { throw ReportError("not JSON: more than one object in a line") }
    }

    private func peek(_ bytes: [UInt8]) -> UInt8 { position < end ? bytes[position] : 0 }

    private mutating func expect(_ byte: UInt8, _ bytes: [UInt8]) throws(ReportError) {
        guard peek(bytes) == byte else {
            throw ReportError("not JSON: '\(Character(Unicode.Scalar(byte)))' is missing")
        }
        position += 1
    }

    private mutating func skipSpace(_ bytes: [UInt8]) {
        while position < end, [32, 9, 13].contains(bytes[position]) { position += 1 }
    }

    private mutating func quoted(_ bytes: [UInt8]) throws(ReportError) -> (Range<Int>, UInt64, Bool) {
        try expect(34, bytes)
        let start = position
        var hash = Self.seed
        var isEscaped = false
        while position < end {
            let byte = bytes[position]
            if byte == 34 {
                position += 1
                return (start..<position - 1, hash, isEscaped)
            }
            if byte == 92 {
                isEscaped = true
                hash = (hash ^ UInt64(byte)) &* Self.prime
                position += 1
                guard position < end else { break }
            }
            hash = (hash ^ UInt64(bytes[position])) &* Self.prime
            position += 1
        }
        throw ReportError("not JSON: a string does not end")
    }

    private mutating func value(_ bytes: [UInt8], _ field: inout Field) throws(ReportError) {
        switch peek(bytes) {
        case 34:
            field.type = .text
            (field.text, field.textHash, field.isEscaped) = try quoted(bytes)
        case 45, 48...57: try number(bytes, &field)
        case 116 where word("true", bytes):
            field.type = .flag
            field.bits = 1
        case 102 where word("false", bytes): field.type = .flag
        case 110 where word("null", bytes): raw(position - 4, bytes, &field)
        case 91, 123:
            let start = position
            try skipNested(bytes)
            raw(start, bytes, &field)
        default: throw ReportError("not JSON: a value is missing")
        }
    }

    /// Stores a value as a text that consists of its JSON source.
    private func raw(_ start: Int, _ bytes: [UInt8], _ field: inout Field) {
        field.type = .text
        field.text = start..<position
        field.textHash = bytes[field.text].reduce(Self.seed) { ($0 ^ UInt64($1)) &* Self.prime }
    }

    private mutating func word(_ word: StaticString, _ bytes: [UInt8]) -> Bool {
        let count = word.utf8CodeUnitCount
        guard position + count <= end else { return false }
        for index in 0..<count {
            guard unsafe bytes[position + index] == word.utf8Start[index] else { return false }
        }
        position += count
        return true
    }

    private mutating func number(_ bytes: [UInt8], _ field: inout Field) throws(ReportError) {
        let start = position
        let isNegative = bytes[position] == 45
        if isNegative { position += 1 }
        var magnitude: UInt64 = 0
        var isWhole = position < end && (48...57).contains(bytes[position])
        while position < end, (48...57).contains(bytes[position]) {
            let (tens, overflow) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.addingReportingOverflow(UInt64(bytes[position] - 48))
            if overflow || carry { isWhole = false }
            magnitude = sum
            position += 1
        }
        // No key of the schema has fractions or exponents. They are stored as text.
        while position < end,
            [43, 45, 46, 69, 101].contains(bytes[position]) || (48...57).contains(bytes[position])
        {
            isWhole = false
            position += 1
        }
        guard isWhole, !isNegative || magnitude <= 1 << 53 else { return raw(start, bytes, &field) }
        field.type = magnitude <= 1 << 53 ? .number : .wide
        field.bits = isNegative ? -Int64(magnitude) : Int64(bitPattern: magnitude)
    }

    private mutating func skipNested(_ bytes: [UInt8]) throws(ReportError) {
        // The closing brackets that are still expected.
        var open: [UInt8] = []
        repeat {
            switch peek(bytes) {
            case 91: open.append(93)
            case 123: open.append(125)
            case let bracket where bracket == 93 || bracket == 125:
                guard open.popLast() == bracket else {
                    throw ReportError("not JSON: mismatched brackets")
                }
            case 34:
                _ = try quoted(bytes)
                continue
            default: break
            }
            position += 1
            guard open.count <= Self.deepest else {
                throw ReportError("values nested more than \(Self.deepest) deep")
            }
            guard position < end || open.isEmpty else { throw ReportError("not JSON: a value does not end") }
        } while !open.isEmpty
    }

    /// Replaces the escape sequences of a text.
    static func unescape(_ source: ArraySlice<UInt8>) -> String {
        var scalars = String.UnicodeScalarView()
        var plain: [UInt8] = []
        func flush() {
            scalars.append(contentsOf: String(decoding: plain, as: UTF8.self).unicodeScalars)
            plain.removeAll()
        }
        func unit(_ index: Int) -> UInt32? {
            guard index + 6 <= source.endIndex, source[index] == 92, source[index + 1] == 117 else {
                return nil
            }
            let digits = String(decoding: source[index + 2..<index + 6], as: UTF8.self)
            return digits.allSatisfy(\.isHexDigit) ? UInt32(digits, radix: 16) : nil
        }
        var index = source.startIndex
        while index < source.endIndex {
            guard source[index] == 92, index + 1 < source.endIndex else {
                plain.append(source[index])
                index += 1
                continue
            }
            if let high = unit(index) {
                flush()
                index += 6
                var code = high
                if (0xd800..<0xdc00).contains(high), let low = unit(index), (0xdc00..<0xe000).contains(low) {
                    code = 0x10000 + (high - 0xd800) << 10 + (low - 0xdc00)
                    index += 6
                }
                scalars.append(Unicode.Scalar(code) ?? "\u{fffd}")
                continue
            }
            switch source[index + 1] {
            case 110: plain.append(10)
            case 116: plain.append(9)
            case 114: plain.append(13)
            case 98: plain.append(8)
            case 102: plain.append(12)
            default: plain.append(source[index + 1])
            }
            index += 2
        }
        flush()
        return String(scalars)
    }
}
