// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage

/// A memfd in place of a guest_memfd. It cannot be converted.
final class Memfd: KVMGuestMemfd {
    let size: UInt64
    private let file: OwnedDescriptor

    init(size: UInt64) throws(Errno) {
        guard let bytes = Int64(exactly: size) else { throw .invalidArgument }
        file = OwnedDescriptor(owning: Int32(try value(unsafe ckvm_memfd_create("guest RAM"))))
        self.size = size
        do {
            try FileDescriptor(rawValue: file.rawValue).resize(to: bytes)
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }

    var descriptor: Int32 { file.rawValue }

    func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        throw .inappropriateIOCTLForDevice
    }

    func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        LinuxHostMapping(try OwnedMapping(file, offset: offset, length: length))
    }

    func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try fallocate(file.rawValue, punchHole: punchHole, offset: offset, length: length)
    }
}
