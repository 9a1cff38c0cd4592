// SPDX-License-Identifier: MIT
import CDisassembler
import Synchronization

/// Capstone's shared library, opened at run time. It is optional, and not needed for building.
@safe final class Disassembler: Sendable {
    /// Library names for dlopen, in order: the major versions whose structs are declared.
    static let names = ["libcapstone.so.5", "libcapstone.so.4"]
    /// Advice if the library is missing.
    static let advice =
        "Capstone is not installed, so instructions are shown as bytes. "
        + "To see them as text: apt-get install libcapstone4 (or libcapstone5, whichever this system has)."

    /// The library, opened on first use. A process that drops its privileges must use it before.
    static let installed = Disassembler()

    /// Capstone is not thread-safe; the lock serializes its use.
    private let library: Mutex<OpaquePointer>

    /// - Returns: nil if no usable library is installed.
    init?(names: [String] = Disassembler.names) {
        for name in names {
            if let opened = unsafe cdis_open(name) {
                unsafe library = Mutex(opened)
                return
            }
        }
        return nil
    }

    deinit { unsafe library.withLock { unsafe cdis_close($0) } }

    /// The major version of the library.
    var version: Int { unsafe library.withLock { unsafe Int(cdis_version($0)) } }

    /// Disassembles the first instruction of the bytes.
    ///
    /// - Parameter address: the linear address of the first byte.
    /// - Returns: nil if the bytes do not start with a complete, valid instruction.
    func decode(_ bytes: [UInt8], at address: UInt64) -> cdis_instruction? {
        unsafe library.withLock { library in
            var instruction = cdis_instruction()
            let isKnown = unsafe cdis_decode(library, bytes, bytes.count, address, &instruction)
            return isKnown ? instruction : nil
        }
    }
}
