// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

// All system calls of this library go through these functions.

/// Turns a C shim's result, a value or a negative errno, into a value or a throw.
@inline(__always)
@discardableResult
package func value(_ result: Int) throws(Errno) -> Int {
    guard result >= 0 else { throw Errno(rawValue: CInt(truncatingIfNeeded: -result)) }
    return result
}

/// `ioctl` whose argument is a struct.
///
/// - Parameter retryOnInterrupt: call again on `EINTR`. Never for `KVM_RUN`, where `EINTR` is a valid result.
@inline(__always)
@discardableResult
func ioctl<Argument>(
    _ descriptor: borrowing OwnedDescriptor, _ request: UInt, _ argument: inout Argument,
    retryOnInterrupt: Bool = true
) throws(Errno) -> Int {
    try ioctl(descriptor.rawValue, request, &argument, retryOnInterrupt: retryOnInterrupt)
}

/// Same as above, with a descriptor number, which may be closed.
@inline(__always)
@discardableResult
func ioctl<Argument>(
    _ descriptor: Int32, _ request: UInt, _ argument: inout Argument, retryOnInterrupt: Bool = true
) throws(Errno) -> Int {
    while true {
        let result = unsafe withUnsafeMutablePointer(to: &argument) {
            unsafe ckvm_ioctl(descriptor, request, $0)
        }
        if retryOnInterrupt && result == -Int(Errno.interrupted.rawValue) { continue }
        return try value(result)
    }
}

/// `ioctl` whose argument is a number.
@inline(__always)
@discardableResult
func ioctl(
    _ descriptor: borrowing OwnedDescriptor, _ request: UInt, value argument: UInt = 0,
    retryOnInterrupt: Bool = true
) throws(Errno) -> Int {
    try ioctl(descriptor.rawValue, request, value: argument, retryOnInterrupt: retryOnInterrupt)
}

@inline(__always)
@discardableResult
func ioctl(
    _ descriptor: Int32, _ request: UInt, value argument: UInt = 0, retryOnInterrupt: Bool = true
) throws(Errno) -> Int {
    while true {
        let result = ckvm_ioctl_value(descriptor, request, argument)
        if retryOnInterrupt && result == -Int(Errno.interrupted.rawValue) { continue }
        return try value(result)
    }
}

/// A file descriptor that its owner closes on deinit.
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number, which stays open as long as this value exists.
    public let rawValue: Int32

    /// Takes ownership of an open descriptor.
    public init(owning rawValue: Int32) { self.rawValue = rawValue }

    deinit { close() }

    private func close() {
        // An error here cannot be handled, and Linux releases the number in any case.
        try? FileDescriptor(rawValue: rawValue).close()
    }
}

/// A mapping that its owner unmaps on deinit.
@safe public struct OwnedMapping: ~Copyable, @unchecked Sendable {
    /// Start of the mapping.
    public let base: UnsafeMutableRawPointer
    /// Bytes.
    public let length: Int

    /// `mmap(MAP_SHARED)` of a file, readable and writable.
    ///
    /// - Parameter reserve: false maps with `MAP_NORESERVE`, for memory of which most is never touched.
    /// - Throws: `EINVAL` if the length or the offset does not fit into 63 bits; otherwise the errno of
    ///   `mmap(2)`, such as `ENODEV` for a file that cannot be mapped and `ENOMEM`.
    public init(
        _ descriptor: borrowing OwnedDescriptor, offset: UInt64 = 0, length: UInt64, reserve: Bool = false
    ) throws(Errno) {
        try self.init(descriptor.rawValue, offset: offset, length: length, reserve: reserve)
    }

    /// Same as above, with a descriptor number, which may be closed.
    init(
        _ descriptor: Int32, offset: UInt64 = 0, length: UInt64, reserve: Bool = false
    ) throws(Errno) {
        guard let bytes = Int(exactly: length), offset <= UInt64(Int64.max) else { throw .invalidArgument }
        let address = try value(Int(ckvm_mmap_shared(length, reserve, descriptor, offset)))
        guard let pointer = unsafe UnsafeMutableRawPointer(bitPattern: address) else { throw .noMemory }
        unsafe self.base = pointer
        self.length = bytes
    }

    /// Takes ownership of an existing mapping.
    package init(owning address: UInt64, length: UInt64) throws(Errno) {
        guard let bytes = Int(exactly: length),
            let pointer = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))
        else { throw .invalidArgument }
        unsafe self.base = pointer
        self.length = bytes
    }

    /// Gives up ownership: the mapping has been moved.
    consuming func disown() { discard self }

    /// The start as a number, as the uAPI expects it.
    public var address: UInt64 { UInt64(UInt(bitPattern: unsafe base)) }

    deinit { _ = ckvm_munmap(address, UInt64(length)) }
}
