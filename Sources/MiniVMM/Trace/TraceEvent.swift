public import SystemPackage

/// Who did something.
public enum Actor: Sendable, Equatable {
    case vcpu(Int)
    case host
    /// Another thread of the host, from 1; in litmus tests.
    case hostThread(Int)
    /// A process forked from the host, from 0; in litmus tests.
    case child(Int)

    /// `host`, `vcpu0`, `host1`, `child`, `child1`.
    public var name: String {
        switch self {
        case .vcpu(let id): "vcpu\(id)"
        case .host: "host"
        case .hostThread(let number): "host\(number)"
        case .child(let number): number == 0 ? "child" : "child\(number)"
        }
    }
}

/// One thing that happened. Each stands for one exit, one call, or one decision of the monitor.
public enum TraceEvent: Sendable {
    // the machine
    case booted(image: PageRange, entry: UInt64, vcpus: Int, ram: UInt64, sharedBit: Int?)
    /// The kernel does not preserve contents, so RAM up to `end` stays shared.
    case imageLeftShared(end: UInt64)
    case guestExited(status: UInt8)
    /// - Parameter status: the exit status of `run` for it.
    case stopped(String, status: Int32? = nil)
    // exits
    case portOut(port: UInt16, size: Int, value: UInt64)
    case portIn(port: UInt16, size: Int, value: UInt64)
    case mmio(gpa: UInt64, size: Int, write: Bool)
    case memoryFault(MemoryFault, Errno, FaultVerdict)
    /// The vCPU goes back into the guest after a memory fault.
    case resumed(gpa: UInt64)
    case hypercall(number: UInt64, UInt64, UInt64, UInt64, byInstruction: Bool, result: Int64)
    /// KVM could not step over VMMCALL because it could not read it, and the monitor did.
    case steppedOver(rip: UInt64)
    case halted
    case kicked
    // conversions
    case conversionStarted(ConversionRequest, before: FirstBytes? = nil)
    /// - Parameters:
    ///   - gpa: what is at `offset` of the file.
    ///   - nanoseconds: how long the call took; the event is stamped when it has returned.
    case attributesCall(
        offset: UInt64, size: UInt64, target: PageState, Errno?, UInt64, gpa: UInt64? = nil,
        nanoseconds: UInt64? = nil)
    case holdersAsked(gpa: UInt64, released: Int, refused: Int)
    case waiting(gpa: UInt64, nanoseconds: UInt64, attempt: Int)
    case conversionFinished(ConversionRequest, ConversionResult, after: FirstBytes? = nil)
    case conversionFailed(ConversionError)
    // the host's side
    case held(PageRange, yields: Bool)
    /// One hold is let go.
    case released(PageRange)
    case releasedHolds(Int)
    case hostAccess(gpa: UInt64, HostAccessError.Direction, HostAccessError?)
    // litmus tests; their files lie one behind the other in one space of addresses
    case fileAppeared(String, PageRange, PageState)
    /// - Parameter line: 0 where the test has no text.
    case step(line: Int, String, outcome: String, ok: Bool)
    case access(gpa: UInt64, size: UInt64, HostAccessError.Direction, Errno?, value: UInt8?)
    case punched(PageRange)
    case heldByName(String, PageRange)
    case releasedByName(String, PageRange)
}

/// What the run loop makes of a memory fault.
public enum FaultVerdict: String, Sendable {
    /// The page is converted to what the access wanted.
    case convert
    /// The page is already what the access wanted, or there is one alias, through which no access wants anything: a
    /// race. The access is tried again.
    case race
    /// The monitor was told not to convert. The access is tried again.
    case reenter
    /// The guest asked for something that cannot be, and ends.
    case fatal
}

/// Receives the name and the fields of an event; one description of an event serves every format.
public protocol TraceFields {
    mutating func name(_ name: StaticString)
    mutating func number(_ key: StaticString, _ value: UInt64)
    mutating func address(_ key: StaticString, _ value: UInt64)
    mutating func signed(_ key: StaticString, _ value: Int64)
    mutating func flag(_ key: StaticString, _ value: Bool)
    mutating func text(_ key: StaticString, _ value: String)
}

