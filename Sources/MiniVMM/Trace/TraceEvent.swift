// SPDX-License-Identifier: MIT
public import SystemPackage

/// One event: an exit, a call, or a decision of the monitor.
public enum TraceEvent: Sendable {
    // the machine
    /// `boot`: the image is in RAM of `ram` bytes, all of it shared. `entry` is the first instruction,
    /// `sharedBit` nil with one alias.
    case booted(image: PageRange, entry: UInt64, vcpus: Int, ram: UInt64, sharedBit: Int?)
    /// The backend does not preserve contents, so RAM up to `end` stays shared.
    case imageLeftShared(end: UInt64)
    /// `launch`: SNP and TDX: these private pages became the guest's, measured and with their contents.
    case launched(PageRange)
    /// `exit-status`: the guest wrote to port 0xf4.
    case guestExited(status: UInt8)
    /// `stop`: how the run ended, in words.
    ///
    /// - Parameter status: the exit status of `run`.
    case stopped(String, status: Int32? = nil)
    // exits
    /// `out`: `KVM_EXIT_IO`, one transfer of `size` bytes.
    case portOut(port: UInt16, size: Int, value: UInt64)
    /// `in`: `KVM_EXIT_IO`, one transfer of `size` bytes. `value` is the monitor's answer.
    case portIn(port: UInt16, size: Int, value: UInt64)
    /// `mmio`: `KVM_EXIT_MMIO`, an access of `size` bytes.
    case mmio(gpa: UInt64, size: Int, write: Bool)
    /// `memory-fault`: `KVM_EXIT_MEMORY_FAULT` with the errno of `KVM_RUN`, and the monitor's reaction.
    case memoryFault(MemoryFault, Errno, FaultVerdict)
    /// The vCPU re-enters the guest after a memory fault.
    case resumed(gpa: UInt64)
    /// `hypercall`: RAX, RBX, RCX and RDX of a call, and RAX afterwards. Recorded when the call has returned.
    case hypercall(number: UInt64, UInt64, UInt64, UInt64, byInstruction: Bool, result: Int64)
    /// KVM could not step over VMMCALL because it could not read it, so the monitor did.
    case steppedOver(rip: UInt64)
    /// `exception`: the guest did not handle it, and the monitor's handlers reported it. `rip` is the interrupted instruction's.
    case exception(CPUException, rip: UInt64)
    /// `halt`: `KVM_EXIT_HLT`. Nothing can wake the vCPU.
    case halted
    /// `kick`: `KVM_RUN` returned `EINTR` because the machine stops.
    case kicked
    // conversions
    /// `convert`: the kernel has not been called yet. `before` is nil if the range is private.
    case conversionStarted(ConversionRequest, before: FirstBytes? = nil)
    /// `set-memory-attributes2`: one call; its errno, or nil on success, and `error_offset`. Offset and
    /// size in bytes.
    ///
    /// - Parameters:
    ///   - gpa: the guest-physical address at `offset` of the file.
    ///   - nanoseconds: how long the call took; the event is stamped after it has returned.
    case attributesCall(
        offset: UInt64, size: UInt64, target: PageState, Errno?, UInt64, gpa: UInt64? = nil,
        nanoseconds: UInt64? = nil)
    /// `ask-holders`: registered holders of the page were asked to release it.
    case holdersAsked(gpa: UInt64, released: Int, refused: Int)
    /// `wait`: recorded before the wait. `attempt` counts the attempts so far, from 1.
    case waiting(gpa: UInt64, nanoseconds: UInt64, attempt: Int)
    /// `converted`: the whole request has been done. `after` is nil if the range is private.
    case conversionFinished(ConversionRequest, ConversionResult, after: FirstBytes? = nil)
    /// `not-converted`: the error includes what changed nevertheless.
    case conversionFailed(ConversionError)
    // host accesses and references
    /// `hold`: the host took references for the guest. `yields` tells whether a conversion may have them
    /// released.
    case held(PageRange, yields: Bool)
    /// One hold was released.
    case released(PageRange)
    /// `release-holds`: all holds were released. Each has its own ``released(_:)`` before this.
    case releasedHolds(Int)
    /// `host-access`: the host read or wrote 8 bytes for the guest. Nil means success.
    case hostAccess(gpa: UInt64, HostAccessError.Direction, HostAccessError?)
    // litmus tests; their files follow one another in one address space
    /// `file`: a guest_memfd with its name in the test, its addresses, and the state of all its pages.
    case fileAppeared(String, PageRange, PageState)
    /// `step`: a step as written in the test, its outcome, and whether the outcome is as expected.
    ///
    /// - Parameter line: 0 if the test has no text.
    /// - Parameter expected: the expected outcome; nil if the step only names its result.
    case step(line: Int, String, outcome: String, ok: Bool, expected: String? = nil)
    /// `access`: an actor accessed `size` bytes. No errno means success; `value` is nil if the bytes are not
    /// known.
    case access(gpa: UInt64, size: UInt64, HostAccessError.Direction, Errno?, value: UInt8?)
    /// `punch`: the pages are unallocated. They read as zeros at the next access, and keep their
    /// states.
    case punched(PageRange)
    /// `guest-pages`: SNP and TDX: how far the guest has taken these private pages, as SoftKVM knows. Hardware tells no monitor.
    case guestPages(PageRange, GuestPageState)
    /// `hold` with this name in the test; a conversion cannot have it released.
    case heldByName(String, PageRange)
    /// `release` of the hold with this name.
    case releasedByName(String, PageRange)
}

