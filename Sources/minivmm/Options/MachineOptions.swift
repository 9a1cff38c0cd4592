// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM

extension Aliases: ExpressibleByArgument {}
extension FaultPolicy: ExpressibleByArgument {}
extension HostBehaviour: ExpressibleByArgument {}

/// `--vm`.
enum MachineType: String, CaseIterable, ExpressibleByArgument {
    case protected, snp, tdx

    var type: VMType {
        switch self {
        case .protected: .softwareProtected
        case .snp: .snp
        case .tdx: .tdx
        }
    }
}
extension ContentPolicy: ExpressibleByArgument {}
extension RetryPolicy.InUse: ExpressibleByArgument {}

/// The options that configure a machine.
struct MachineOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Type of the VM: protected; or snp or tdx, which are models from public documents, on SoftKVM only. (default: the guest's, else protected)",
            valueName: "type"))
    var vm: MachineType?
    @Option(
        help: ArgumentHelp(
            "Makes the host of an SNP or TDX guest hostile: lie, refuse, swap-pages, take-pages, shrink-list or wrong-ret. Repeatable. (default: an honest host)",
            valueName: "behaviour"))
    var host: [HostBehaviour] = []
    @Flag(
        name: .customLong("ve"),
        help:
            "TDX: the touch of a page that is not accepted raises #VE in the guest, and does not end the VM (SEPT_VE_DISABLE is clear)."
    )
    var raisesVE = false
    @Flag(
        help:
            "Gives the guest KVM's interrupt controllers and timer (PIC, I/O APIC, local APICs, PIT); COM1 drives line 4, and vCPUs other than the first wait for SIPI. Only on /dev/kvm. (default: none)"
    )
    var irqchip = false
    @Option(
        help: ArgumentHelp(
            "RAM in bytes, 1M to 1T; K, M, G, T are powers of 1024. (default: the guest's, else 16M)",
            valueName: "bytes"))
    var ram: ByteCount?
    @Option(
        help: ArgumentHelp("Number of vCPUs, 1 to 16. (default: the guest's, else 1)", valueName: "count"))
    var vcpus: Int?
    @Option(
        help:
            "Aliases of RAM in guest-physical memory: one, or two (a private and a shared one). (default: the guest's, else one)"
    )
    var aliases: Aliases?
    /// The name of `--aliases` before version 1.1.
    @Option(help: .hidden)
    var doors: Aliases?
    @Option(
        help: ArgumentHelp(
            "Number of regions that RAM is divided into, each with its own guest_memfd, 1 to 64. (default: 1)",
            valueName: "count"))
    var regions: Int?
    @Option(
        help:
            "Response to a memory fault: convert the page, reenter without converting, or refuse and end the guest. (default: convert; with --vm snp and tdx refuse)"
    )
    var onFault: FaultPolicy?
    @Option(
        help:
            "Content policy of conversions for which the guest specifies none. (default: the guest's, else preserve)"
    )
    var contents: ContentPolicy?
    @Option(
        help:
            "If a page stays in use: fail the request, or bisect to convert everything around it. (default: fail)"
    )
    var inUse: RetryPolicy.InUse?
    @Option(
        help: ArgumentHelp(
            "Conversion attempts while a page of the range is in use, at least 1. (default: 16)",
            valueName: "count"))
    var attempts: Int?
    @Option(
        help: ArgumentHelp(
            "Time limit in seconds for one conversion with all its attempts. (default: 1)",
            valueName: "seconds"))
    var deadline: Seconds?
    @Option(
        help: ArgumentHelp(
            "Largest single conversion call in bytes, a multiple of 4096. (default: 256M)", valueName: "bytes"
        ))
    var chunk: ByteCount?

    func validate() throws {
        if let attempts, attempts < 1 {
            throw ValidationError("--attempts \(attempts): must be at least 1.")
        }
        if let chunk, chunk.bytes == 0 || chunk.bytes % pageSize != 0 {
            throw ValidationError("--chunk \(chunk.bytes): must be a positive multiple of 4096.")
        }
        if let vcpus, !GuestLayout.vcpuBounds.contains(vcpus) {
            throw ValidationError("--vcpus \(vcpus): must be 1 to 16.")
        }
        if let ram, !GuestLayout.ramBounds.contains(ram.bytes) || ram.bytes % pageSize != 0 {
            throw ValidationError("--ram \(ram.bytes): must be a multiple of 4096 bytes from 1 MiB to 1 TiB.")
        }
        if let regions, !(1...64).contains(regions) {
            throw ValidationError("--regions \(regions): must be 1 to 64.")
        }
    }

    func apply(to configuration: inout MachineConfiguration) throws {
        if let vm, vm.type != configuration.vmType { configuration.setType(vm.type) }
        configuration.host = Set(host)
        if !host.isEmpty, !configuration.vmType.isConfidential {
            throw ValidationError("--host is for SNP and TDX guests: add --vm snp or --vm tdx.")
        }
        if raisesVE, configuration.vmType != .tdx {
            throw ValidationError("--ve is for TDX guests: add --vm tdx.")
        }
        configuration.raisesVE = raisesVE
        configuration.hasInterruptControllers = irqchip
        if aliases == .one, configuration.vmType.isConfidential {
            throw ValidationError("--aliases one: every SNP and TDX guest has two aliases.")
        }
        if let ram { configuration.ramSize = ram.bytes }
        if let vcpus { configuration.vcpus = vcpus }
        if let aliases = aliases ?? doors { configuration.aliases = aliases }
        if let regions { configuration.regions = regions }
        if let onFault { configuration.faultPolicy = onFault }
        if let contents {
            configuration.contents = contents
            // An explicit request must be honoured or refused.
            if contents == .preserve { configuration.needsPreservation = true }
        }
        if let inUse { configuration.retry.inUse = inUse }
        if let attempts { configuration.retry.attempts = attempts }
        if let deadline { configuration.retry.deadline = deadline.duration }
        if let chunk { configuration.chunk = chunk.bytes }
    }
}
