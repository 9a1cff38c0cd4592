public import CKVMShim
public import SystemPackage

extension ArgumentMemory {
    /// Calls `body` with the address of the argument.
    ///
    /// - Throws: what `body` does; the errno of `mmap` if there is no such memory.
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

/// A guest_memfd whose call takes its struct wherever the caller has it. An adapter is none: it reads the struct itself.
public protocol ArgumentTakingGuestMemfd: KVMGuestMemfd {
    /// `KVM_SET_MEMORY_ATTRIBUTES2` with its struct in such memory.
    ///
    /// - Throws: `EFAULT` where the kernel cannot read all of it, or has something to write to it.
    func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno)
}
