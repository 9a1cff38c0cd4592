// SPDX-License-Identifier: MIT
import ConversionModel

extension Action {
    /// The bytes of the extent.
    package var extent: Extent? {
        switch self {
        case .every(let pattern, _): pattern.extent
        case .read(let place), .write(let place, _): Extent(place.name, offset: place.offset, size: 1)
        case .fill(let extent, _), .check(let extent, _), .map(let extent, _), .advise(let extent, _),
            .allocate(let extent), .punch(let extent), .hold(let extent, _, _), .hypercall(let extent, _):
            extent
        case .convert(let conversion): conversion.extent
        case .bind(let binding): binding.extent
        case .protect(let extent, _), .mbind(let extent, _, _), .setAttributes(let extent, _, _, _): extent
        case .migrate(let place, _), .node(let place): Extent(place.name, offset: place.offset, size: 1)
        case .present(let extent), .preFault(let extent): extent
        case .peek(let place), .clock(let place): Extent(place.name, offset: place.offset, size: 1)
        case .syscall(let file, _): Extent(file, offset: 0, size: pageSize)
        case .unmap, .release, .create, .close, .unbind, .fork, .again, .zapped, .extension, .remap, .dup,
            .dirty:
            nil
        case .confidential(let action): action.extent
        }
    }
}

extension Extent {
    /// - Throws: if a part of it is outside a view of that length.
    package func isInside(_ length: UInt64) throws(Stop) {
        let (end, overflow) = offset.addingReportingOverflow(size)
        guard !overflow, end <= length else {
            throw .broken("\(self) is not inside the view `\(name)`, which has \(length) bytes")
        }
    }
}

extension Extent {
    /// The pages of a file of `size` bytes: those of the extent, which begins at `base` with one neighbour on each side,
    /// at most eight.
    package func pageOffsets(from base: UInt64, size: UInt64) -> [UInt64] {
        let count = size / pageSize
        guard count > 0 else { return [] }
        let first = min(base.addingReportingOverflow(offset).partialValue / pageSize, count - 1)
        let lines = max(1, min(self.size / pageSize, 6)) + 2
        let start = first == 0 ? 0 : first - 1
        return (start..<min(count, start + lines)).map { $0 * pageSize }
    }
}

extension Conversion {
    /// Whether only the range and the attributes are set, and no other word of the struct.
    package var isPlain: Bool {
        flags == 0 && reserved.isEmpty && errorOffset == 0 && structure == .writable
    }
}

extension Conversion.Structure {
    package var memory: ArgumentMemory? {
        switch self {
        case .writable: nil
        case .readOnly: .readOnly
        case .unmapped: .unmapped
        case .cut: .cut
        }
    }
}
