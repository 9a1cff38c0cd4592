// SPDX-License-Identifier: MIT
/// The names of events. ``EventSchema`` says what each stands for and which keys it has.
public enum EventName: UInt8, CaseIterable, Sendable {
    case boot, imageLeftShared, exitStatus, stop
    case out, `in`, mmio, memoryFault, resume, hypercall, stepOver, halt, kick
    case convert, setMemoryAttributes2, askHolders, wait, converted, notConverted
    case hold, release, releaseHolds, hostAccess
    case file, step, access, punch
    case console, leftOut, pagesThen

    /// As a trace spells it.
    public var spelling: StaticString {
        switch self {
        case .boot: "boot"
        case .imageLeftShared: "image-left-shared"
        case .exitStatus: "exit-status"
        case .stop: "stop"
        case .out: "out"
        case .in: "in"
        case .mmio: "mmio"
        case .memoryFault: "memory-fault"
        case .resume: "resume"
        case .hypercall: "hypercall"
        case .stepOver: "step-over"
        case .halt: "halt"
        case .kick: "kick"
        case .convert: "convert"
        case .setMemoryAttributes2: "set-memory-attributes2"
        case .askHolders: "ask-holders"
        case .wait: "wait"
        case .converted: "converted"
        case .notConverted: "not-converted"
        case .hold: "hold"
        case .release: "release"
        case .releaseHolds: "release-holds"
        case .hostAccess: "host-access"
        case .file: "file"
        case .step: "step"
        case .access: "access"
        case .punch: "punch"
        case .console: "console"
        case .leftOut: "left-out"
        case .pagesThen: "pages-then"
        }
    }

    private static let bySpelling = Dictionary(
        uniqueKeysWithValues: allCases.map { ($0.spelling.description, $0) })

    /// - Returns: nil for a name that this version does not know.
    public init?(_ spelling: String) {
        guard let name = Self.bySpelling[spelling] else { return nil }
        self = name
    }
}
