// SPDX-License-Identifier: MIT
/// Little-endian fields of a file, at checked offsets.
struct ImageReader {
    typealias Field = ImageError.Field

    let bytes: [UInt8]

    func slice(_ offset: UInt64, _ count: UInt64, _ field: Field) throws(ImageError) -> [UInt8] {
        let (end, overflow) = offset.addingReportingOverflow(count)
        guard !overflow, end <= UInt64(bytes.count) else {
            throw .cutShort(field, offset: offset, end: overflow ? .max : end, fileSize: bytes.count)
        }
        return Array(bytes[Int(offset)..<Int(end)])
    }
    func number(_ offset: UInt64, _ count: UInt64, _ field: Field) throws(ImageError) -> UInt64 {
        try slice(offset, count, field).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    func byte(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt8 {
        UInt8(truncatingIfNeeded: try number(offset, 1, field))
    }
    func half(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt16 {
        UInt16(truncatingIfNeeded: try number(offset, 2, field))
    }
    func half32(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt32 {
        UInt32(truncatingIfNeeded: try number(offset, 4, field))
    }
    func word(_ offset: UInt64, _ field: Field) throws(ImageError) -> UInt64 {
        try number(offset, 8, field)
    }

    /// The offset of the first `magic` in the first `limit` bytes, at a multiple of `alignment`.
    func find(_ magic: UInt32, within limit: Int, alignment: Int) -> UInt64? {
        let last = min(limit, bytes.count) - 4
        guard last >= 0 else { return nil }
        for offset in stride(from: 0, through: last, by: alignment)
        where bytes[offset] == UInt8(truncatingIfNeeded: magic) {
            let here = (0..<4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32(bytes[offset + $1]) }
            if here == magic { return UInt64(offset) }
        }
        return nil
    }
}
