// SPDX-License-Identifier: MIT
import ConversionModel

// Conversions: the bare call, the monitor's converter, and one memslot of a hypercall.
extension ModelMachine {
    package mutating func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        if conversion.extent.name == .guest { return try convertGuest(try GuestConversion(conversion)) }
        let descriptor = try file(conversion.extent.name)
        let size = kernel.size(of: kernel.file(of: descriptor))
        guard let policy = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= size
        else { return try call(conversion, descriptor) }
        if let design = setup.rules.contentDesign {
            var conversion = conversion
            if design == .callFlag, policy == .preserve { conversion.flags = ContentDesign.callFlagBit }
            return try call(conversion, descriptor)
        }
        guard let whole = PageRange(start: 0, size: size) else { throw .noFile(conversion.extent.name) }
        return try ask(
            ConversionRequest(range: range, to: target, contents: policy), conversion.monitor,
            [Region(name: conversion.extent.name, gpa: whole)])
    }

    /// Guest-physical pages, which may lie in several files.
    private mutating func convertGuest(_ conversion: GuestConversion) throws(Stop) -> Observation {
        let (request, regions) = (conversion.request, setup.regions)
        guard setup.rules.contentDesign != nil else {
            return try ask(request, conversion.monitor, regions)
        }
        guard request.range.end <= regions.last?.gpa.end ?? 0 else { return answer(.invalidArgument) }
        return try regions.convert(request) { part throws(Stop) in try convert(part) }
    }

    /// The monitor's converter, applied to the state of the model.
    ///
    /// - Parameter regions: the guest's memory.
    private mutating func ask(
        _ request: ConversionRequest, _ monitor: MonitorPolicy, _ regions: [Region]
    ) throws(Stop) -> Observation {
        let vm = try vm(nil)
        var descriptors: [DescriptorID] = []
        var mappings: [MappingID] = []
        var own: [MappingID] = []
        defer { for mapping in own { kernel.forget(mapping) } }
        for region in regions {
            let descriptor = try file(region.name)
            let size = kernel.size(of: kernel.file(of: descriptor))
            guard size == region.gpa.size else { throw .noFile(region.name) }
            descriptors.append(descriptor)
            if let view = views[region.name], view.file == region.name, view.offset == 0,
                kernel.length(of: view.mapping) == size
            {
                mappings.append(view.mapping)
                continue
            }
            do throws(ErrorNumber) {
                let mapping = try kernel.map(descriptor, offset: 0, length: size)
                mappings.append(mapping)
                own.append(mapping)
            } catch {
                throw .monitorCannotMap(region.name, error)
            }
        }
        let memory = ModelMemory(
            kernel: kernel, vm: vm, regions: regions.map { $0.gpa }, files: descriptors, mappings: mappings,
            states: descriptors.map { kernel.attributes(of: kernel.file(of: $0)) },
            isFirstCall: setup.rules.abi == .rfcV1)
        var loop = ConversionLoop(
            request, policy: monitor.retry, chunk: monitor.chunk.map { $0 * pageSize } ?? .max, in: memory)
        let seen: Observation
        do throws(ConversionError) {
            let result = try loop.run()
            seen = Observation(request, result, nil, nil, in: regions)
        } catch {
            seen = Observation(request, error.result, error.reason, error.error, in: regions)
        }
        kernel = loop.memory.kernel
        return seen
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`, or the call that replaces it in this version.
    private mutating func call(
        _ conversion: Conversion, _ descriptor: DescriptorID
    ) throws(Stop) -> Observation {
        let isFirstCall = setup.rules.abi == .rfcV1
        if conversion.contents == .preserve, setup.rules.contentDesign == nil,
            let state = Attributes.state(conversion.attributes)
        {
            let vm = try vm(nil)
            let promise = kernel.contentPromise(of: vm)
            guard promise.fate(to: state).canPreserve else { return answer(.notSupportedOnSocket) }
        }
        guard conversion.reserved.allSatisfy({ $0.index < 3 || $0.value == 0 }) || !isFirstCall else {
            throw .threeReservedWords
        }
        var call = ConversionCall(
            offset: conversion.extent.offset, size: conversion.extent.size,
            attributes: conversion.attributes, flags: conversion.flags,
            errorOffset: conversion.errorOffset,
            isReservedZero: conversion.reserved.allSatisfy { $0.value == 0 })
        do throws(ErrorNumber) {
            if let memory = conversion.structure.memory {
                try kernel.convert(descriptor, &call, in: memory)
                // The result is in memory that the monitor cannot read.
                return Observation(.ok)
            }
            try kernel.convert(descriptor, &call, isFirstCall: isFirstCall)
            let isWritten = call.errorOffset != conversion.errorOffset
            return Observation(
                .ok, oddity: isWritten ? "error_offset was written: \(written(call.errorOffset))" : nil)
        } catch {
            // The monitor's copy of a read-only struct is unchanged.
            let named = conversion.structure == .writable ? call.errorOffset : conversion.errorOffset
            let isNamed =
                error == .resourceTemporarilyUnavailable || error == .noMemory
                || named != conversion.errorOffset
            return Observation(.errno(error.rawValue, at: isNamed ? named : nil))
        }
    }

    /// The call for one memslot that a hypercall causes.
    package mutating func convert(_ place: FilePart, _ request: MapRequest) throws(Stop) -> GuestAnswer {
        place.answer(try convert(place.conversion(to: request.target, contents: request.contents)))
    }

    /// The memory fault of a stopped vCPU, if its access asks for a conversion.
    package func faultToConvert(_ number: Int) -> (MemoryFault, FaultConversion)? {
        guard let vcpu = vcpus[number], vcpu.isStuck, let fault = vcpu.fault, let onFault = vcpu.onFault,
            let range = fault.pages, places(of: range) != nil,
            fault.asksForConversion(setup.sharedBit == nil ? .one : .two, known: state(of: fault))
        else { return nil }
        return (fault, onFault)
    }

    /// The state of the page that a memory fault names.
    package func state(of fault: MemoryFault) -> PageState? {
        guard let place = fault.pages.flatMap({ places(of: $0)?.first }), let file = files[place.file] else {
            return nil
        }
        return kernel.attributes(of: kernel.file(of: file)).value(at: place.bytes.start)
    }

    /// Converts the page that a memory fault names. If its memslot has been deleted meanwhile, nothing is done.
    package mutating func convert(for fault: MemoryFault, _ onFault: FaultConversion) throws(Stop)
        -> Observation
    {
        guard let range = fault.pages, let place = places(of: range)?.first else { return Observation(.ok) }
        guard files[place.file] != nil else { return answer(.badFileDescriptor) }
        let conversion = place.conversion(to: fault.wants, onFault)
        return try convert(conversion).moved(from: conversion.extent, to: place.gpa, target: fault.wants)
    }
}

/// The memory of a test's VM for the monitor's converter. Nobody releases a page when the converter asks, and waiting takes no
/// time.
private struct ModelMemory: ConvertibleMemory {
    var kernel: KernelModel
    let vm: VMID
    /// The guest-physical pages of each region, its file, and a mapping of the whole file.
    let regions: [PageRange]
    let files: [DescriptorID]
    let mappings: [MappingID]
    /// The states of each file's pages, as the monitor knows them.
    var states: [RunMap<PageState>]
    let isFirstCall: Bool

    var contentPromise: ContentPromise { kernel.contentPromise(of: vm) }
    var size: UInt64 { regions.last?.end ?? 0 }
    var regionCount: Int { regions.count }
    func region(_ index: Int) -> PageRange { regions[index] }
    var spent: Duration { .zero }
    func askHolders(of gpa: UInt64) -> Bool { false }
    func wait(_ duration: Duration, for gpa: UInt64, attempt: Int) {}

    mutating func call(
        _ piece: PageRange, in region: Int, to target: PageState, _ mode: ContentMode, zeroes: Bool
    ) -> ConversionAnswer {
        let (file, base) = (files[region], regions[region].start)
        guard let bytes = PageRange(start: piece.start - base, size: piece.size) else { return .cancelled }
        var call = ConversionCall(
            offset: bytes.start, size: bytes.size, attributes: Attributes.word(target), flags: mode.rawValue)
        do throws(ErrorNumber) {
            try kernel.convert(file, &call, isFirstCall: isFirstCall)
        } catch {
            return .failed(error, errorOffset: call.errorOffset)
        }
        let before = zeroes ? Array(states[region].runs(in: bytes)) : []
        states[region].set(bytes, to: target)
        guard zeroes else { return .done }
        for run in ZeroedRun.runs(of: bytes, before, to: target) {
            do throws(ErrorNumber) {
                if run.isHole {
                    try kernel.allocate(
                        file, punchHole: true, offset: run.range.start, length: run.range.size)
                } else {
                    try overwriteWithZeros(region, run.range)
                }
            } catch {
                return .notZeroed(error, gpa: base + run.range.start)
            }
        }
        return .done
    }

    /// Through the mapping, as the monitor does.
    private mutating func overwriteWithZeros(_ region: Int, _ range: PageRange) throws(ErrorNumber) {
        let mapping = mappings[region]
        let count = try kernel.touch(
            mapping, range.start, range.size, toWrite: true, evenPrivateWith: .hostWritesPrivate)
        if count > 0 {
            kernel.fill(kernel.file(of: mapping), at: range.start, count: count, with: 0)
        }
        guard count == range.size else { throw .badAddress }
    }
}
