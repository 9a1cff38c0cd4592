// SPDX-License-Identifier: MIT
import ConversionModel

extension Action {
    /// Whether it is an access to memory by an instruction of the host or of a guest.
    package var isAccess: Bool {
        switch single {
        case .read, .write, .fill, .check: true
        default: false
        }
    }

    /// Whether it accesses a single byte.
    package var isSingle: Bool {
        switch self {
        case .read, .write: true
        default: false
        }
    }
}

extension Observation {
    /// A number as a byte, at most 255.
    package init(count: UInt64) { self.init(.value(UInt8(clamping: count))) }

    /// The same outcome without its place, for an access to one byte.
    package var withoutPlace: Observation {
        if case .sigbus = outcome { Observation(.sigbus()) } else { self }
    }
}

extension Advice {
    /// Whether it needs a privilege or a kernel configuration.
    package var isMemoryFailure: Bool { self == .hwPoison || self == .softOffline }
}

extension Step {
    /// The outcome of a conversion, including one for a memory fault. A kernel without the call skips the test, unless
    /// the test expects exactly that.
    ///
    /// - Parameter repetition: the step `again`, if it repeats this one.
    package func answerOfConversion(_ seen: Observation, of repetition: Step? = nil) throws(Stop)
        -> Observation
    {
        let contents: ContentPolicy?
        switch (action, onFault) {
        case (.convert(let conversion), _): contents = conversion.contents
        case (_, let onFault?): contents = onFault.contents
        default: return seen
        }
        guard case .errno(let number, _) = seen.outcome else { return seen }
        let errno = ErrorNumber(rawValue: number)
        let isExpected = (repetition ?? self).expects(errno)
        if errno == .inappropriateIOCTLForDevice, !isExpected {
            throw .skip("this kernel does not support the call (ENOTTY)")
        }
        if errno == .notSupportedOnSocket, contents == .preserve, !isExpected {
            throw .skip("this backend cannot preserve contents")
        }
        return seen
    }

    package func expects(_ errno: ErrorNumber) -> Bool {
        guard case .anyOf(let outcomes) = expectation else { return false }
        return outcomes.contains { if case .errno(errno.rawValue, _) = $0 { true } else { false } }
    }

    /// The answer of `KVM_SET_MEMORY_ATTRIBUTES` on a VM. A kernel without the call skips the test.
    package func answerOfSetAttributes(_ seen: Observation) throws(Stop) -> Observation {
        let missing = ErrorNumber.inappropriateIOCTLForDevice
        guard seen.outcome == .errno(missing.rawValue), !expects(missing) else { return seen }
        throw .skip("this kernel has no KVM_SET_MEMORY_ATTRIBUTES on a VM, or converts in place (ENOTTY)")
    }
}
