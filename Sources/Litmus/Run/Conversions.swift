import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// The call that all is about: bare, through the monitor, and as a guest asks for it.
extension World {
    func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        let file = try file(conversion.extent.name)
        guard let policy = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= file.size
        else { return try call(conversion, file) }
        guard facts.design == nil else {
            var conversion = conversion
            if facts.design == .callFlag, policy == .preserve { conversion.flags = ContentDesign.callFlagBit }
            return try call(conversion, file)
        }
        return try ask(for: range, target, policy, conversion.extent.name, file)
    }

    /// The monitor's converter, without its patience: EAGAIN is the answer.
    private func ask(
        for range: PageRange, _ target: PageState, _ policy: ContentPolicy, _ name: Name,
        _ file: any KVMGuestMemfd
    ) throws(Stop) -> Observation {
        let (vm, states, view) = try (
            vm(nil), state.withLock { $0.states[name] }, state.withLock { $0.views[name] }
        )
        guard let states, let whole = PageRange(start: 0, size: file.size) else {
            throw .broken("there is no file `\(name)`: it could not be made")
        }
        let mapping: any HostMapping
        if let view, view.file == name, view.offset == 0, view.mapping.length == file.size {
            mapping = view.mapping
        } else {
            do throws(Errno) {
                mapping = try file.map(offset: 0, length: file.size)
            } catch {
                throw .broken("the monitor cannot map `\(name)` (mmap: \(error.name))")
            }
        }
        let region = MemoryRegion(gpa: whole, file: file, mapping: mapping)
        let converter = Converter(
            kernel: kernel, vm: vm, memory: GuestMemory(regions: [region], attributes: states),
            holds: HoldRegistry(), policy: RetryPolicy(attempts: 1), trace: nil)
        do throws(ConversionError) {
            let request = ConversionRequest(range: range, to: target, contents: policy)
            note(try converter.convert(request, by: .host), target, name)
            return Observation(.ok)
        } catch {
            note(error.result, target, name)
            switch error.reason {
            case .refused, .outsideRAM, .cancelled: return Observation(.errno(error.errno.rawValue))
            case .inUse(let pages):
                return Observation(.errno(error.errno.rawValue, at: pages.first?.start))
            case .kernel(let errno, let gpa): return Observation(.errno(errno.rawValue, at: gpa))
            case .zeroing(let errno, let gpa): return Observation(.errno(errno.rawValue, at: gpa))
            }
        }
    }

    private func note(_ result: ConversionResult, _ target: PageState, _ name: Name) {
        state.withLock { state in
            for range in result.converted { state.states[name]?.set(range, to: target) }
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`, or the call that stands for it in this kernel.
    private func call(_ conversion: Conversion, _ file: any KVMGuestMemfd) throws(Stop) -> Observation {
        if conversion.contents == .preserve, facts.design == nil,
            let state = Attributes.state(conversion.attributes)
        {
            let promise = try vm(nil).contentPromise
            guard (state == .private ? promise.toPrivate : promise.toShared).canPreserve else {
                return Observation(.errno(Errno.notSupportedOnSocket.rawValue))
            }
        }
        // The struct of RFC v1 is half as long.
        let isSayable = conversion.reserved.allSatisfy { $0.index < 3 || $0.value == 0 }
        guard isSayable || facts.soft?.configuration.abi != .rfcV1 else {
            throw .skip("RFC v1 has three reserved words")
        }
        let before = ckvm_memory_attributes2(conversion)
        var request = before
        do throws(Errno) {
            if let memory = conversion.structure.memory {
                guard let file = file as? any ArgumentTakingGuestMemfd else {
                    throw .notSupportedOnSocket
                }
                try file.setMemoryAttributes2(request, in: memory)
            } else {
                try file.convertInPlace(&request)
            }
            noteConverted(conversion, file)
            return Observation(
                .ok,
                oddity: request.error_offset == before.error_offset
                    ? request.change(from: before)
                    : "error_offset was written: \(written(request.error_offset))")
        } catch {
            if error == .notSupportedOnSocket, conversion.structure != .writable {
                throw .skip("\(kernel.identity.name) is an adapter, and reads the struct itself")
            }
            let names = [.resourceTemporarilyUnavailable, .noMemory].contains(error)
            let isWritten = names || request.error_offset != before.error_offset
            return Observation(
                .errno(error.rawValue, at: isWritten ? request.error_offset : nil),
                oddity: request.change(from: before))
        }
    }

    private func noteConverted(_ conversion: Conversion, _ file: any KVMGuestMemfd) {
        guard let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= file.size
        else { return }
        state.withLock { $0.states[conversion.extent.name]?.set(range, to: target) }
    }

    /// What the monitor does for `KVM_HC_MAP_GPA_RANGE`: one bare call a memslot, until one fails.
    ///
    /// - Returns: nil for success; else the errno, and the guest-physical page that the kernel named.
    func mapGPARange(_ call: Agent.Call) throws(Stop) -> Agent.Answer {
        guard let places = places(of: call) else { return (.invalidArgument, nil) }
        for place in places {
            if let answer = try convert(place, call.target) { return answer }
        }
        return nil
    }

    /// What of which file a call is about, in order; nil where the call is wrong.
    func places(of call: Agent.Call) -> [Behind]? {
        let known = CKVM_MAP_GPA_RANGE_ENCRYPTED | CKVM_MAP_GPA_RANGE_PAGE_SIZE_MASK
        let (size, overflow) = call.pages.multipliedReportingOverflow(by: pageSize)
        guard call.attributes & ~known == 0, call.attributes & CKVM_MAP_GPA_RANGE_PAGE_SIZE_MASK <= 2,
            !overflow, let range = PageRange(start: call.gpa, size: size)
        else { return nil }
        return places(of: range)
    }

    /// The bare call for one memslot.
    func convert(_ place: Behind, _ target: PageState) throws(Stop) -> Agent.Answer {
        let extent = Extent(place.file, offset: place.bytes.start, size: place.bytes.size)
        let seen = try self.call(Conversion(extent, to: target), try file(place.file))
        guard case .errno(let number, let offset) = seen.outcome else { return nil }
        return (Errno(rawValue: number), offset.map { place.gpa &+ ($0 &- place.bytes.start) })
    }
}

extension Agent.Call {
    var target: PageState { attributes & CKVM_MAP_GPA_RANGE_ENCRYPTED != 0 ? .private : .shared }
}

extension Conversion {
    /// A request and nothing else: no word of the struct is said.
    fileprivate var isPlain: Bool {
        flags == 0 && reserved.isEmpty && errorOffset == 0 && structure == .writable
    }
}

extension Conversion.Structure {
    fileprivate var memory: ArgumentMemory? {
        switch self {
        case .writable: nil
        case .readOnly: .readOnly
        case .unmapped: .unmapped
        case .cut: .cut
        }
    }
}

extension ckvm_memory_attributes2 {
    init(_ conversion: Conversion) {
        self.init()
        offset = conversion.extent.offset
        size = conversion.extent.size
        attributes = conversion.attributes
        flags = conversion.flags
        error_offset = conversion.errorOffset
        unsafe withUnsafeMutableBytes(of: &reserved) { bytes in
            for word in conversion.reserved where (0...10).contains(word.index) {
                unsafe bytes.storeBytes(of: word.value, toByteOffset: word.index * 8, as: UInt64.self)
            }
        }
    }

    /// What a call has changed though it never may.
    func change(from before: Self) -> String? {
        let isSame =
            offset == before.offset && size == before.size && attributes == before.attributes
            && flags == before.flags
        return isSame ? nil : "a word of the struct that is only read was written"
    }
}
