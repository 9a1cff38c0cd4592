// SPDX-License-Identifier: MIT

/// The fate of the contents of a range that is converted. The caller chooses it for every request.
public enum ContentPolicy: String, Sendable, CaseIterable {
    /// The contents stay the same, or the request is refused.
    case preserve
    /// Every byte becomes zero, or the request is refused.
    case zero
    /// The caller does not care: the contents may become anything.
    case unspecified

    /// For messages: `preserved`, `zeroed`.
    package var participle: String {
        switch self {
        case .preserve: "preserved"
        case .zero: "zeroed"
        case .unspecified: "unspecified"
        }
    }
}

/// A conversion of guest memory.
public struct ConversionRequest: Sendable {
    /// Guest-physical range, without the shared bit.
    public let range: PageRange
    /// The state that all pages of the range will have. Pages already in that state are not an error.
    public let target: PageState
    /// The content policy.
    public let contents: ContentPolicy

    /// Checks nothing; ``Converter/convert(_:by:)`` refuses an impossible request.
    public init(range: PageRange, to target: PageState, contents: ContentPolicy) {
        self.range = range
        self.target = target
        self.contents = contents
    }
}

extension ConversionRequest: CustomStringConvertible {
    /// For people: `[0x1000, 0x2000) to private, contents preserve`.
    public var description: String { "\(range) to \(target.rawValue), contents \(contents.rawValue)" }
}

/// How the content policy of a conversion was honoured.
public enum ContentMeans: String, Sendable {
    /// The ABI guarantees it for this VM type.
    case promisedByABI = "the ABI's promise"
    /// The kernel's own flag preserved the contents (``ContentMode/preserve``).
    case keptByFlag = "the call's PRESERVE flag"
    /// The kernel's own flag zeroed the pages (``ContentMode/zero``).
    case zeroedByFlag = "the call's ZERO flag"
    /// The monitor zeroed the pages: by punching holes in private pages and by overwriting shared ones.
    case zeroedByMonitor = "zeroed by the monitor"
    /// The request left the contents unspecified.
    case notRequested = "not requested"

    /// The content mode to pass in the call.
    var mode: ContentMode {
        switch self {
        case .keptByFlag: .preserve
        case .zeroedByFlag: .zero
        case .promisedByABI, .zeroedByMonitor, .notRequested: []
        }
    }
}

/// The result of a conversion.
public struct ConversionResult: Sendable {
    /// How the content policy was honoured.
    public var means: ContentMeans
    /// The ranges that the kernel now has in the target state, in order and joined.
    public var converted: [PageRange] = []
    /// `KVM_SET_MEMORY_ATTRIBUTES2` calls made.
    public var calls = 0
    /// How many of the calls returned `EAGAIN`.
    public var busyAnswers = 0
    /// The time spent waiting between attempts.
    public var waited: Duration = .zero

    package init(
        means: ContentMeans, converted: [PageRange] = [], calls: Int = 0, busyAnswers: Int = 0,
        waited: Duration = .zero
    ) {
        self.means = means
        self.converted = converted
        self.calls = calls
        self.busyAnswers = busyAnswers
        self.waited = waited
    }
}

/// A conversion that failed or was only partly done.
public struct ConversionError: Error, Sendable {
    /// Why the conversion ended, and whether anything had changed by then.
    public enum Reason: Sendable, Equatable {
        /// The content policy cannot be honoured here. Nothing has changed.
        case refused(ContentRefusal)
        /// The range is not in RAM. Nothing has changed.
        case outsideRAM(size: UInt64)
        /// These guest-physical pages stayed in use until the retry policy gave up.
        case inUse([PageRange])
        /// The kernel's errno, and the guest-physical address of the page that it reported.
        case backend(ErrorNumber, gpa: UInt64?)
        /// The state changed, but the contents from this address on could not be zeroed.
        case zeroing(ErrorNumber, gpa: UInt64)
        /// The machine is shutting down.
        case cancelled
    }
    /// Why; ``errno`` gives the matching errno.
    public let reason: Reason
    /// The whole request, whatever part of it was done.
    public let request: ConversionRequest
    /// The part that was done: `result.converted` is exactly what changed.
    public let result: ConversionResult

    package init(reason: Reason, request: ConversionRequest, result: ConversionResult) {
        self.reason = reason
        self.request = request
        self.result = result
    }

    /// The guest-physical address of the first page that was not converted, in bytes; all pages of the request before it
    /// were. Pages after it may have been converted, too. A page that could not be zeroed counts as not converted.
    public var firstNotConverted: UInt64 {
        if case .zeroing(_, let gpa) = reason { return gpa }
        var first = request.range.start
        for range in result.converted {
            guard range.start == first else { break }
            first = range.end
        }
        return first
    }

    /// The errno that a guest gets for this error.
    public var error: ErrorNumber {
        switch reason {
        case .refused: .notSupportedOnSocket
        case .outsideRAM: .invalidArgument
        case .inUse: .resourceTemporarilyUnavailable
        case .backend(let errno, _), .zeroing(let errno, _): errno
        case .cancelled: .canceled
        }
    }
}

/// Why the content policy of a request cannot be honoured.
public enum ContentRefusal: Sendable, Hashable {
    /// The interface makes no promise about contents in this direction.
    case noPromise(to: PageState)
    /// Private and shared memory are separate (per-VM attributes), and the bytes stay behind in the old one.
    case twoPlaces(to: PageState)
    /// SNP and TDX: zeros of the host in a page that becomes private are not zeros for the guest.
    case onlyGuestInitialises
}

extension ContentRefusal: CustomStringConvertible {
    /// The reason, without the request: `this kernel makes no promise about contents ...`.
    public var description: String {
        switch self {
        case .noPromise(let target):
            "this kernel makes no promise about contents when memory becomes \(target.rawValue)"
        case .twoPlaces(let target):
            "this kernel keeps private and shared memory in two places (per-VM attributes), and the contents are lost "
                + "when memory becomes \(target.rawValue)"
        case .onlyGuestInitialises:
            "memory that becomes private is encrypted with the guest's key, so only the guest can initialise it"
        }
    }
}
