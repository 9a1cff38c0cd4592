// SPDX-License-Identifier: MIT
public import SystemPackage

/// What is to become of the contents of a range that changes state. Chosen by the caller, on every request.
public enum ContentPolicy: String, Sendable, CaseIterable {
    /// The same bytes are there afterwards, or the request is refused.
    case preserve
    /// Every byte is zero afterwards, or the request is refused.
    case zero
    /// The caller does not care; the kernel may do what it likes.
    case unspecified
}

/// A conversion of guest memory.
public struct ConversionRequest: Sendable {
    /// Guest-physical, without the shared bit.
    public let range: PageRange
    /// The state that all pages of the range are to have. Pages that have it already are no error.
    public let target: PageState
    /// What is to become of the bytes.
    public let contents: ContentPolicy

    /// Nothing is checked here; ``Converter/convert(_:by:)`` refuses what cannot be done.
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

/// By what the contents policy of a conversion was honoured.
public enum ContentMeans: String, Sendable {
    /// The ABI promises it for this VM type.
    case promisedByABI = "the ABI's promise"
    /// The kernel's own flag asked it to keep them (``ContentMode/preserve``).
    case keptByFlag = "the call's PRESERVE flag"
    /// The kernel's own flag asked it to make the pages zero (``ContentMode/zero``).
    case zeroedByFlag = "the call's ZERO flag"
    /// The monitor made the pages zero: holes in what was private, a memset of what was shared.
    case zeroedByMonitor = "zeroed by the monitor"
    /// Nothing was asked.
    case nothingAsked = "nothing asked"

    /// What the call says about it.
    var mode: ContentMode {
        switch self {
        case .keptByFlag: .preserve
        case .zeroedByFlag: .zero
        case .promisedByABI, .zeroedByMonitor, .nothingAsked: []
        }
    }
}

/// What a conversion did.
public struct ConversionResult: Sendable {
    /// How the contents policy was honoured.
    public var means: ContentMeans
    /// The ranges that the kernel now has in the target state, in order and joined.
    public var converted: [PageRange] = []
    /// `KVM_SET_MEMORY_ATTRIBUTES2` calls made.
    public var calls = 0
    /// How many of the calls returned `EAGAIN`.
    public var busyAnswers = 0
    /// The time spent waiting between attempts.
    public var waited: Duration = .zero

    mutating func add(_ range: PageRange) {
        if let last = converted.last, last.end == range.start,
            let joined = PageRange(start: last.start, size: last.size + range.size)
        {
            converted[converted.count - 1] = joined
        } else {
            converted.append(range)
        }
    }
}

/// A conversion that was not done, or not whole.
public struct ConversionError: Error, Sendable {
    /// Why the conversion ended, and whether something had changed by then.
    public enum Reason: Sendable, Equatable {
        /// The contents policy cannot be honoured here. Nothing has changed.
        case refused(ContentRefusal)
        /// The range is not in RAM. Nothing has changed.
        case outsideRAM(size: UInt64)
        /// These pages stayed in use until the retry policy gave up; guest-physical.
        case inUse([PageRange])
        /// The kernel's errno, and the page that it named, guest-physical.
        case backend(Errno, gpa: UInt64?)
        /// The state changed, but these contents could not be made zero.
        case zeroing(Errno, gpa: UInt64)
        /// The machine is to end.
        case cancelled
    }
    /// ``errno`` is the errno for it.
    public let reason: Reason
    /// The whole request, however much of it was done.
    public let request: ConversionRequest
    /// What was done all the same: `result.converted` is exactly what changed.
    public let result: ConversionResult

    /// The errno that a guest gets for it.
    public var errno: Errno {
        switch reason {
        case .refused: .notSupportedOnSocket
        case .outsideRAM: .invalidArgument
        case .inUse: .resourceTemporarilyUnavailable
        case .backend(let errno, _), .zeroing(let errno, _): errno
        case .cancelled: .canceled
        }
    }
}

/// Why contents cannot be preserved on this kernel.
public enum ContentRefusal: Sendable, Hashable {
    /// Nothing is promised about contents in this direction.
    case noPromise(to: PageState)
    /// Private and shared memory are in two places (per-VM attributes), and the bytes stay behind in the old one.
    case twoPlaces(to: PageState)
}

extension ContentRefusal: CustomStringConvertible {
    /// What is wrong, without the request: `this kernel promises nothing about them ...`.
    public var description: String {
        switch self {
        case .noPromise(let target):
            "this kernel promises nothing about them when memory becomes \(target.rawValue)"
        case .twoPlaces(let target):
            "this kernel has private and shared memory in two places (per-VM attributes), and the bytes stay behind "
                + "when memory becomes \(target.rawValue)"
        }
    }
}

extension ConversionError: CustomStringConvertible {
    /// One line: the request, the reason, and which ranges were converted all the same.
    public var description: String {
        let why =
            switch reason {
            case .refused(let refusal): "contents cannot be preserved: \(refusal)"
            case .outsideRAM(let size): "the range leaves RAM, which ends at 0x\(String(size, radix: 16))"
            case .inUse(let pages):
                "in use after \(result.calls) calls, \(result.waited.wholeNanoseconds / 1_000_000) ms of waiting: "
                    + pages.map(\.description).joined(separator: " ")
                    + "; something holds these pages (io_uring buffers, vmsplice, VFIO, O_DIRECT)"
            case .backend(let errno, let gpa):
                "the kernel answered \(errno)" + (gpa.map { " at 0x\(String($0, radix: 16))" } ?? "")
            case .zeroing(let errno, let gpa):
                "converted, but zeroing stopped at 0x\(String(gpa, radix: 16)): \(errno)"
            case .cancelled: "cancelled, because the machine is to end"
            }
        let changed =
            result.converted.isEmpty
            ? "nothing was converted"
            : "converted: " + result.converted.map(\.description).joined(separator: " ")
        return "convert \(request): \(why) (\(changed))"
    }
}
