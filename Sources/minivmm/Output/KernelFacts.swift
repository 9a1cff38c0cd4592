// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// Facts about this machine's kernel for a report, read from /proc, /sys and /boot. Facts that cannot be read are nil or
/// left out.
struct KernelFacts {
    /// From uname(2): `Linux 7.3.4-lab`.
    let release: String
    /// The build, such as `#1 SMP PREEMPT`; nil if it is not known.
    let build: String?
    /// `name=value` of the parameters of the modules kvm, kvm_amd and kvm_intel.
    let parameters: [String]
    /// Lines of the configuration that matter for guest_memfd; nil if the configuration cannot be read.
    let configuration: [String]?

    private static let modules = ["kvm", "kvm_amd", "kvm_intel"]
    private static let wantedParameters: Set<String> = [
        "gmem_in_place_conversion", "tdp_mmu", "npt", "ept", "sev", "sev_snp", "tdx", "nested",
    ]
    private static let wantedItems = [
        "KVM", "KVM_AMD", "KVM_INTEL", "KVM_SW_PROTECTED_VM", "KVM_GUEST_MEMFD", "KVM_VM_MEMORY_ATTRIBUTES",
        "KVM_GENERIC_MEMORY_ATTRIBUTES", "PREEMPT", "PREEMPT_VOLUNTARY", "PREEMPT_NONE", "PREEMPT_RT", "NUMA",
        "TRANSPARENT_HUGEPAGE", "MEMORY_FAILURE", "DEBUG_VM", "PROVE_LOCKING", "KASAN",
    ]

    init() {
        release = LinuxKVM.runningKernel()
        build = Self.text("/proc/sys/kernel/version").map(ByteText.visible)
        parameters = Self.modules.flatMap { module in
            let directory = "/sys/module/\(module)/parameters"
            let names = ((try? DirectoryListing.read(directory)) ?? []).map(\.name)
            return names.filter(Self.wantedParameters.contains).compactMap { name in
                Self.text("\(directory)/\(name)").map { ByteText.visible("\(module).\(name)=\($0)") }
            }
        }
        let path = "/boot/config-\(release.split(separator: " ").last ?? "")"
        configuration = Self.text(path, most: 1 << 20).map { text in
            let wanted = Set(Self.wantedItems.map { "CONFIG_\($0)" })
            return text.split(separator: "\n").filter { line in
                line.split(separator: "=").first.map { wanted.contains(String($0)) } ?? false
            }.map { ByteText.visible(String($0)) }
        }
    }

    private static func text(_ path: String, most: UInt64 = 4096) -> String? {
        guard let bytes = try? InputFile.read(FilePath(path), most: most) else { return nil }
        let text = String(decoding: bytes, as: UTF8.self).trimmed
        return text.isEmpty ? nil : text
    }
}

extension String {
    fileprivate var trimmed: String {
        String(drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
    }
}