extension TraceEvent {
    /// Writes the event's name and fields. Names and keys are the schema `minivmm.trace/1`.
    public func describe(to fields: inout some TraceFields) {
        switch self {
        case .booted(let image, let entry, let vcpus, let ram, let sharedBit):
            fields.name("boot")
            fields.address("image", image.start)
            fields.number("image_bytes", image.size)
            fields.address("entry", entry)
            fields.number("vcpus", UInt64(vcpus))
            fields.number("ram_bytes", ram)
            if let sharedBit { fields.number("shared_bit", UInt64(sharedBit)) }
        case .imageLeftShared(let end):
            fields.name("image-left-shared")
            fields.address("end", end)
        case .guestExited(let status):
            fields.name("exit-status")
            fields.number("status", UInt64(status))
        case .stopped(let why, let status):
            fields.name("stop")
            fields.text("why", why)
            if let status { fields.signed("status", Int64(status)) }
        case .portOut(let port, let size, let value):
            fields.name("out")
            fields.address("port", UInt64(port))
            fields.number("bytes", UInt64(size))
            fields.address("value", value)
        case .portIn(let port, let size, let value):
            fields.name("in")
            fields.address("port", UInt64(port))
            fields.number("bytes", UInt64(size))
            fields.address("value", value)
        case .mmio(let gpa, let size, let write):
            fields.name("mmio")
            fields.address("gpa", gpa)
            fields.number("bytes", UInt64(size))
            fields.flag("write", write)
        case .memoryFault(let fault, let errno, let verdict):
            fields.name("memory-fault")
            fields.address("gpa", fault.gpa)
            fields.number("bytes", fault.size)
            fields.address("flags", fault.flags)
            fields.text("wants", fault.wants.rawValue)
            fields.signed("errno", Int64(errno.rawValue))
            fields.text("verdict", verdict.rawValue)
        case .resumed(let gpa):
            fields.name("resume")
            fields.address("gpa", gpa)
        case .hypercall(let number, let a0, let a1, let a2, let byInstruction, let result):
            fields.name("hypercall")
            fields.address("number", number)
            fields.address("a0", a0)
            fields.address("a1", a1)
            fields.address("a2", a2)
            fields.text("by", byInstruction ? "instruction" : "port")
            fields.signed("result", result)
        case .steppedOver(let rip):
            fields.name("step-over")
            fields.address("rip", rip)
        case .halted: fields.name("halt")
        case .kicked: fields.name("kick")
        case .conversionStarted(let request, let before):
            fields.name("convert")
            fields.request(request)
            if let before { fields.text("before", before.description) }
        case .attributesCall(
            let offset, let size, let target, let errno, let errorOffset, let gpa, let nanoseconds):
            fields.name("set-memory-attributes2")
            fields.address("offset", offset)
            fields.address("size", size)
            fields.text("target", target.rawValue)
            if let errno {
                fields.signed("errno", Int64(errno.rawValue))
                fields.text("error", errno.name)
                fields.address("error_offset", errorOffset)
            } else {
                fields.signed("errno", 0)
            }
            if let gpa { fields.address("gpa", gpa) }
            if let nanoseconds { fields.number("ns", nanoseconds) }
        case .holdersAsked(let gpa, let released, let refused):
            fields.name("ask-holders")
            fields.address("gpa", gpa)
            fields.number("released", UInt64(released))
            fields.number("refused", UInt64(refused))
        case .waiting(let gpa, let nanoseconds, let attempt):
            fields.name("wait")
            fields.address("gpa", gpa)
            fields.number("ns", nanoseconds)
            fields.number("attempt", UInt64(attempt))
        case .conversionFinished(let request, let result, let after):
            fields.name("converted")
            fields.request(request)
            fields.text("means", result.means.rawValue)
            fields.number("calls", UInt64(result.calls))
            fields.number("busy", UInt64(result.busyAnswers))
            fields.number("waited_ns", result.waited)
            if let after { fields.text("after", after.description) }
        case .conversionFailed(let error):
            fields.name("not-converted")
            fields.request(error.request)
            fields.signed("errno", Int64(error.errno.rawValue))
            fields.number("converted_bytes", error.result.converted.reduce(0) { $0 + $1.size })
            fields.number("calls", UInt64(error.result.calls))
            fields.text("why", error.description)
        case .held(let range, let yields):
            fields.name("hold")
            fields.address("gpa", range.start)
            fields.address("size", range.size)
            fields.flag("yields", yields)
        case .released(let range):
            fields.name("release")
            fields.address("gpa", range.start)
            fields.address("size", range.size)
        case .releasedHolds(let count):
            fields.name("release-holds")
            fields.number("count", UInt64(count))
        case .fileAppeared(let name, let range, let state):
            fields.name("file")
            fields.text("name", name)
            fields.address("gpa", range.start)
            fields.address("size", range.size)
            fields.text("state", state.rawValue)
        case .step(let line, let text, let outcome, let ok):
            fields.name("step")
            fields.number("line", UInt64(line))
            fields.text("text", text)
            fields.text("outcome", outcome)
            fields.flag("ok", ok)
        case .access(let gpa, let size, let direction, let errno, let value):
            fields.name("access")
            fields.address("gpa", gpa)
            fields.address("size", size)
            fields.text("direction", direction.rawValue)
            fields.signed("errno", Int64(errno?.rawValue ?? 0))
            if let value { fields.address("value", UInt64(value)) }
        case .punched(let range):
            fields.name("punch")
            fields.address("gpa", range.start)
            fields.address("size", range.size)
        case .heldByName(let name, let range):
            fields.name("hold")
            fields.address("gpa", range.start)
            fields.address("size", range.size)
            fields.flag("yields", false)
            fields.text("name", name)
        case .releasedByName(let name, let range):
            fields.name("release")
            fields.address("gpa", range.start)
            fields.address("size", range.size)
            fields.text("name", name)
        case .hostAccess(let gpa, let direction, let error):
            fields.name("host-access")
            fields.address("gpa", gpa)
            fields.text("direction", direction.rawValue)
            fields.signed("errno", Int64(error?.errno.rawValue ?? 0))
        }
    }
}

