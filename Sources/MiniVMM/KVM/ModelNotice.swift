// SPDX-License-Identifier: MIT
import ConversionModel

extension VMType {
    /// Says that a model answers for an SNP or TDX VM, for every output with such answers; nil for the other types.
    public var modelNotice: String? {
        switch self {
        case .default, .softwareProtected: nil
        case .snp: "model of SNP, from public documents; not hardware"
        case .tdx: "model of TDX, from public documents; not hardware"
        }
    }
}

extension BackendIdentity {
    /// The identity in an output about a VM of this type: the host of an SNP or TDX VM includes ``VMType/modelNotice``.
    public func running(_ type: VMType) -> BackendIdentity {
        guard let notice = type.modelNotice else { return self }
        return BackendIdentity(name: name, host: "\(host); \(notice)", kind: kind)
    }
}
