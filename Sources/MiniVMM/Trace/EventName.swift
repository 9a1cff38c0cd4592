// SPDX-License-Identifier: MIT
/// The names of events. ``EventSchema`` has the meaning and the keys of each.
public enum EventName: UInt8, CaseIterable, Sendable {
    /// ``TraceEvent/booted(image:entry:vcpus:ram:sharedBit:)``
    case boot
    /// ``TraceEvent/imageLeftShared(end:)``
    case imageLeftShared
    /// ``TraceEvent/launched(_:)``
    case launch
    /// ``TraceEvent/guestPages(_:_:)``
    case guestPages
    /// ``TraceEvent/guestExited(status:)``
    case exitStatus
    /// ``TraceEvent/stopped(_:status:)``
    case stop
    /// ``TraceEvent/portOut(port:size:value:)``
    case out
    /// ``TraceEvent/portIn(port:size:value:)``
    case `in`
    /// ``TraceEvent/mmio(gpa:size:write:)``
    case mmio
    /// ``TraceEvent/memoryFault(_:_:_:)``
    case memoryFault
    /// ``TraceEvent/resumed(gpa:)``
    case resume
    /// ``TraceEvent/hypercall(number:_:_:_:byInstruction:result:)``
    case hypercall
    /// ``TraceEvent/steppedOver(rip:)``
    case stepOver
    /// ``TraceEvent/exception(_:rip:)``
    case exception
    /// ``TraceEvent/halted``
    case halt
    /// ``TraceEvent/kicked``
    case kick
    /// ``TraceEvent/conversionStarted(_:before:)``
    case convert
    /// ``TraceEvent/attributesCall(offset:size:target:_:_:gpa:nanoseconds:)``
    case setMemoryAttributes2
    /// ``TraceEvent/holdersAsked(gpa:released:refused:)``
    case askHolders
    /// ``TraceEvent/waiting(gpa:nanoseconds:attempt:)``
    case wait
    /// ``TraceEvent/conversionFinished(_:_:after:)``
    case converted
    /// ``TraceEvent/conversionFailed(_:)``
    case notConverted
    /// ``TraceEvent/held(_:yields:)`` and ``TraceEvent/heldByName(_:_:)``
    case hold
    /// ``TraceEvent/released(_:)`` and ``TraceEvent/releasedByName(_:_:)``
    case release
    /// ``TraceEvent/releasedHolds(_:)``
    case releaseHolds
    /// ``TraceEvent/hostAccess(gpa:_:_:)``
    case hostAccess
    /// ``TraceEvent/fileAppeared(_:_:_:)``
    case file
    /// ``TraceEvent/step(line:_:outcome:ok:expected:)``
    case step
    /// ``TraceEvent/access(gpa:size:_:_:value:)``
    case access
    /// ``TraceEvent/punched(_:)``
    case punch
    /// A printed line, which readers join from many `out` events.
    case console
    /// Replaces events that a picture does not show.
    case leftOut
    /// The states of pages after the events that were left out.
    case pagesThen

    /// The name's spelling in a trace.
    public var spelling: StaticString {
        switch self {
        case .boot: "boot"
        case .imageLeftShared: "image-left-shared"
        case .launch: "launch"
        case .guestPages: "guest-pages"
        case .exitStatus: "exit-status"
        case .stop: "stop"
        case .out: "out"
        case .in: "in"
        case .mmio: "mmio"
        case .memoryFault: "memory-fault"
        case .resume: "resume"
        case .hypercall: "hypercall"
        case .stepOver: "step-over"
        case .exception: "exception"
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

    /// - Returns: nil for an unknown name.
    public init?(_ spelling: String) {
        guard let name = Self.bySpelling[spelling] else { return nil }
        self = name
    }
}
