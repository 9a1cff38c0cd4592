// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

// Names and texts of errno, in all of this package. What one means is the C library's text, ``Errno/description``; Explain has
// what a call means by it.
extension Errno {
    /// The symbol, or the number for one without.
    public var name: String { symbol ?? "errno \(rawValue)" }

    /// The symbol, as the C library has it; nil for a number that is none.
    public var symbol: String? { unsafe ckvm_errno_name(rawValue).map { unsafe String(cString: $0) } }

    /// Those that have a symbol.
    package static let named: [Errno] = (1...4095).map(Errno.init(rawValue:)).filter { $0.symbol != nil }

    private static let bySymbol: [String: Errno] = named.reduce(into: [:]) { table, errno in
        if let symbol = errno.symbol { table[symbol] = errno }
    }

    /// - Returns: nil if there is none of this symbol, which is in capitals.
    package init?(symbol: String) {
        guard let errno = Self.bySymbol[symbol] else { return nil }
        self = errno
    }
}

// MARK: what the host has no more of

extension Errno {
    /// The host has no more of something: descriptors, or memory. It says nothing about what a kernel can do.
    public static let hostLimits: [Errno] = [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory]

    /// Whether it is one of ``hostLimits``.
    public var isHostLimit: Bool { Self.hostLimits.contains(self) }

    /// What to do about it where it ``isHostLimit``, else nil.
    package var hostLimitAdvice: String? {
        switch self {
        case .tooManyOpenFiles: "Raise the limit of open files, which `ulimit -n` shows."
        case .tooManyOpenFilesInSystem: "Raise /proc/sys/fs/file-max, or close files elsewhere."
        case .noMemory:
            "Free memory, or raise the limits of address space (`ulimit -v`), locked memory (`ulimit -l`) and mappings "
                + "(vm.max_map_count)."
        default: nil
        }
    }
}
