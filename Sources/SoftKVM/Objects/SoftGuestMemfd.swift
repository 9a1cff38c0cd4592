// SPDX-License-Identifier: MIT
public import CKVMShim
public import ConversionModel
import Glibc
public import MiniVMM
public import SystemPackage

/// A descriptor of a guest_memfd of ``SoftKVM``.
public final class SoftGuestMemfd: FirstPostedGuestMemfd, ArgumentTakingGuestMemfd, @unchecked Sendable {
    let model: Model
    /// The number of this descriptor in the model.
    public let number: DescriptorID
    /// Nil if the model keeps the bytes.
    let memory: FileMemory?
    /// Bytes, as requested.
    public let size: UInt64
    /// The process's file descriptor, for a duplicate; the original uses that of its memory.
    private let ownDescriptor: OwnedDescriptor?

    init(
        _ model: Model, _ number: DescriptorID, size: UInt64, _ memory: FileMemory?,
        descriptor: consuming OwnedDescriptor? = nil
    ) {
        self.model = model
        self.number = number
        self.size = size
        self.memory = memory
        ownDescriptor = descriptor
    }

    deinit {
        if !model.keepsBytes { forget() }
    }

    /// Closes the descriptor if it is open, and frees its number. No call may follow.
    package func forget() { model.withLock { model.kernel.forget(number) } }

    /// A file descriptor of this process, which makes the number unique. It stays the same after
    /// ``closeDescriptor()``.
    public var descriptor: Int32 {
        switch ownDescriptor {
        case .some(let own): own.rawValue
        case nil: memory?.descriptor ?? number.rawValue
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`. Writes only `error_offset` of the struct.
    ///
    /// - Throws: the errno of docs/ABI.md, section 2, with the differences of ``SoftKVM/Configuration/abi``.
    ///   `EAGAIN` and `ENOMEM` set `request.error_offset`.
    public func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        var call = ConversionCall(request)
        defer { request.error_offset = call.errorOffset }
        try model.callModel { kernel throws(ErrorNumber) in try kernel.convert(number, &call) }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2` with its struct in this kind of memory.
    ///
    /// - Throws: `EFAULT` if the struct cannot be read, or instead of `EAGAIN` and `ENOMEM` if it cannot be
    ///   written; otherwise the errno of docs/ABI.md, section 2.
    public func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno) {
        var call = ConversionCall(request)
        try model.callModel { kernel throws(ErrorNumber) in try kernel.convert(number, &call, in: memory) }
    }

    /// The call of ``ABIProfile/rfcV1``.
    ///
    /// - Throws: `ENOTTY` in every other version; otherwise the errno of docs/ABI.md, sections 2 and 3.
    public func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno) {
        var call = ConversionCall(
            offset: request.offset, size: request.size, attributes: request.attributes, flags: request.flags,
            errorOffset: request.error_offset,
            isReservedZero: request.reserved.0 | request.reserved.1 | request.reserved.2 == 0)
        defer { request.error_offset = call.errorOffset }
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.convert(number, &call, isFirstCall: true)
        }
    }

    /// `mmap` with `MAP_SHARED`. Offset and length in bytes.
    ///
    /// - Throws: `ENODEV` without ``GuestMemfdFlags/mmap``, `EINVAL` for a length of 0 and an offset that is not
    ///   page aligned, `EBADF` for a closed descriptor, ``SoftKVM/noBackingMemory`` past the first TiB, `ENOMEM` if
    ///   the host has no memory or address space.
    public func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try mapAlone(offset: offset, length: length)
    }

    /// As ``map(offset:length:)``: mappings of the model never share addresses.
    ///
    /// - Throws: as ``map(offset:length:)``.
    public func mapAlone(offset: UInt64, length: UInt64) throws(Errno) -> any ExaminableMapping {
        try model.call { () throws(Errno) in
            let number: MappingID
            do throws(ErrorNumber) {
                number = try model.kernel.map(self.number, offset: offset, length: length)
            } catch {
                throw Errno(error)
            }
            guard let memory else { return SoftHostMapping(model, number, nil, nil) }
            do throws(Errno) {
                let mapping = try model.host { () throws(Errno) in
                    try memory.map(offset: offset, length: length)
                }
                return SoftHostMapping(model, number, memory, mapping)
            } catch {
                model.kernel.forget(number)
                throw error
            }
        }
    }

    /// `fallocate` with `FALLOC_FL_KEEP_SIZE`. Offset and length in bytes.
    ///
    /// - Throws: `EINVAL` if the length is 0, a bound is not page aligned or does not fit into 63 bits, or an
    ///   allocation reaches past the end of the file; `EFBIG` if the sum does not fit; `EBADF` for a closed
    ///   descriptor; ``SoftKVM/noBackingMemory`` if an allocation reaches past the first TiB.
    public func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in
            try kernel.allocate(number, punchHole: punchHole, offset: offset, length: length)
        }
    }

    // MARK: state that no system call reports

    /// Number of bytes of `range` in `state`.
    public func bytes(_ state: PageState, in range: PageRange) -> UInt64 {
        model.withLock { model.kernel.attributes(of: file).bytes(state, in: range) }
    }

    /// Number of pages of `range` in the host's page tables, summed over all mappings. This shows that a failed
    /// conversion to private unmaps the range; the next accesses fault the pages back in.
    public func hostMappedPages(in range: PageRange) -> UInt64 {
        model.withLock { model.kernel.presentPages(of: file, in: range) }
    }

    /// Number of allocated pages of `range`.
    public func allocatedPages(in range: PageRange) -> UInt64 {
        model.withLock { model.kernel.allocatedPages(of: file).count(in: range) }
    }

    /// The state of the page at an offset; nil past the end.
    public func state(at offset: UInt64) -> PageState? {
        model.withLock { model.kernel.attributes(of: file).value(at: offset) }
    }

    /// The file in the model. The lock is held.
    var file: FileID { model.kernel.file(of: number) }
}