/// The monitor's reaction to a memory fault.
public enum FaultVerdict: String, Sendable {
    /// The page is converted to the state that the access wants.
    case convert
    /// A race: the page is already in the wanted state, or there is one alias, through which an access has no preferred
    /// kind. The access is retried.
    case race
    /// The policy is not to convert. The access is retried.
    case reenter
    /// The guest requested something impossible, which ends the machine.
    case fatal
}

/// Receives the name and the fields of an event, so that all formats use one description.
public protocol TraceFields {
    /// Called once for each event, before its fields.
    mutating func begin(_ name: EventName)
    /// A key whose type is number or address.
    mutating func number(_ key: EventKey, _ value: UInt64)
    /// A key whose type is ``EventKey/ValueType/signed``.
    mutating func signed(_ key: EventKey, _ value: Int64)
    /// A key whose type is ``EventKey/ValueType/flag``.
    mutating func flag(_ key: EventKey, _ value: Bool)
    /// A key whose type is ``EventKey/ValueType/text``. The value may have any characters; the receiver
    /// escapes it.
    mutating func text(_ key: EventKey, _ value: String)
}

extension TraceEvent {
    /// Writes the event's name and fields, in the order of ``EventSchema``.
    public func describe(to fields: inout some TraceFields) {
        switch self {
        case .booted(let image, let entry, let vcpus, let ram, let sharedBit):
            fields.begin(.boot)
            fields.number(.image, image.start)
            fields.number(.imageBytes, image.size)
            fields.number(.entry, entry)
            fields.number(.vcpus, UInt64(vcpus))
            fields.number(.ramBytes, ram)
            if let sharedBit { fields.number(.sharedBit, UInt64(sharedBit)) }
        case .launched(let range):
            fields.begin(.launch)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
        case .imageLeftShared(let end):
            fields.begin(.imageLeftShared)
            fields.number(.end, end)
        case .guestExited(let status):
            fields.begin(.exitStatus)
            fields.signed(.status, Int64(status))
        case .stopped(let why, let status):
            fields.begin(.stop)
            fields.text(.why, why)
            if let status { fields.signed(.status, Int64(status)) }
        case .portOut(let port, let size, let value):
            fields.begin(.out)
            fields.number(.port, UInt64(port))
            fields.number(.bytes, UInt64(size))
            fields.number(.value, value)
        case .portIn(let port, let size, let value):
            fields.begin(.in)
            fields.number(.port, UInt64(port))
            fields.number(.bytes, UInt64(size))
            fields.number(.value, value)
        case .mmio(let gpa, let size, let write):
            fields.begin(.mmio)
            fields.number(.gpa, gpa)
            fields.number(.bytes, UInt64(size))
            fields.flag(.write, write)
        case .memoryFault(let fault, let errno, let verdict):
            fields.begin(.memoryFault)
            fields.number(.gpa, fault.gpa)
            fields.number(.bytes, fault.size)
            fields.number(.flags, fault.flags)
            fields.text(.wants, fault.wants.rawValue)
            fields.signed(.errno, Int64(errno.rawValue))
            fields.text(.verdict, verdict.rawValue)
        case .resumed(let gpa):
            fields.begin(.resume)
            fields.number(.gpa, gpa)
        case .hypercall(let number, let a0, let a1, let a2, let byInstruction, let result):
            fields.begin(.hypercall)
            fields.number(.number, number)
            fields.number(.a0, a0)
            fields.number(.a1, a1)
            fields.number(.a2, a2)
            fields.text(.by, byInstruction ? "instruction" : "port")
            fields.signed(.result, result)
        case .steppedOver(let rip):
            fields.begin(.stepOver)
            fields.number(.rip, rip)
        case .exception(let exception, let rip):
            fields.begin(.exception)
            fields.number(.vector, UInt64(exception.vector))
            if let code = exception.errorCode { fields.number(.errorCode, UInt64(code)) }
            if let address = exception.address { fields.number(.address, address) }
            fields.number(.rip, rip)
        case .halted: fields.begin(.halt)
        case .kicked: fields.begin(.kick)
        case .conversionStarted(let request, let before):
            fields.begin(.convert)
            fields.request(request)
            if let before { fields.text(.before, before.description) }
        case .attributesCall(
            let offset, let size, let target, let errno, let errorOffset, let gpa, let nanoseconds):
            fields.begin(.setMemoryAttributes2)
            fields.number(.offset, offset)
            fields.number(.size, size)
            fields.text(.target, target.rawValue)
            if let errno {
                fields.signed(.errno, Int64(errno.rawValue))
                fields.text(.error, errno.name)
                fields.number(.errorOffset, errorOffset)
            } else {
                fields.signed(.errno, 0)
            }
            if let gpa { fields.number(.gpa, gpa) }
            if let nanoseconds { fields.number(.ns, nanoseconds) }
        case .holdersAsked(let gpa, let released, let refused):
            fields.begin(.askHolders)
            fields.number(.gpa, gpa)
            fields.number(.released, UInt64(released))
            fields.number(.refused, UInt64(refused))
        case .waiting(let gpa, let nanoseconds, let attempt):
            fields.begin(.wait)
            fields.number(.gpa, gpa)
            fields.number(.ns, nanoseconds)
            fields.number(.attempt, UInt64(attempt))
        case .conversionFinished(let request, let result, let after):
            fields.begin(.converted)
            fields.request(request)
            fields.text(.means, result.means.rawValue)
            fields.number(.calls, UInt64(result.calls))
            fields.number(.busy, UInt64(result.busyAnswers))
            fields.number(.waitedNs, result.waited.wholeNanoseconds)
            if let after { fields.text(.after, after.description) }
        case .conversionFailed(let error):
            fields.begin(.notConverted)
            fields.request(error.request)
            fields.signed(.errno, Int64(error.errno.rawValue))
            fields.number(.convertedBytes, error.result.converted.reduce(0) { $0 + $1.size })
            fields.number(.calls, UInt64(error.result.calls))
            fields.text(.why, error.description)
        case .held(let range, let yields):
            fields.begin(.hold)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
            fields.flag(.yields, yields)
        case .released(let range):
            fields.begin(.release)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
        case .releasedHolds(let count):
            fields.begin(.releaseHolds)
            fields.number(.count, UInt64(count))
        case .fileAppeared(let name, let range, let state):
            fields.begin(.file)
            fields.text(.name, name)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
            fields.text(.state, state.rawValue)
        case .step(let line, let text, let outcome, let ok, let expected):
            fields.begin(.step)
            fields.number(.line, UInt64(line))
            fields.text(.text, text)
            fields.text(.outcome, outcome)
            fields.flag(.ok, ok)
            if let expected { fields.text(.expected, expected) }
        case .access(let gpa, let size, let direction, let errno, let value):
            fields.begin(.access)
            fields.number(.gpa, gpa)
            fields.number(.size, size)
            fields.text(.direction, direction.rawValue)
            fields.signed(.errno, Int64(errno?.rawValue ?? 0))
            if let value { fields.number(.value, UInt64(value)) }
        case .punched(let range):
            fields.begin(.punch)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
        case .guestPages(let range, let state):
            fields.begin(.guestPages)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
            fields.text(.state, state.rawValue)
        case .heldByName(let name, let range):
            fields.begin(.hold)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
            fields.flag(.yields, false)
            fields.text(.name, name)
        case .releasedByName(let name, let range):
            fields.begin(.release)
            fields.number(.gpa, range.start)
            fields.number(.size, range.size)
            fields.text(.name, name)
        case .hostAccess(let gpa, let direction, let error):
            fields.begin(.hostAccess)
            fields.number(.gpa, gpa)
            fields.text(.direction, direction.rawValue)
            fields.signed(.errno, Int64(error?.errno.rawValue ?? 0))
        }
    }
}

extension TraceFields {
    fileprivate mutating func request(_ request: ConversionRequest) {
        number(.gpa, request.range.start)
        number(.size, request.range.size)
        text(.target, request.target.rawValue)
        text(.contents, request.contents.rawValue)
    }
}
