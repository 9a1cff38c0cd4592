// SPDX-License-Identifier: MIT
public import MiniVMM

/// A demo guest: its image, the machine it wants, and how it must end.
public struct Payload: Sendable {
    /// What `minivmm run` calls it.
    public let name: String
    /// What it shows, in one line.
    public let shows: String
    /// What it does and what to look for, in a few sentences.
    public let detail: String
    /// How its RAM is reached.
    public let aliases: Aliases
    /// Number of vCPUs it wants; one that wants 1 runs with more, the others then wait.
    public let vcpus: Int
    /// Bytes of RAM it wants.
    public let ramSize: UInt64
    /// How the monitor handles an access through the wrong alias.
    public let faultPolicy: FaultPolicy
    /// What shall become of contents where it does not say, and where it only touches.
    public let contents: ContentPolicy
    /// It does its job only where conversions can preserve contents.
    public let needsPreservation: Bool
    /// How it must end.
    public let ending: Ending
    /// The flat image, to be loaded at 1 MiB and entered at its first byte. Position independent.
    public let image: [UInt8]

    /// How a guest comes to its end.
    public enum Ending: Hashable, Sendable {
        /// It writes a status to the exit port.
        case exit(status: UInt8)
        /// A triple fault: `KVM_EXIT_SHUTDOWN`.
        case crash
        /// The same memory fault again and again.
        case faultLoop
        /// It runs until its time is up.
        case timeLimit

        /// The exit status that `minivmm run` has for it.
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
    /// The assembler text of the guest itself; what guests share is in guest/support.h.
    public var source: String { Images.sources[name] ?? "" }

    /// The machine that the payload is made for.
    public var machineConfiguration: MachineConfiguration {
        var configuration = MachineConfiguration()
        configuration.ramSize = ramSize
        configuration.vcpus = vcpus
        configuration.aliases = aliases
        configuration.faultPolicy = faultPolicy
        configuration.contents = contents
        configuration.needsPreservation = needsPreservation
        return configuration
    }
}

extension Payload: CustomStringConvertible {
    public var description: String { name }
}
