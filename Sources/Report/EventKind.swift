// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// What an event is to a picture: its sign, its words, and the filter that it falls under.
public enum EventKind: UInt8, CaseIterable, Sendable {
    case other, boot, fault, race, hypercall, convert, ioctl, busy, failedCall, converted, notConverted
    case hold, ask, release, access, refusedAccess, wait, resume, console, port, exit, punch, file, step,
        failedStep, end, failedEnd

    /// What the legend calls it.
    public var label: String {
        switch self {
        case .other: "other"
        case .boot: "boot"
        case .fault: "memory fault"
        case .race: "fault, race"
        case .hypercall: "hypercall"
        case .convert: "conversion begins"
        case .ioctl: "ioctl"
        case .busy: "EAGAIN"
        case .failedCall: "ioctl failed"
        case .converted: "conversion ends"
        case .notConverted: "conversion failed"
        case .hold: "hold"
        case .ask: "holder asked"
        case .release: "release"
        case .access: "access"
        case .refusedAccess: "access refused"
        case .wait: "wait"
        case .resume: "resume"
        case .console: "console"
        case .port: "port"
        case .exit: "exit"
        case .punch: "hole punched"
        case .file: "guest_memfd"
        case .step: "step"
        case .failedStep: "step failed"
        case .end: "end"
        case .failedEnd: "failed end"
        }
    }

    /// The filter that shows or hides it.
    public var group: String {
        switch self {
        case .fault, .race, .resume: "faults"
        case .hypercall: "hypercalls"
        case .ioctl, .failedCall: "ioctls"
        case .busy, .wait: "EAGAIN"
        case .convert, .converted, .notConverted: "conversions"
        case .hold, .ask, .release: "holds"
        case .access, .refusedAccess, .punch: "accesses"
        case .console, .port, .exit: "console and exits"
        case .other, .boot, .file, .step, .failedStep, .end, .failedEnd: "other"
        }
    }

    /// Which of several in one place is drawn: the higher.
    public var weight: Int {
        switch self {
        case .failedEnd, .failedStep: 9
        case .notConverted, .failedCall: 8
        case .busy, .refusedAccess: 7
        case .fault, .hold: 6
        case .race, .punch, .release: 5
        case .access, .hypercall, .boot, .end, .file, .step: 4
        case .ioctl: 3
        case .wait, .ask, .converted: 2
        case .convert, .resume, .exit, .other: 1
        case .console, .port: 0
        }
    }

    /// Whether its mark belongs on the pages too, not only in its actor's lane.
    public var marksPages: Bool {
        switch self {
        case .fault, .race, .ioctl, .busy, .failedCall, .notConverted, .hold, .release, .access,
            .refusedAccess,
            .punch, .other:
            true
        default: false
        }
    }
}

extension RecordedTrace {
    /// What an event is.
    public func kind(_ event: Int) -> EventKind {
        var failed: Bool { signed(event, .errno).map { $0 != 0 } ?? false }
        switch shape(event).event {
        case .boot, .imageLeftShared: return .boot
        case .halt, .kick, .stepOver, .mmio: return .exit
        case .memoryFault:
            return text(event, .verdict) == FaultVerdict.race.rawValue ? .race : .fault
        case .hypercall: return .hypercall
        case .convert: return .convert
        case .setMemoryAttributes2:
            return signed(event, .errno) == Int64(Errno.resourceTemporarilyUnavailable.rawValue)
                ? .busy : failed ? .failedCall : .ioctl
        case .converted: return .converted
        case .notConverted: return .notConverted
        case .hold: return .hold
        case .release, .releaseHolds: return .release
        case .askHolders: return .ask
        case .hostAccess, .access: return failed ? .refusedAccess : .access
        case .wait: return .wait
        case .resume: return .resume
        case .console: return .console
        case .out, .in: return .port
        case .punch: return .punch
        case .file, .pagesThen: return .file
        case .step: return number(event, .ok) == 0 ? .failedStep : .step
        case .exitStatus: return .end
        case .stop: return signed(event, .status).map { $0 != 0 } ?? false ? .failedEnd : .end
        case .leftOut, nil: return .other
        }
    }

    private var lastStop: Int? { (0..<count).last { shape($0).event == .stop } }

    /// Whether the trace ends as it should: nil where it does not say.
    public var endedWell: Bool? { lastStop.flatMap { signed($0, .status) }.map { $0 == 0 } }

    /// What the monitor said at the end.
    public var ending: String? { lastStop.flatMap { text($0, .why) } }
}
