// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

extension ArgumentMemory {
    /// Calls `body` with the address of the argument.
    ///
    /// - Throws: what `body` throws, or the errno of `mmap` if the memory cannot be created.
    func withArgument<Argument, R>(
        _ argument: Argument, _ body: (UInt) throws(Errno) -> R
    ) throws(Errno) -> R {
        let size = UInt64(MemoryLayout<Argument>.size)
        let readable =
            switch self {
            case .readOnly: size
            case .unmapped: UInt64(0)
            case .cut: size / 2
            }
        let address = try value(
            Int(
                unsafe withUnsafePointer(to: argument) {
                    unsafe ckvm_argument_map($0, size, readable, self == .readOnly)
                }))
        defer { ckvm_argument_unmap(Int64(address), readable) }
        return try body(UInt(bitPattern: address))
    }
}
