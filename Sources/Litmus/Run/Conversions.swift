// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// Conversions: the bare call, the monitor's converter, and a guest's request.
extension World {
    func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        if conversion.extent.name == .guest { return try convertGuest(try GuestConversion(conversion)) }
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
        guard let whole = PageRange(start: 0, size: file.size) else {
            throw .noFile(conversion.extent.name)
        }
        return try ask(
            ConversionRequest(range: range, to: target, contents: policy), conversion.monitor,
            [Region(name: conversion.extent.name, gpa: whole)])
    }

    /// Guest-physical pages, which may lie in several files.
    private func convertGuest(_ conversion: GuestConversion) throws(Stop) -> Observation {
        let request = conversion.request
        guard facts.design != nil else { return try ask(request, conversion.monitor, regions) }
        guard request.range.end <= regions.last?.gpa.end ?? 0 else { return answer(.invalidArgument) }
        return try regions.convert(request) { part throws(Stop) in try convert(part) }
    }

    /// The monitor's converter. By default it makes one attempt, so that EAGAIN is the answer.
    ///
    /// - Parameter regions: the guest's memory.
    private func ask(
        _ request: ConversionRequest, _ monitor: MonitorPolicy, _ regions: [Region]
    ) throws(Stop) -> Observation {
        let vm = try vm(nil)
        var memory: [MemoryRegion] = []
        var states: [AttributeMap] = []
        for region in regions {
            let file = try file(region.name)
            let (known, view) = state.withLock { ($0.states[region.name], $0.views[region.name]) }
            guard let known, file.size == region.gpa.size else { throw .noFile(region.name) }
            let mapping: any HostMapping
            if let view, view.file == region.name, view.offset == 0, view.mapping.length == file.size {
                mapping = view.mapping
            } else {
                do throws(Errno) {
                    mapping = try file.map(offset: 0, length: file.size)
                } catch {
                    throw .monitorCannotMap(region.name, ErrorNumber(error))
                }
            }
            memory.append(MemoryRegion(gpa: region.gpa, file: file, mapping: mapping))
            states.append(known)
        }
        let seen = Self.ask(backend, vm, regions, memory, AttributeMap(joining: states), request, monitor)
        note(seen.conversions)
        return seen
    }

    /// - Parameters:
    ///   - memory: the memory of each region.
    ///   - states: the states of the pages of all regions.
    static func ask(
        _ backend: any Backend, _ vm: any KVMVirtualMachine, _ regions: [Region],
        _ memory: [MemoryRegion], _ states: AttributeMap, _ request: ConversionRequest,
        _ monitor: MonitorPolicy
    ) -> Observation {
        let converter = Converter(
            backend: backend, vm: vm, memory: GuestMemory(regions: memory, attributes: states),
            holds: HoldRegistry(), policy: monitor.retry,
            chunk: monitor.chunk.map { $0 * pageSize } ?? Converter.defaultChunk, trace: nil)
        do throws(ConversionError) {
            let result = try converter.convert(request, by: .monitor)
            return Observation(request, result, nil, nil, in: regions)
        } catch {
            return Observation(request, error.result, error.reason, error.error, in: regions)
        }
    }

    private func note(_ conversions: [FileConversion]) {
        state.withLock { state in
            for conversion in conversions where conversion.failure == nil {
                let extent = conversion.extent
                guard let range = PageRange(start: extent.offset, size: extent.size) else { continue }
                state.states.update(extent.name) { $0.set(range, to: conversion.target) }
            }
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`, or the call that replaces it in this version.
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
            throw .threeReservedWords
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
                throw .skip("\(backend.identity.name) is an adapter, which reads the struct itself")
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
        state.withLock { state in state.states.update(conversion.extent.name) { $0.set(range, to: target) } }
    }

    /// Carries out `KVM_HC_MAP_GPA_RANGE` with one bare call for each memslot, until one fails.
    ///
    /// - Returns: nil for success; otherwise the errno, and the guest-physical page that the kernel named.
    func mapGPARange(_ request: MapRequest) throws(Stop) -> GuestAnswer {
        guard let places = places(of: request.range) else { return (.invalidArgument, nil) }
        for place in places {
            // The bare call, or the monitor's converter if the guest gives a content policy.
            let seen = try convert(place.conversion(to: request.target, contents: request.contents))
            if let answer = place.answer(seen) { return answer }
        }
        return nil
    }

    /// Converts the page that a memory fault names, if the access asks for that.
    ///
    /// - Returns: what the monitor does next, and the result of the conversion if there was one.
    func convert(
        for fault: MemoryFault, _ onFault: FaultConversion
    ) throws(Stop) -> (Agent.FaultAnswer, Observation?) {
        // With concurrent actors the recorded states of pages are uncertain. Converting a page to its current state has
        // no effect.
        guard fault.asksForConversion(hasTwoAliases ? .two : .one, known: nil), let range = fault.pages,
            let place = places(of: range)?.first
        else { return (.entersAgain, nil) }
        guard state.withLock({ $0.files[place.file] }) != nil else {
            return (.isFailed(.badFileDescriptor, page: nil), nil)
        }
        let conversion = place.conversion(to: fault.wants, onFault)
        let seen = try convert(conversion)
            .moved(from: conversion.extent, to: place.gpa, target: fault.wants)
        guard case .errno(let errno, let page) = seen.outcome else { return (.entersAgain, seen) }
        return (.isFailed(Errno(rawValue: errno), page: page), seen)
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

    /// A word that the call has changed although it must not.
    func change(from before: Self) -> String? {
        let isSame =
            offset == before.offset && size == before.size && attributes == before.attributes
            && flags == before.flags
        return isSame ? nil : "an input word of the struct was changed"
    }
}
