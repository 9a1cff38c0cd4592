// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// How a picture shows an event: determines its sign, its text in the legend and its filter.
public enum EventKind: UInt8, CaseIterable, Sendable {
    /// `left-out`, and events that this version does not support.
    case other
    /// `boot` and `image-left-shared`.
    case boot
    /// `memory-fault` after which the monitor converts the page, re-enters the guest, or ends the guest.
    case fault
    /// `memory-fault` on a page that already has the requested state: another vCPU converted it meanwhile.
    case race
    /// `hypercall`.
    case hypercall
    /// `convert`: the monitor's converter receives a request.
    case convert
    /// `set-memory-attributes2` that succeeded.
    case ioctl
    /// `set-memory-attributes2` that failed with `EAGAIN`.
    case busy
    /// `set-memory-attributes2` that failed with another errno.
    case failedCall
    /// `converted`: the whole request succeeded.
    case converted
    /// `not-converted`: the request was refused, failed, or was given up.
    case notConverted
    /// `hold`: the host takes references on pages.
    case hold
    /// `ask-holders`: the monitor asks known holders to release pages.
    case ask
    /// `release` and `release-holds`.
    case release
    /// `host-access` and `access` that succeeded.
    case access
    /// `host-access` and `access` that failed with an errno.
    case refusedAccess
    /// `wait`: the monitor waits before it calls again.
    case wait
    /// `resume`: a vCPU returns to the guest after a memory fault.
    case resume
    /// `console`: a line that the guest printed.
    case console
    /// `out` and `in`.
    case port
    /// `halt`, `kick`, `step-over` and `mmio`.
    case exit
    /// `punch`: a hole in a guest_memfd.
    case punch
    /// `guest-pages` and `launch`: the guest has taken private pages of SNP or TDX, or lost them.
    case guestPages
    /// `file` and `pages-then`: pages and their state.
    case file
    /// `step` of a litmus test with an expected outcome.
    case step
    /// `step` of a litmus test with an unexpected outcome.
    case failedStep
    /// `exit-status`, and `stop` with status 0 or none.
    case end
    /// `stop` with another status.
    case failedEnd

    /// The text in the legend.
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
        case .port: "port I/O"
        case .exit: "exit"
        case .punch: "hole punched"
        case .guestPages: "guest pages"
        case .file: "guest_memfd"
        case .step: "step"
        case .failedStep: "step failed"
        case .end: "end"
        case .failedEnd: "failed end"
        }
    }

    /// The filter on the HTML page that shows or hides the event.
    public var group: String {
        switch self {
        case .fault, .race, .resume: "faults"
        case .hypercall: "hypercalls"
        case .ioctl, .failedCall: "ioctls"
        case .busy, .wait: "EAGAIN"
        case .convert, .converted, .notConverted: "conversions"
        case .hold, .ask, .release: "holds"
        case .access, .refusedAccess, .punch, .guestPages: "accesses"
        case .console, .port, .exit: "console and exits"
        case .other, .boot, .file, .step, .failedStep, .end, .failedEnd: "other"
        }
    }

    /// The priority from 0 to 9. Of several events at the same place, the picture draws the one with the highest
    /// priority.
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
        case .convert, .resume, .exit, .other, .guestPages: 1
        case .console, .port: 0
        }
    }

    /// Whether the picture marks the event on the pages as well as in the row of its actor.
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
    /// How a picture shows an event.
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
        case .guestPages, .launch: return .guestPages
        case .file, .pagesThen: return .file
        case .step: return number(event, .ok) == 0 ? .failedStep : .step
        case .exitStatus: return .end
        case .exception: return .failedEnd
        case .stop: return signed(event, .status).map { $0 != 0 } ?? false ? .failedEnd : .end
        case .leftOut, nil: return .other
        }
    }

    private var lastStop: Int? { (0..<count).last { shape($0).event == .stop } }

    /// Whether the last `stop` event has status 0; nil if there is no such event, or it has no status.
    public var endedWell: Bool? { lastStop.flatMap { signed($0, .status) }.map { $0 == 0 } }

    /// `why` of the last `stop` event: how the run ended, in words. Nil if there is none.
    public var ending: String? { lastStop.flatMap { text($0, .why) } }
}
