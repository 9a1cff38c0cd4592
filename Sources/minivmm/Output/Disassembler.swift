// SPDX-License-Identifier: MIT
import CDisassembler
import Synchronization

/// Capstone's shared library, which is opened at run time: it is optional, and nothing of it is needed to build.
@safe final class Disassembler: Sendable {
    /// What dlopen is asked for, in order: the major versions whose structs are known.
    static let names = ["libcapstone.so.5", "libcapstone.so.4"]
    /// What to do where there is none.
    static let advice =
        "Capstone is not installed, so instructions are shown as bytes. "
        + "To see them as text: apt-get install libcapstone4 (or libcapstone5, whichever this system has)."

    /// The one of this process, opened when it is first asked for. A process that confines itself asks before.
    static let installed = Disassembler()

    /// The library is for one thread at a time.
    private let library: Mutex<OpaquePointer>

    /// - Returns: nil if none of these libraries is there, or none that can be used.
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

    /// Major version of the library.
    var version: Int { unsafe library.withLock { unsafe Int(cdis_version($0)) } }

    /// The instruction that some bytes begin with.
    ///
    /// - Parameter address: where its first byte is, linear.
    /// - Returns: nil if they begin with none, or with a part of one.
    func decode(_ bytes: [UInt8], at address: UInt64) -> cdis_instruction? {
        unsafe library.withLock { library in
            var instruction = cdis_instruction()
            let isKnown = unsafe cdis_decode(library, bytes, bytes.count, address, &instruction)
            return isKnown ? instruction : nil
        }
    }
}
