// SPDX-License-Identifier: MIT
import ConversionModel

/// A successful or failed conversion of a part of a file, made by the monitor for a step.
package struct FileConversion: Sendable, Hashable {
    package let extent: Extent
    /// The guest-physical address of that part in its region.
    package let gpa: UInt64
    package let target: PageState
    /// Nil for success. The page is an offset in the file.
    package var failure: Failure?

    package struct Failure: Sendable, Hashable {
        package let errno: Int32
        package let page: UInt64?
    }

    package init(_ extent: Extent, gpa: UInt64, to target: PageState) {
        self.extent = extent
        self.gpa = gpa
        self.target = target
    }
}

extension Observation {
    /// The conversions by which the monitor's converter carried out a request.
    ///
    /// - Parameters:
    ///   - result: what it converted, guest-physical.
    ///   - error: why it did not convert the rest.
    ///   - regions: the guest's memory.
    package init(
        _ request: ConversionRequest, _ result: ConversionResult, _ error: ConversionError.Reason?,
        _ errno: ErrorNumber?, in regions: [Region]
    ) {
        var place: UInt64?
        switch error {
        case .refused, .outsideRAM, .cancelled, nil: break
        case .inUse(let pages): place = pages.first?.start
        case .backend(_, let gpa): place = gpa
        case .zeroing(_, let gpa): place = gpa
        }
        self.init(errno.map { .errno($0.rawValue, at: place) } ?? .ok)
        conversions = result.converted.flatMap { range in
            regions.parts(of: range).map { region, part in
                FileConversion(region.extent(at: part), gpa: part.start, to: request.target)
            }
        }
        let parts = regions.parts(of: request.range)
        let failed = parts.first { part in place.map { part.gpa.contains($0) } ?? true }
        guard let errno, let (region, part) = failed else { return }
        var conversion = FileConversion(region.extent(at: part), gpa: part.start, to: request.target)
        conversion.failure = .init(errno: errno.rawValue, page: place.map { $0 - region.gpa.start })
        conversions.append(conversion)
    }

    /// The answer with offsets in the file replaced by guest-physical addresses.
    package func moved(from extent: Extent, to gpa: UInt64, target: PageState) -> Observation {
        var seen = self
        if case .errno(let number, let page?) = outcome {
            seen.outcome = .errno(number, at: gpa &+ (page &- extent.offset))
        }
        var conversion = FileConversion(extent, gpa: gpa, to: target)
        if case .errno(let number, let page) = outcome {
            conversion.failure = .init(errno: number, page: page)
        }
        seen.conversions = [conversion]
        return seen
    }
}

extension [Region] {
    /// Makes a call for each region, until one fails.
    ///
    /// - Parameter call: makes the call for a part of one file.
    package func convert(
        _ request: ConversionRequest, _ call: (Conversion) throws(Stop) -> Observation
    ) throws(Stop) -> Observation {
        var conversions: [FileConversion] = []
        for (region, part) in parts(of: request.range) {
            let extent = region.extent(at: part)
            var seen = try call(Conversion(extent, to: request.target, contents: request.contents))
                .moved(from: extent, to: part.start, target: request.target)
            conversions += seen.conversions
            seen.conversions = conversions
            guard seen.outcome == .ok, seen.oddity == nil else { return seen }
        }
        var seen = Observation(.ok)
        seen.conversions = conversions
        return seen
    }
}
