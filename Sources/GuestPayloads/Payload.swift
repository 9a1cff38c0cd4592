// SPDX-License-Identifier: MIT
public import MiniVMM

/// A demo guest: its image, the machine that it needs, and how it must end.
public struct Payload: Sendable {
    /// The argument of `minivmm run` that selects the guest.
    public let name: String
    /// The purpose of the guest, in one line for `minivmm list`.
    public let shows: String
    /// A description of the guest and of its important output, in a few sentences.
    public let detail: String
    /// The type of VM that the guest is for. A guest for SNP also runs on TDX, and ends there as ``detail`` says.
    public let vmType: VMType
    /// Whether the machine has one alias of its RAM, or a private and a shared one.
    public let aliases: Aliases
    /// The number of vCPUs that the guest needs. A guest for one vCPU also runs with more; the others then wait.
    public let vcpus: Int
    /// The size of RAM in bytes that the guest needs.
    public let ramSize: UInt64
    /// How the monitor handles an access through the wrong alias.
    public let faultPolicy: FaultPolicy
    /// The content policy of requests that name none, and of every implicit conversion.
    public let contents: ContentPolicy
    /// Whether the guest works only on a backend that preserves contents.
    public let needsPreservation: Bool
    /// How the guest must end.
    public let ending: Ending
    /// The flat, position-independent image: loaded at 1 MiB and entered at its first byte. Empty if the
    /// executable was linked without it.
    public let image: [UInt8]

    /// How a guest ends.
    public enum Ending: Hashable, Sendable {
        /// The guest writes this status to the exit port, 0xf4.
        case exit(status: UInt8)
        /// An exception that the guest does not handle.
        case crash
        /// The same memory fault repeats until the monitor stops the guest.
        case faultLoop
        /// The guest runs until the time limit.
        case timeLimit

        /// The exit status of `minivmm run` for this ending.
        public var exitStatus: UInt8 {
            switch self {
            case .exit(let status): status
            case .crash, .faultLoop: 126
            case .timeLimit: 124
            }
        }
    }
}

extension Payload {
    /// The assembler source of the guest, without guest/support.h, which all guests include. Empty if the
    /// executable was linked without it.
    public var source: String { Images.sources[name] ?? "" }

    /// The configuration of the machine that the guest needs.
    public var machineConfiguration: MachineConfiguration {
        var configuration = MachineConfiguration()
        configuration.ramSize = ramSize
        configuration.vcpus = vcpus
        configuration.aliases = aliases
        configuration.faultPolicy = faultPolicy
        configuration.contents = contents
        configuration.needsPreservation = needsPreservation
        configuration.setType(vmType)
        return configuration
    }
}

extension Payload: CustomStringConvertible {
    /// The guest's ``name``.
    public var description: String { name }
}