extension TraceFields {
    fileprivate mutating func request(_ request: ConversionRequest) {
        address("gpa", request.range.start)
        address("size", request.range.size)
        text("target", request.target.rawValue)
        text("contents", request.contents.rawValue)
    }
}

extension Errno {
    /// The host has no more of something: descriptors, or memory. It says nothing about what a kernel can do.
    public var isHostLimit: Bool {
        switch self {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory: true
        default: false
        }
    }

    /// The symbol, for those that this interface knows; else the number.
    public var name: String {
        switch self {
        case .notPermitted: "EPERM"
        case .noSuchFileOrDirectory: "ENOENT"
        case .interrupted: "EINTR"
        case .ioError: "EIO"
        case .argListTooLong: "E2BIG"
        case .badFileDescriptor: "EBADF"
        case .resourceTemporarilyUnavailable: "EAGAIN"
        case .noMemory: "ENOMEM"
        case .tooManyOpenFiles: "EMFILE"
        case .tooManyOpenFilesInSystem: "ENFILE"
        case .canceled: "ECANCELED"
        case .permissionDenied: "EACCES"
        case .badAddress: "EFAULT"
        case .resourceBusy: "EBUSY"
        case .brokenPipe: "EPIPE"
        case .fileExists: "EEXIST"
        case Errno(rawValue: 19): "ENODEV"
        case .invalidArgument: "EINVAL"
        case .inappropriateIOCTLForDevice: "ENOTTY"
        case .noSpace: "ENOSPC"
        case .noFunction: "ENOSYS"
        case .notSupported: "EOPNOTSUPP"
        case .hardwarePoisoned: "EHWPOISON"
        default: "errno \(rawValue)"
        }
    }
}