extension SoftGuestMemfd: ExaminableFile {
    /// Does nothing: descriptor numbers are unique while the object exists.
    ///
    /// - Throws: nothing.
    public func reserveDescriptor() throws(Errno) {}

    /// `dup`, which also duplicates the process's file descriptor.
    ///
    /// - Throws: `EBADF` if the descriptor is closed, `EMFILE` if the process has no descriptors left.
    public func duplicate() throws(Errno) -> any ExaminableFile {
        try model.call { () throws(Errno) in
            guard model.kernel.isOpen(number) else { throw .badFileDescriptor }
            // A file descriptor of this process makes the number unique.
            let own = try model.host { () throws(Errno) in
                let own = memory.map { dup($0.descriptor) } ?? 0
                guard own >= 0 else { throw Errno(rawValue: errno) }
                return own
            }
            do throws(ErrorNumber) {
                let copy = SoftGuestMemfd(
                    model, try model.kernel.duplicate(number), size: size, memory,
                    descriptor: memory == nil ? nil : OwnedDescriptor(owning: own))
                model.add(copy)
                return copy
            } catch {
                throw Errno(error)
            }
        }
    }

    /// `close` in the model. The process's file descriptor stays open while this object exists.
    ///
    /// - Throws: `EBADF` if the descriptor is closed already.
    public func closeDescriptor() throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.close(number) }
    }

    /// A system call that no guest_memfd supports.
    ///
    /// - Throws: always: `EINVAL`, `ENODEV` or `EOPNOTSUPP` as on Linux, `EBADF` if the descriptor is closed.
    public func attempt(_ call: FileCall) throws(Errno) {
        try model.callModel { kernel throws(ErrorNumber) in try kernel.attempt(number, call) }
    }
}

extension ConversionCall {
    init(_ request: ckvm_memory_attributes2) {
        let word = request.reserved
        let isZero =
            word.0 | word.1 | word.2 | word.3 | word.4 | word.5 | word.6 | word.7 | word.8 | word.9 | word.10
            == 0
        self.init(
            offset: request.offset, size: request.size, attributes: request.attributes, flags: request.flags,
            errorOffset: request.error_offset, isReservedZero: isZero)
    }
}
