// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import SystemPackage

/// Facts about a kernel for a report. Facts that cannot be read are nil or left out.
struct KernelFacts {
    /// From uname(2), or from the header of an image: `Linux 7.3.4-lab`.
    let release: String
    /// The build, such as `#1 SMP PREEMPT`; nil if it is not known.
    let build: String?
    /// `name=value` of the parameters of the modules kvm, kvm_amd and kvm_intel, or of the kernel.
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

    /// The directory in which the configuration was looked for.
    let configurationPlace: String

    /// The facts of the running kernel.
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
        configurationPlace = "/boot"
        configuration = Self.configuration("/boot/config-\(release.split(separator: " ").last ?? "")")
    }

    /// The facts of a bzImage: the version in its header, and the file `config` beside it, as lab/kernel/build leaves it.
    ///
    /// - Parameter parameters: the kernel's arguments.
    init(image path: String, parameters: [String]) {
        // Documentation/arch/x86/boot.rst: "HdrS" at 0x202; at 0x20e the place of the version, less 0x200.
        let header = (try? InputFile.read(FilePath(path), most: 1 << 15)) ?? []
        var words: [Substring] = []
        if header.count > 0x210, Array(header[0x202..<0x206]) == Array("HdrS".utf8) {
            let place = Int(header[0x20e]) + Int(header[0x20f]) << 8 + 0x200
            let version = header.dropFirst(place).prefix { $0 != 0 }.prefix(200)
            words = String(decoding: version, as: UTF8.self).split(separator: " ")
        }
        release =
            words.first.map { "Linux \(ByteText.visible(String($0)))" }
            ?? "a kernel without a version in its image"
        // Behind the release stands who built the kernel.
        let build = words.drop { !$0.hasPrefix("#") }.joined(separator: " ")
        self.build = build.isEmpty ? nil : ByteText.visible(build)
        self.parameters = parameters.map(ByteText.visible)
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        configurationPlace = "the directory of the image"
        configuration = Self.configuration(directory + "config")
    }

    private static func configuration(_ path: String) -> [String]? {
        text(path, most: 1 << 20).map { text in
            let wanted = Set(wantedItems.map { "CONFIG_\($0)" })
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
