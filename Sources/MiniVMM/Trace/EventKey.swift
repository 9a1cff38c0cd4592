// SPDX-License-Identifier: MIT
/// The keys of events. A key has the same type and unit in every event.
public enum EventKey: UInt8, CaseIterable, Sendable {
    /// `boot`: guest-physical address of the image.
    case image
    /// `boot`: size of the image, whole pages.
    case imageBytes
    /// `boot`: address of the first instruction.
    case entry
    /// `boot`: the number of vCPUs.
    case vcpus
    /// `boot`: RAM, from address 0.
    case ramBytes
    /// `boot`: the address bit of the shared alias; absent with one alias.
    case sharedBit
    /// `image-left-shared`: one past the last byte of RAM that stays shared.
    case end
    /// `exit-status`: the value that the guest wrote. `stop`: the exit status of the command.
    case status
    /// `stop`, `not-converted`: the reason in words.
    case why
    /// `out`, `in`: the port.
    case port
    /// `out`, `in`, `mmio`, `memory-fault`: the size of the access, or of the page.
    case bytes
    /// `out`, `in`, `access`: the value written or read.
    case value
    /// Guest-physical address without the shared bit: of an access, a page, or the start of a range.
    case gpa
    /// `mmio`: whether the access was a write.
    case write
    /// `memory-fault`: `kvm_run.memory_fault.flags`.
    case flags
    /// `memory-fault`: the ``PageState`` that the access needs.
    case wants
    /// 0 for success; in `not-converted` the errno that the guest gets.
    case errno
    /// `memory-fault`: a ``FaultVerdict``.
    case verdict
    /// `hypercall`: RAX.
    case number
    /// `hypercall`: RBX.
    case a0
    /// `hypercall`: RCX.
    case a1
    /// `hypercall`: RDX.
    case a2
    /// `hypercall`: `instruction` or `port`.
    case by
    /// `hypercall`: RAX afterwards.
    case result
    /// `step-over`: RIP of the call. `exception`: RIP of the instruction.
    case rip
    /// `exception`: its vector.
    case vector
    /// `exception`: the error code; absent for a vector without one.
    case errorCode
    /// `exception`: CR2 of a page fault; absent for others.
    case address
    /// Bytes of a range that begins at `gpa` or `offset`.
    case size
    /// The ``PageState`` after a conversion.
    case target
    /// The `ContentPolicy` of a conversion.
    case contents
    /// `convert`: ``FirstBytes`` of the range; absent if it is private.
    case before
    /// `converted`: ``FirstBytes`` of the range; absent if it is private.
    case after
    /// `set-memory-attributes2`: byte offset in the file.
    case offset
    /// `set-memory-attributes2`: the symbol of the errno; absent on success.
    case error
    /// `set-memory-attributes2`: `error_offset`; absent on success.
    case errorOffset
    /// Duration of a call, or of the wait that begins.
    case ns
    /// `ask-holders`: how many holders released the page.
    case released
    /// `ask-holders`: how many holders refused.
    case refused
    /// `wait`: attempts so far, from 1.
    case attempt
    /// `converted`: a `ContentMeans`.
    case means
    /// Calls of `KVM_SET_MEMORY_ATTRIBUTES2` for the whole request.
    case calls
    /// `converted`: how many of the calls returned `EAGAIN`.
    case busy
    /// `converted`: time between the calls.
    case waitedNs
    /// `not-converted`: how much changed state nevertheless.
    case convertedBytes
    /// `hold`: whether a conversion can have it released.
    case yields
    /// `release-holds`: the number of holds.
    case count
    /// `file`, `hold`, `release`: the name in a litmus test; absent for a guest's hold.
    case name
    /// `read` or `write`, from the actor's side.
    case direction
    /// The ``PageState`` of all pages of the range.
    case state
    /// `step`: the line of the litmus test, from 1; 0 for a test without text.
    case line
    /// `step`: the step as written in the test. `console`: the printed line.
    case text
    /// `step`: the outcome in words.
    case outcome
    /// `step`: whether the outcome is as expected.
    case ok
    /// `step`: the expected outcome; absent if the step only names its result.
    case expected
    /// `console`: how many exits the line replaces.
    case exits
    /// `left-out`: the number of events.
    case events

