// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

// Interfaces of posted versions of the in-place series that the applied version does not have. A kernel is never
// identified by its version number, only by its answers.

/// A guest_memfd on which the call of RFC v1 can be tried. It had another number (0xd6) and a struct of half the size;
/// today's call returns `ENOTTY` there.
public protocol FirstPostedGuestMemfd: KVMGuestMemfd {
    /// The call of RFC v1, number 0xd6. On failure it sets `request.error_offset`.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2, with the differences of section 3; `ENOTTY` in every
    ///   other version.
    func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno)
}

extension FirstPostedGuestMemfd {
    /// Whether the kernel has the call, whatever it answers to an empty request.
    var hasFirstCall: Bool {
        var request = ckvm_memory_attributes_rfc_v1()
        do throws(Errno) { try setMemoryAttributes(&request) } catch {
            return error != .inappropriateIOCTLForDevice
        }
        return true
    }
}

extension LinuxGuestMemfd: FirstPostedGuestMemfd {
    /// Number 0xd6 on the descriptor.
    ///
    /// - Throws: `ENOTTY` on every kernel except RFC v1; there the errno of docs/ABI.md, section 2.
    public func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno) {
        try ioctl(descriptor, CKVM_SET_MEMORY_ATTRIBUTES_RFC_V1, &request)
    }
}

extension KVMGuestMemfd {
    /// Converts with whichever call this backend has.
    ///
    /// - Throws: same as ``setMemoryAttributes2(_:)``.
    public func convertInPlace(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        do throws(Errno) {
            try setMemoryAttributes2(&request)
        } catch {
            guard error == .inappropriateIOCTLForDevice, let first = self as? any FirstPostedGuestMemfd else {
                throw error
            }
            var old = ckvm_memory_attributes_rfc_v1()
            old.offset = request.offset
            old.size = request.size
            old.attributes = request.attributes
            old.flags = request.flags
            old.error_offset = request.error_offset
            old.reserved = (request.reserved.0, request.reserved.1, request.reserved.2)
            defer { request.error_offset = old.error_offset }
            try first.setMemoryAttributes(&old)
        }
    }
}

extension ContentPromise {
    /// Finds out whether the kernel has content modes, which would make any other promise worthless: without a flag it
    /// then overwrites the contents of converted pages.
    ///
    /// No version supports ZERO to private. A kernel with content modes therefore returns `EOPNOTSUPP`, before any
    /// other check; the others do not support the flag (`EINVAL`) or the call (`ENOTTY`).
    ///
    /// - Parameters:
    ///   - scratch: a private guest_memfd of the VM, at least a page, in no memslot and never touched, so that no
    ///     guest data is at risk.
    ///   - promise: the result if there are no content modes.
    public static func discovered(on scratch: any KVMGuestMemfd, otherwise promise: ContentPromise)
        -> ContentPromise
    {
        func answer(_ mode: ContentMode, _ attributes: UInt64) -> Errno? {
            var request = ckvm_memory_attributes2()
            request.size = pageSize
            request.attributes = attributes
            request.flags = mode.rawValue
            do throws(Errno) { try scratch.setMemoryAttributes2(&request) } catch { return error }
            return nil
        }
        guard answer(.zero, CKVM_MEMORY_ATTRIBUTE_PRIVATE) == .notSupportedOnSocket else { return promise }
        func fate(_ attributes: UInt64) -> Fate {
            answer(.preserve, attributes) == nil ? .byFlag : .undefined
        }
        return ContentPromise(toPrivate: fate(CKVM_MEMORY_ATTRIBUTE_PRIVATE), toShared: fate(0))
    }
}
