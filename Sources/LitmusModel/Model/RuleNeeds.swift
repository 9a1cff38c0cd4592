// SPDX-License-Identifier: MIT
import ConversionModel

extension Rules {
    /// Why a test's need is not met by the model with these rules, as a sentence without its period; nil if it is met. It is
    /// tried on a scratch VM, as on a kernel.
    package func absence(of need: Need, on type: VMType) -> String? {
        var probe = NeedProbe(kernel: KernelModel(self))
        do throws(ErrorNumber) {
            switch need {
            case .inPlace: return try probe.inPlace()
            case .preservation where type.isConfidential:
                return "contents do not survive conversions of an SNP or TDX VM"
            case .preservation:
                let vm = try probe.kernel.createVM(type, sharedBit: nil)
                return probe.kernel.contentPromise(of: vm) == .preserved
                    ? nil : "contents do not survive conversions on this kernel"
            case .references: return try probe.inPlace() == nil ? nil : probe.references()
            case .nodes(let count):
                let nodes = KernelModel.nodeCount
                return nodes >= count ? nil : "needs nodes \(count): this machine has \(nodes)"
            case .holder(let kind):
                _ = try probe.hold(kind)
                return nil
            }
        } catch {
            return "needs \(need): \(error.name)"
        }
    }
}

/// Calls on scratch objects of the model.
private struct NeedProbe {
    var kernel: KernelModel

    private mutating func file(_ type: VMType) throws(ErrorNumber) -> DescriptorID {
        let vm = try kernel.createVM(type, sharedBit: nil)
        return try kernel.createGuestMemfd(vm, size: pageSize, flags: [.mmap, .initShared])
    }

    /// With the call that this version has.
    private mutating func convert(_ file: DescriptorID, size: UInt64) throws(ErrorNumber) {
        var call = ConversionCall(offset: 0, size: size, attributes: size > 0 ? Attributes.private : 0)
        try kernel.convert(file, &call, isFirstCall: kernel.rules.abi == .rfcV1)
    }

    /// A call with size 0 on a default VM shows whether the kernel converts in place.
    mutating func inPlace() throws(ErrorNumber) -> String? {
        let file = try file(.default)
        do throws(ErrorNumber) {
            try convert(file, size: 0)
            return "needs in-place: size 0 was accepted, so this ioctl number has another meaning here"
        } catch {
            return error == .invalidArgument
                ? nil : "needs in-place: this kernel does not convert in place (\(error.name))"
        }
    }

    @discardableResult
    mutating func hold(_ kind: HoldKind) throws(ErrorNumber) -> DescriptorID {
        let file = try file(.softwareProtected)
        let view = try kernel.map(file, offset: 0, length: pageSize)
        _ = try kernel.hold(view, at: 0, length: pageSize, by: kind)
        return file
    }

    mutating func references() throws(ErrorNumber) -> String? {
        let file = try hold(.vmsplice)
        do throws(ErrorNumber) {
            try convert(file, size: pageSize)
            return "needs references: this backend does not count references on pages"
        } catch {
            guard error == .resourceTemporarilyUnavailable else { throw error }
            return nil
        }
    }
}
