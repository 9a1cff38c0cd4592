// SPDX-License-Identifier: MIT
public import CKVMShim
public import SystemPackage

// What posted versions of the in-place series had and the applied one has not. A kernel is never known by its number:
// it is asked, and its answers decide.

/// A guest_memfd that can be asked for the call of version 1: that had another number (0xd6) and half the struct, and the
/// one of today is `ENOTTY` there.
public protocol FirstPostedGuestMemfd: KVMGuestMemfd {
    /// The call of version 1, number 0xd6. A failed one sets `request.error_offset`.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2, with the differences of section 3; `ENOTTY` in every
    ///   other version.
    func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno)
}

extension FirstPostedGuestMemfd {
    /// The kernel knows the call, whatever it says of a request for no bytes.
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
    /// - Throws: `ENOTTY` on every kernel but one of that version; there the errno of docs/ABI.md, section 2.
    public func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno) {
        try ioctl(descriptor, CKVM_SET_MEMORY_ATTRIBUTES_RFC_V1, &request)
    }
}

extension KVMGuestMemfd {
    /// Converts by the call that this kernel has.
    ///
    /// - Throws: what ``setMemoryAttributes2(_:)`` does.
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
    /// Finds out whether the kernel has content modes, which would make another promise worthless: without a flag it
    /// then overwrites what is converted.
    ///
    /// No version offers ZERO to private. A kernel with content modes therefore says `EOPNOTSUPP`, which it does
    /// before anything else; the others do not know the flag (`EINVAL`) or the call (`ENOTTY`).
    ///
    /// - Parameters:
    ///   - scratch: a private guest_memfd of the VM, at least a page, in no memslot and never touched: nothing of a
    ///     guest is at stake.
    ///   - promise: what holds where there are no content modes.
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
