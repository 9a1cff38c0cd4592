// SPDX-License-Identifier: MIT
import ConversionModel

/// A part of a file at guest-physical addresses.
package struct FilePart: Sendable {
    package let file: Name
    package let bytes: PageRange
    package let gpa: UInt64
}
package struct SlotKey: Hashable, Sendable {
    package let vm: VMName
    package let number: UInt32

    package init(vm: VMName, number: UInt32) {
        self.vm = vm
        self.number = number
    }
}

extension FilePart {
    /// The parts of files at guest-physical `range`, in order; nil if a page has no slot.
    package static func places(
        of range: PageRange, _ slots: some Sequence<(gpa: UInt64, extent: Extent)>
    ) -> [FilePart]? {
        var places: [FilePart] = []
        var position = range.start
        for slot in slots.sorted(by: { $0.gpa < $1.gpa }) {
            guard let gpas = PageRange(start: slot.gpa, size: slot.extent.size),
                let part = gpas.intersection(range), part.start == position,
                let bytes = PageRange(
                    start: slot.extent.offset + (part.start - slot.gpa), size: part.size)
            else { continue }
            places.append(FilePart(file: slot.extent.name, bytes: bytes, gpa: part.start))
            position = part.end
        }
        return position == range.end ? places : nil
    }
}

extension FilePart {
    private var extent: Extent { Extent(file, offset: bytes.start, size: bytes.size) }

    package func conversion(to target: PageState, contents: ContentPolicy?) -> Conversion {
        Conversion(extent, to: target, contents: contents)
    }

    package func conversion(to target: PageState, _ onFault: FaultConversion) -> Conversion {
        var conversion = Conversion(extent, to: target, contents: onFault.contents)
        conversion.monitor = onFault.monitor
        return conversion
    }

    /// The answer for the guest: nil for success, otherwise the errno and the guest-physical page.
    package func answer(_ seen: Observation) -> GuestAnswer {
        guard case .errno(let number, let offset) = seen.outcome else { return nil }
        return (ErrorNumber(rawValue: number), offset.map { gpa &+ ($0 &- bytes.start) })
    }
}

/// The monitor's answer to a hypercall: nil, or the errno and the page that it names.
package typealias GuestAnswer = (errno: ErrorNumber, page: UInt64?)?
