// SPDX-License-Identifier: MIT
import ConversionModel

/// `every N of EXTENT`: the first page of each N pages of a range, in ascending order.
public struct Pattern: Sendable, Hashable {
    /// Pages from the start of one call to the start of the next, at least 1.
    public var stride: UInt64
    /// The range, in whole pages.
    public var extent: Extent

    /// A pattern. It is not checked: see ``LitmusTest/firstProblem()``.
    public init(every stride: UInt64, of extent: Extent) {
        self.stride = stride
        self.extent = extent
    }

    /// The largest number of calls of a step.
    public static let mostCalls: UInt64 = 1 << 20
    /// The largest number of pages that a step accesses. Each of them takes memory.
    package static let mostTouched = LitmusTest.mostTouched / pageSize
    /// The largest number of calls of a step of a vCPU. Each of them enters the guest.
    package static let mostEntries: UInt64 = 1 << 16

    /// The number of calls; nil if the range is not whole pages, or the stride is 0.
    public var count: UInt64? {
        guard stride > 0, let (first, last) = extent.pages else { return nil }
        return (last - first) / stride + 1
    }

    /// The offsets of the calls' pages, bytes. Empty if ``count`` is nil.
    package var offsets: some Sequence<UInt64> {
        let (extent, stride) = (extent, stride)
        // No product exceeds the range, whose end is below 2^64.
        return (0..<(count ?? 0)).lazy.map { extent.offset + $0 * stride * pageSize }
    }

    /// The first page.
    package var first: Extent { Extent(extent.name, offset: extent.offset, size: pageSize) }
}

extension Action {
    /// The words of the actions that accept a pattern.
    package static let patternWords = [
        "convert", "read", "write", "fill", "check", "punch", "allocate", "madvise", "hypercall",
        "vm_attributes",
    ]

    /// A pattern of calls.
    ///
    /// - Parameter action: the call for any page of the pattern.
    /// - Returns: nil if this action does not accept a pattern.
    public static func every(_ stride: UInt64, of extent: Extent, _ action: Action) -> Action? {
        let pattern = Pattern(every: stride, of: extent)
        return action.moved(to: pattern.first).map { .every(pattern, $0) }
    }

    /// The same action on this page; nil if the action does not accept a pattern.
    package func moved(to page: Extent) -> Action? {
        switch self {
        case .read: return .read(Place(page.name, offset: page.offset))
        case .write(_, let byte): return .write(Place(page.name, offset: page.offset), byte)
        case .fill(_, let byte): return .fill(page, byte)
        case .check(_, let byte): return .check(page, byte)
        case .convert(var conversion):
            conversion.extent = page
            return .convert(conversion)
        case .punch: return .punch(page)
        case .allocate: return .allocate(page)
        case .advise(_, let advice) where !advice.isMemoryFailure: return .advise(page, advice)
        case .hypercall(_, let attributes): return .hypercall(page, attributes: attributes)
        case .setAttributes(_, let attributes, let flags, let vm):
            return .setAttributes(page, attributes: attributes, flags: flags, on: vm)
        default: return nil
        }
    }

    /// The action of each call; for a pattern that of its first page.
    package var single: Action { if case .every(_, let action) = self { action } else { self } }
}

extension Step {
    /// The outcome of a pattern: `ok` if every call succeeded, else the outcome of the first one that did not. A
    /// `read` has the byte that all calls read; if a page has another one than the first, the pages differ there.
    ///
    /// - Parameter perform: performs a call.
    /// - Returns: nil if the step is not a pattern.
    package func performEach(
        _ perform: (Step) throws(Stop) -> Observation
    ) throws(Stop) -> Observation? {
        guard case .every(let pattern, let action) = action else { return nil }
        var all = Observation(.ok)
        var isFirst = true
        for offset in pattern.offsets {
            let page = Extent(pattern.extent.name, offset: offset, size: pageSize)
            guard let call = action.moved(to: page) else { continue }
            var step = self
            step.action = call
            var seen = try perform(step)
            all.isAnyByte = all.isAnyByte || seen.isAnyByte
            all.conversions += seen.conversions
            switch seen.outcome {
            case .ok where seen.oddity == nil: break
            case .value where isFirst && seen.oddity == nil: all.outcome = seen.outcome
            case .value where seen.outcome == all.outcome && seen.oddity == nil: break
            default:
                if case .value = seen.outcome { seen.outcome = .differs(at: offset) }
                seen.outcome = seen.outcome.placed(at: offset)
                seen.isAnyByte = all.isAnyByte
                seen.conversions = all.conversions
                return seen
            }
            isFirst = false
        }
        return all
    }
}

extension Step {
    /// The call of a pattern that ended with this outcome; the step itself if it is not a pattern, or no call failed.
    package func call(endingWith outcome: StepOutcome) -> Step {
        guard case .every(let pattern, let action) = action, let place = outcome.place else { return self }
        let page = Extent(pattern.extent.name, offset: place & ~(pageSize - 1), size: pageSize)
        var step = self
        step.action = action.moved(to: page) ?? action
        return step
    }
}

extension StepOutcome {
    /// The place that a failure names.
    package var place: UInt64? {
        switch self {
        case .errno(_, let place), .sigbus(let place), .fault(_, let place): place
        case .differs(let place): place
        case .status(_, let place): place
        case .ok, .value, .mmio, .garbage: nil
        }
    }

    /// The outcome with this place if it can have one and has none.
    fileprivate func placed(at offset: UInt64) -> StepOutcome {
        switch self {
        case .errno(let number, nil): .errno(number, at: offset)
        case .sigbus(nil): .sigbus(at: offset)
        default: self
        }
    }
}
