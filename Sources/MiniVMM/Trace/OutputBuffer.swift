// SPDX-License-Identifier: MIT
public import SystemPackage

/// Buffered output to a descriptor. The owner must guard it.
public struct OutputBuffer: Sendable {
    private let descriptor: FileDescriptor
    /// Bytes appended since the last ``flush()``.
    public private(set) var bytes: [UInt8] = []
    private static let capacity = 1 << 16
    /// The first error of the descriptor; later output is dropped.
    public private(set) var failure: Errno?

    /// An empty buffer. The caller keeps ownership of the descriptor.
    public init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
        bytes.reserveCapacity(Self.capacity + 4096)
    }

    /// Never flushes by itself.
    @inline(__always)
    public mutating func append(_ byte: UInt8) { bytes.append(byte) }

    /// Appends the UTF-8 of the text, unescaped.
    public mutating func append(_ text: StaticString) {
        unsafe bytes.append(
            contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends the UTF-8 of the text, unescaped.
    public mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// Appends bytes verbatim.
    public mutating func append(contentsOf more: some Sequence<UInt8>) { bytes.append(contentsOf: more) }

    /// Removes the last bytes appended since ``flush()``.
    public mutating func removeLast(_ count: Int) { bytes.removeLast(count) }

    /// Appends decimal digits without leading zeros.
    public mutating func append(decimal value: UInt64) {
        guard value >= 10 else { return bytes.append(UInt8(truncatingIfNeeded: value) + 48) }
        // UInt64.max has 20 digits.
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var start = 20
            var rest = value
            repeat {
                start -= 1
                unsafe digits[start] = UInt8(truncatingIfNeeded: rest % 10) + 48
                rest /= 10
            } while rest > 0
            unsafe bytes.append(contentsOf: UnsafeBufferPointer(rebasing: digits[start...]))
        }
    }

    /// Appends lower-case hexadecimal digits without `0x` and without leading zeros.
    public mutating func append(hex value: UInt64) {
        var shift = value == 0 ? 0 : (63 - value.leadingZeroBitCount) / 4 * 4
        while shift >= 0 {
            let digit = UInt8(truncatingIfNeeded: value >> UInt64(shift)) & 15
            bytes.append(digit < 10 ? digit + 48 : digit + 87)
            shift -= 4
        }
    }

    /// A JSON string with its quotes. Characters that could control a terminal or change the writing direction are
    /// escaped.
    public mutating func append(quoted text: String) {
        guard text.utf8.contains(where: { $0 >= 0x80 && VisibleText.isSuspicious($0) }) else {
            return append(quotedPlain: text)
        }
        append(34)
        for scalar in text.unicodeScalars {
            guard scalar.value >= 0x80, VisibleText.isHidden(scalar) else {
                var one = OutputBuffer(descriptor)
                one.append(quotedPlain: String(scalar))
                append(contentsOf: one.bytes.dropFirst().dropLast())
                continue
            }
            append("\\u")
            for shift in [12, 8, 4, 0] { append(hex: UInt64(scalar.value) >> shift & 15) }
        }
        append(34)
    }

    private mutating func append(quotedPlain text: String) {
        append(34)
        for byte in text.utf8 {
            switch byte {
            case 34, 92:
                append(92)
                append(byte)
            case 10: append("\\n")
            case 0..<32, 127:
                append("\\u00")
                append(UInt8(48 + byte / 16))
                append(hex: UInt64(byte & 15))
            default: append(byte)
            }
        }
        append(34)
    }

    /// Appends a newline, and flushes if the buffer has 64 KiB or more.
    public mutating func endLine() {
        bytes.append(10)
        if bytes.count >= Self.capacity { flush() }
    }

    /// Writes all bytes to the descriptor and empties the buffer. After an error, which is in ``failure``, the
    /// bytes are dropped.
    public mutating func flush() {
        defer { bytes.removeAll(keepingCapacity: true) }
        guard failure == nil, !bytes.isEmpty else { return }
        do {
            _ = try descriptor.writeAll(bytes)
        } catch {
            failure = (error as? Errno) ?? .ioError
        }
    }
}
