// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

/// Events of every kind, with and without their optional fields.
enum EveryEvent {
    static func list() throws -> [TraceEvent] {
        let range = try #require(PageRange(start: 0x5000, size: 0x2000))
        let request = ConversionRequest(range: range, to: .private, contents: .zero)
        var result = ConversionResult(means: .zeroedByMonitor)
        result.converted = [range]
        result.calls = 3
        let bytes = FirstBytes(word: 0x0102_0304_0506_0708)
        let error = ConversionError(reason: .inUse([range]), request: request, result: result)
        let access = HostAccessError(gpa: 0x5000, direction: .read, errno: .badAddress, state: .private)
        return [
            .booted(image: range, entry: 0x5001, vcpus: 2, ram: 1 << 40, sharedBit: 46),
            .booted(image: range, entry: 0x5001, vcpus: 2, ram: 1 << 40, sharedBit: nil),
            .imageLeftShared(end: 0x7000), .launched(range), .guestExited(status: 255),
            .stopped("a \"reason\"\n\twith\u{1} \\"), .stopped("why", status: 128),
            .portOut(port: 0x80, size: 1, value: 65), .portIn(port: 0x3fd, size: 4, value: .max),
            .mmio(gpa: 1 << 51, size: 8, write: true),
            .memoryFault(MemoryFault(gpa: 0x5000, size: 4096, flags: 8), .badAddress, .convert),
            .resumed(gpa: 0x5000),
            .hypercall(number: 12, .max, 1, 0x10, byInstruction: true, result: -22),
            .hypercall(number: 0x4d56_0005, 0x5000, 1, 0, byInstruction: false, result: 1),
            .steppedOver(rip: 0x10_0010),
            .exception(CPUException(14, errorCode: 2, address: 0xdead_0000), rip: 0x10_0010), .halted,
            .kicked,
            .conversionStarted(request), .conversionStarted(request, before: bytes),
            .attributesCall(offset: 0, size: 4096, target: .private, .resourceTemporarilyUnavailable, 8192),
            .attributesCall(offset: 0, size: 4096, target: .shared, nil, 0, gpa: 4096, nanoseconds: 7),
            .holdersAsked(gpa: 0x5000, released: 1, refused: 2),
            .waiting(gpa: 0x5000, nanoseconds: 20_000, attempt: 1),
            .conversionFinished(request, result), .conversionFinished(request, result, after: bytes),
            .conversionFailed(error), .held(range, yields: false), .released(range), .releasedHolds(3),
            .hostAccess(gpa: 0x5000, .read, access), .hostAccess(gpa: 0x5000, .write, nil),
            .fileAppeared("ram", range, .shared),
            .step(line: 3, "host read 0", outcome: "0x41", ok: false, expected: "0x42"),
            .access(gpa: 1, size: 1, .read, nil, value: 7),
            .access(gpa: 1, size: 9, .write, .badAddress, value: nil),
            .punched(range), .guestPages(range, .pending), .heldByName("h", range),
            .releasedByName("h", range),
        ]
    }

    /// The name of the event's row. The compiler requires a new case to be added here, and a test requires it in the
    /// list.
    static func name(_ event: TraceEvent) -> EventName {
        switch event {
        case .booted: .boot
        case .imageLeftShared: .imageLeftShared
        case .launched: .launch
        case .guestExited: .exitStatus
        case .stopped: .stop
        case .portOut: .out
        case .portIn: .in
        case .mmio: .mmio
        case .memoryFault: .memoryFault
        case .resumed: .resume
        case .hypercall: .hypercall
        case .steppedOver: .stepOver
        case .exception: .exception
        case .halted: .halt
        case .kicked: .kick
        case .conversionStarted: .convert
        case .attributesCall: .setMemoryAttributes2
        case .holdersAsked: .askHolders
        case .waiting: .wait
        case .conversionFinished: .converted
        case .conversionFailed: .notConverted
        case .held, .heldByName: .hold
        case .released, .releasedByName: .release
        case .releasedHolds: .releaseHolds
        case .hostAccess: .hostAccess
        case .fileAppeared: .file
        case .step: .step
        case .access: .access
        case .punched: .punch
        case .guestPages: .guestPages
        }
    }

    /// Records the fields that an event writes.
    struct Written: TraceFields {
        enum Method { case number, signed, flag, text }
        var name: EventName?
        var fields: [(key: EventKey, method: Method)] = []
        mutating func begin(_ name: EventName) { self.name = name }
        mutating func number(_ key: EventKey, _ value: UInt64) { fields.append((key, .number)) }
        mutating func signed(_ key: EventKey, _ value: Int64) { fields.append((key, .signed)) }
        mutating func flag(_ key: EventKey, _ value: Bool) { fields.append((key, .flag)) }
        mutating func text(_ key: EventKey, _ value: String) { fields.append((key, .text)) }

        init(_ event: TraceEvent) { event.describe(to: &self) }
    }
}
