// SPDX-License-Identifier: MIT
import ConversionModel
public import SystemPackage

// Errno names and texts for the whole package. ``Errno/description`` is the C library's text for an errno; Explain has
// its meaning for a specific call.
extension Errno {
    /// The symbol, or the number if there is none.
    public var name: String { ErrorNumber(self).name }

    /// The symbol of errno.h; nil for a number without one.
    public var symbol: String? { ErrorNumber(self).symbol }

    /// All errnos that have a symbol.
    package static let named: [Errno] = ErrorNumber.named.map { Errno($0) }

    /// - Returns: nil for an unknown symbol. Symbols are in capitals.
    package init?(symbol: String) {
        guard let error = ErrorNumber(symbol: symbol) else { return nil }
        self.init(error)
    }
}

extension Errno {
    /// The same number.
    package init(_ error: ErrorNumber) { self.init(rawValue: error.rawValue) }
}

extension ErrorNumber {
    /// The same number.
    package init(_ errno: Errno) { self.init(rawValue: errno.rawValue) }
}

// MARK: exhausted resources of the host

extension Errno {
    /// The host has run out of descriptors or memory. They prove nothing about what a kernel supports.
    public static let hostLimits: [Errno] = [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory]

    /// Whether it is one of ``hostLimits``.
    public var isHostLimit: Bool { Self.hostLimits.contains(self) }

    /// How to raise the limit if ``isHostLimit``, otherwise nil.
    package var hostLimitAdvice: String? {
        switch self {
        case .tooManyOpenFiles: "Raise the limit on open files (`ulimit -n` shows it)."
        case .tooManyOpenFilesInSystem: "Raise /proc/sys/fs/file-max, or close files elsewhere."
        case .noMemory:
            "Free memory, or raise the limits on address space (`ulimit -v`), locked memory (`ulimit -l`) and mappings "
                + "(vm.max_map_count)."
        default: nil
        }
    }
}