    /// The type of a value. Text for people shows an address in hex.
    public enum ValueType: String, Sendable {
        /// In hexadecimal: an address, an offset, a register or a port.
        case address
        /// In decimal: a count, bytes or nanoseconds.
        case number
        /// In decimal, may be negative.
        case signed
        /// UTF-8.
        case text
        /// True or false.
        case flag
    }

    /// The unit of a number.
    public enum Unit: String, Sendable {
        /// A size in bytes.
        case bytes
        /// Nanoseconds: a duration, or a time on ``Backend/now()``.
        case ns
        /// The number of a bit, from 0.
        case bit
        /// A positive errno, or 0 for a success.
        case errno
        /// An errno if it is negative.
        case negativeErrno = "-errno"
        /// A ``GuestCallNumber``.
        case call
    }

    /// The key's spelling in a trace.
    public var spelling: StaticString { description.spelling }
    /// The JSON type of its values, the same in every event.
    public var type: ValueType { description.type }
    /// Nil for a value without a unit, such as a count, a text or a flag.
    public var unit: Unit? { description.unit }

    private var description: (spelling: StaticString, type: ValueType, unit: Unit?) {
        switch self {
        case .image: ("image", .address, nil)
        case .imageBytes: ("image_bytes", .number, .bytes)
        case .entry: ("entry", .address, nil)
        case .vcpus: ("vcpus", .number, nil)
        case .ramBytes: ("ram_bytes", .number, .bytes)
        case .sharedBit: ("shared_bit", .number, .bit)
        case .end: ("end", .address, nil)
        case .status: ("status", .signed, nil)
        case .why: ("why", .text, nil)
        case .port: ("port", .address, nil)
        case .bytes: ("bytes", .number, .bytes)
        case .value: ("value", .address, nil)
        case .gpa: ("gpa", .address, nil)
        case .write: ("write", .flag, nil)
        case .flags: ("flags", .address, nil)
        case .wants: ("wants", .text, nil)
        case .errno: ("errno", .signed, .errno)
        case .verdict: ("verdict", .text, nil)
        case .number: ("number", .address, .call)
        case .a0: ("a0", .address, nil)
        case .a1: ("a1", .address, nil)
        case .a2: ("a2", .address, nil)
        case .by: ("by", .text, nil)
        case .result: ("result", .signed, .negativeErrno)
        case .rip: ("rip", .address, nil)
        case .vector: ("vector", .number, nil)
        case .errorCode: ("error_code", .address, nil)
        case .address: ("address", .address, nil)
        case .size: ("size", .address, .bytes)
        case .target: ("target", .text, nil)
        case .contents: ("contents", .text, nil)
        case .before: ("before", .text, nil)
        case .after: ("after", .text, nil)
        case .offset: ("offset", .address, nil)
        case .error: ("error", .text, nil)
        case .errorOffset: ("error_offset", .address, nil)
        case .ns: ("ns", .number, .ns)
        case .released: ("released", .number, nil)
        case .refused: ("refused", .number, nil)
        case .attempt: ("attempt", .number, nil)
        case .means: ("means", .text, nil)
        case .calls: ("calls", .number, nil)
        case .busy: ("busy", .number, nil)
        case .waitedNs: ("waited_ns", .number, .ns)
        case .convertedBytes: ("converted_bytes", .number, .bytes)
        case .yields: ("yields", .flag, nil)
        case .count: ("count", .number, nil)
        case .name: ("name", .text, nil)
        case .direction: ("direction", .text, nil)
        case .state: ("state", .text, nil)
        case .line: ("line", .number, nil)
        case .text: ("text", .text, nil)
        case .outcome: ("outcome", .text, nil)
        case .ok: ("ok", .flag, nil)
        case .expected: ("expected", .text, nil)
        case .exits: ("exits", .number, nil)
        case .events: ("events", .number, nil)
        }
    }

    private static let bySpelling = Dictionary(
        uniqueKeysWithValues: allCases.map { ($0.spelling.description, $0) })

    /// - Returns: nil for an unknown key.
    public init?(_ spelling: String) {
        guard let key = Self.bySpelling[spelling] else { return nil }
        self = key
    }
}
