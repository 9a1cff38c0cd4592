// SPDX-License-Identifier: MIT
public import CKVMShim
public import ConversionModel
import Glibc
public import MiniVMM
public import SystemPackage

/// A descriptor of a guest_memfd of ``SoftKVM``.
public final class SoftGuestMemfd: FirstPostedGuestMemfd, ArgumentTakingGuestMemfd, @unchecked Sendable {
    let model: Model
    /// Its number in the model.
    public let number: DescriptorID
    /// Nil where the model keeps the bytes.
    let memory: FileMemory?
    public let size: UInt64
    /// The descriptor of the process, if it was duplicated; the first has the memory's.
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
        if !model.isValue { forget() }
    }

    /// The descriptor is closed, if it is open, and its number free. No call may follow.
    package func forget() { model.look { model.kernel.forget(number) } }

    public var descriptor: Int32 {
        switch ownDescriptor {
        case .some(let own): own.rawValue
        case nil: memory?.descriptor ?? number.rawValue
        }
    }

    public func setMemoryAttributes2(_ request: inout ckvm_memory_attributes2) throws(Errno) {
        var call = ConversionCall(request)
        defer { request.error_offset = call.errorOffset }
        try model.ask { kernel throws(ErrorNumber) in try kernel.convert(number, &call) }
    }

    public func setMemoryAttributes2(
        _ request: ckvm_memory_attributes2, in memory: ArgumentMemory
    ) throws(Errno) {
        var call = ConversionCall(request)
        try model.ask { kernel throws(ErrorNumber) in try kernel.convert(number, &call, in: memory) }
    }

    /// The call of ``ABIProfile/rfcV1``; `ENOTTY` in the others.
    public func setMemoryAttributes(_ request: inout ckvm_memory_attributes_rfc_v1) throws(Errno) {
        var call = ConversionCall(
            offset: request.offset, size: request.size, attributes: request.attributes, flags: request.flags,
            errorOffset: request.error_offset,
            isReservedZero: request.reserved.0 | request.reserved.1 | request.reserved.2 == 0)
        defer { request.error_offset = call.errorOffset }
        try model.ask { kernel throws(ErrorNumber) in try kernel.convert(number, &call, isFirstCall: true) }
    }

    public func map(offset: UInt64, length: UInt64) throws(Errno) -> any HostMapping {
        try mapAlone(offset: offset, length: length)
    }

    /// Only the model knows the addresses of a mapping, so it is always alone.
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

    public func allocate(punchHole: Bool, offset: UInt64, length: UInt64) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in
            try kernel.allocate(number, punchHole: punchHole, offset: offset, length: length)
        }
    }

    // MARK: what no system call tells

    /// Bytes of `range` that are in `state`.
    public func bytes(_ state: PageState, in range: PageRange) -> UInt64 {
        model.look { model.kernel.attributes(of: file).bytes(state, in: range) }
    }

    /// Pages of `range` that host mappings have faulted in and not lost since, of each mapping. A failed call to private drops
    /// them too, and this is the only place to see it: they fault back in.
    public func hostMappedPages(in range: PageRange) -> UInt64 {
        model.look { model.kernel.presentPages(of: file, in: range) }
    }

    /// Pages of `range` that exist.
    public func allocatedPages(in range: PageRange) -> UInt64 {
        model.look { model.kernel.allocatedPages(of: file).count(in: range) }
    }

    /// Private or shared; nil behind the end.
    public func state(at offset: UInt64) -> PageState? {
        model.look { model.kernel.attributes(of: file).value(at: offset) }
    }

    /// The lock is held.
    var file: FileID { model.kernel.file(of: number) }
}

extension SoftGuestMemfd: ExaminableFile {
    /// The model hands out each number once as long as the object lives.
    public func reserveDescriptor() throws(Errno) {}

    public func duplicate() throws(Errno) -> any ExaminableFile {
        try model.call { () throws(Errno) in
            guard model.kernel.isOpen(number) else { throw .badFileDescriptor }
            // A number that no other file of this process has.
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

    public func closeDescriptor() throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in try kernel.close(number) }
    }

    public func attempt(_ call: FileCall) throws(Errno) {
        try model.ask { kernel throws(ErrorNumber) in try kernel.attempt(number, call) }
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
