// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

// Conversions: the bare call, the monitor's converter, and one memslot of a hypercall.
extension ModelMachine {
    mutating func convert(_ conversion: Conversion) throws(Stop) -> Observation {
        let descriptor = try file(conversion.extent.name)
        guard let policy = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: conversion.extent.offset, size: conversion.extent.size),
            range.end <= kernel.size(of: kernel.file(of: descriptor))
        else { return try call(conversion, descriptor) }
        if let design = setup.configuration.contentDesign {
            var conversion = conversion
            if design == .callFlag, policy == .preserve { conversion.flags = ContentDesign.callFlagBit }
            return try call(conversion, descriptor)
        }
        return try ask(for: range, target, policy, conversion.monitor, conversion.extent.name, descriptor)
    }

    /// The monitor's converter, on a kernel that has this state and gives it back.
    private mutating func ask(
        for range: PageRange, _ target: PageState, _ policy: ContentPolicy, _ monitor: MonitorPolicy,
        _ name: Name, _ descriptor: DescriptorID
    ) throws(Stop) -> Observation {
        let vm = try vm(nil)
        let size = kernel.size(of: kernel.file(of: descriptor))
        let mapping: MappingID
        var own: MappingID?
        if let view = views[name], view.file == name, view.offset == 0,
            kernel.length(of: view.mapping) == size
        {
            mapping = view.mapping
        } else {
            do throws(ErrorNumber) {
                mapping = try kernel.map(descriptor, offset: 0, length: size)
            } catch {
                throw .monitorCannotMap(name, Errno(error))
            }
            own = mapping
        }
        let soft = SoftKVM(setup.configuration, contents: .inside)
        soft.value = kernel
        defer {
            kernel = soft.value
            if let own { kernel.forget(own) }
        }
        guard let whole = PageRange(start: 0, size: size) else { throw .noFile(name) }
        let region = MemoryRegion(
            gpa: whole, file: soft.memfd(descriptor), mapping: soft.mapping(mapping))
        return World.ask(
            soft, soft.vm(vm), region, kernel.attributes(of: kernel.file(of: descriptor)),
            ConversionRequest(range: range, to: target, contents: policy), monitor
        ).seen
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2`, or the call that stands for it in this version.
    private mutating func call(
        _ conversion: Conversion, _ descriptor: DescriptorID
    ) throws(Stop) -> Observation {
        let isFirstCall = setup.configuration.abi == .rfcV1
        if conversion.contents == .preserve, setup.configuration.contentDesign == nil,
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
                // The result is in memory that the monitor does not see.
                return Observation(.ok)
            }
            try kernel.convert(descriptor, &call, isFirstCall: isFirstCall)
            let isWritten = call.errorOffset != conversion.errorOffset
            return Observation(
                .ok, oddity: isWritten ? "error_offset was written: \(written(call.errorOffset))" : nil)
        } catch {
            // Of a struct that cannot be written the monitor's copy stays as it was.
            let named = conversion.structure == .writable ? call.errorOffset : conversion.errorOffset
            let isNamed =
                error == .resourceTemporarilyUnavailable || error == .noMemory
                || named != conversion.errorOffset
            return Observation(.errno(error.rawValue, at: isNamed ? named : nil))
        }
    }

    /// The call for one memslot, as a hypercall makes it.
    mutating func convert(_ place: World.Behind, _ request: MapRequest) throws(Stop) -> Agent.Answer {
        let extent = Extent(place.file, offset: place.bytes.start, size: place.bytes.size)
        let seen = try convert(Conversion(extent, to: request.target, contents: request.contents))
        guard case .errno(let number, let offset) = seen.outcome else { return nil }
        return (Errno(rawValue: number), offset.map { place.gpa &+ ($0 &- place.bytes.start) })
    }
}
