// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM

extension Aliases: ExpressibleByArgument {}
extension FaultPolicy: ExpressibleByArgument {}
extension ContentPolicy: ExpressibleByArgument {}
extension RetryPolicy.InUse: ExpressibleByArgument {}

/// What a machine is made of, as options.
struct MachineOptions: ParsableArguments {
    @Option(help: "Bytes of RAM, 1 MiB to 1 TiB; K, M, G and T are powers of 1024.")
    var ram: ByteCount?
    @Option(help: "vCPUs, 1 to 16.")
    var vcpus: Int?
    @Option(help: "Aliases of RAM: one plain memslot, or two, private and shared.")
    var aliases: Aliases?
    @Option(help: ArgumentHelp("The older name of --aliases.", visibility: .hidden))
    var doors: Aliases?
    @Option(help: "Regions that RAM is divided into, each with its guest_memfd.")
    var regions: Int?
    @Option(help: "What to do on a memory fault.")
    var onFault: FaultPolicy?
    @Option(help: "Contents of converted pages, where the guest does not say.")
    var contents: ContentPolicy?
    @Option(help: "When a page stays in use: fail the request, or bisect around it.")
    var inUse: RetryPolicy.InUse?
    @Option(help: "Attempts for a range whose pages are in use.")
    var attempts: Int?
    @Option(help: "Seconds for one conversion with all its attempts.")
    var deadline: Seconds?
    @Option(help: "Bytes of the largest single conversion call.")
    var chunk: ByteCount?

    func validate() throws {
        if let attempts, attempts < 1 {
            throw ValidationError("--attempts \(attempts): at least 1 is needed.")
        }
        if let chunk, chunk.bytes == 0 || chunk.bytes % pageSize != 0 {
            throw ValidationError("--chunk \(chunk.bytes): a positive multiple of 4096 is needed.")
        }
        if let vcpus, !GuestLayout.vcpuBounds.contains(vcpus) {
            throw ValidationError("--vcpus \(vcpus): from 1 to 16 are possible.")
        }
        if let ram, !GuestLayout.ramBounds.contains(ram.bytes) || ram.bytes % pageSize != 0 {
            throw ValidationError("--ram \(ram.bytes): whole pages of 4096 bytes, from 1 MiB to 1 TiB.")
        }
        if let regions, !(1...64).contains(regions) {
            throw ValidationError("--regions \(regions): from 1 to 64 are possible.")
        }
    }

    func apply(to configuration: inout MachineConfiguration) throws {
        if let ram { configuration.ramSize = ram.bytes }
        if let vcpus { configuration.vcpus = vcpus }
        if let aliases = aliases ?? doors { configuration.aliases = aliases }
        if let regions { configuration.regions = regions }
        if let onFault { configuration.faultPolicy = onFault }
        if let contents {
            configuration.contents = contents
            // Who says so means it.
            if contents == .preserve { configuration.needsPreservation = true }
        }
        if let inUse { configuration.retry.inUse = inUse }
        if let attempts { configuration.retry.attempts = attempts }
        if let deadline { configuration.retry.deadline = deadline.duration }
        if let chunk { configuration.chunk = chunk.bytes }
    }
}
