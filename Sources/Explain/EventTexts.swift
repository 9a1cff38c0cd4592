// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// Explains the events of a trace.
public enum EventTexts {
    /// The names of all events, as a trace spells them.
    public static var names: [String] { EventName.allCases.map(\.spelling.description) }

    static func explanation(_ word: String) -> Explanation? {
        let folded = NearWords.folded(word)
        guard
            let name = EventName.allCases.first(where: {
                NearWords.folded($0.spelling.description) == folded
            })
        else { return nil }
        return Explanation(
            .event, name.spelling.description, "\(name.spelling), an event of the trace",
            [
                (.means, EventSchema.of(name).means),
                (.advice, "minivmm run GUEST --trace - --explain explains each event with its numbers."),
                (.see, "docs/trace.md has every field of this event"),
            ])
    }

    /// Why the event happened and what follows from it, in one or two sentences with its numbers.
    public static func why(_ event: EventFields) -> String {
        switch event.name {
        case .boot: boot(event)
        case .console:
            "The guest printed \(Words.count(event.number(.exits) ?? 0, "character")), with one exit for each."
        case .stop: stop(event)
        case .out, .in: port(event)
        case .memoryFault: memoryFault(event)
        case .hypercall: hypercall(event)
        case .exception: exception(event)
        case .convert: convert(event)
        case .setMemoryAttributes2: call(event)
        case .askHolders: askHolders(event)
        case .converted: converted(event)
        case .notConverted: notConverted(event)
        case .hold: hold(event)
        case .hostAccess: hostAccess(event)
        case .mmio:
            "No memslot and no device has this address, so the guest cannot continue. If the address is inside RAM, this is hazard A14."
        case .imageLeftShared, .launch, .exitStatus, .resume, .stepOver, .halt, .kick, .wait,
            .release,
            .releaseHolds,
            .file, .step, .access, .punch, .guestPages, .leftOut, .pagesThen:
            EventSchema.of(event.name).means
        }
    }

    // MARK: single events

    private static func boot(_ event: EventFields) -> String {
        "The monitor wrote the image through its mapping while the pages were shared, so no second copy of it exists."
            + (event.number(.sharedBit).map {
                " RAM has two aliases: address bit \($0) selects the shared one."
            } ?? "")
    }

    private static func stop(_ event: EventFields) -> String {
        guard let status = event.signed(.status), let text = Statuses.explanation("\(status)") else {
            return "The run has ended."
        }
        return "The run has ended with \(text.title)."
    }

    private static func exception(_ event: EventFields) -> String {
        let exception = CPUException(
            UInt8(truncatingIfNeeded: event.number(.vector) ?? 0),
            errorCode: event.number(.errorCode).map { UInt32(truncatingIfNeeded: $0) },
            address: event.number(.address))
        return
            "\(exception.mnemonic). \(exception.cause) The guest has no handler for it, so the machine stops."
    }

    private static func port(_ event: EventFields) -> String {
        let isOut = event.name == .out
        switch event.number(.port) {
        case 0xf4? where isOut: return "This port takes the guest's exit status and ends the run."
        case 0xe8? where isOut:
            return "This port makes a call to the monitor; its arguments are in the registers."
        case let port? where port == 0xe9 || (0x3f8...0x3ff).contains(port):
            return isOut ? "A port of the console." : "The console's status: always ready for a character."
        default:
            return isOut
                ? "No device has this port; the write is ignored."
                : "No device has this port; it reads as all ones."
        }
    }

    private static func memoryFault(_ event: EventFields) -> String {
        let wants = event.text(.wants) == "private" ? PageState.private : .shared
        let page = event.number(.gpa).map { "page \($0 / pageSize)" } ?? "the page"
        switch event.text(.verdict).flatMap(FaultVerdict.init(rawValue:)) {
        case .convert?:
            return
                "The access needs \(page) \(wants.rawValue), and it is \(wants.other.rawValue), so KVM_RUN returned EFAULT with exit 39. "
                + "The monitor converts the page, and the same instruction then completes."
        case .race?:
            return
                "\(page.prefix(1).uppercased() + page.dropFirst()) already has the state that the access needs, or accesses on this VM "
                + "have no preferred kind: the access ran into a conversion in progress. The monitor runs the vCPU again; a conversion "
                + "would undo another thread's work."
        case .reenter?:
            return
                "The monitor is configured not to convert on a fault, so the same access will fault again (hazard A34)."
        case .fatal?, nil:
            return event.signed(.errno) == 133
                ? "The host memory behind the page has failed (EHWPOISON). A conversion does not help."
                : "A conversion cannot resolve this fault, and the run ends. The next line has the reason."
        }
    }

    private static func request(_ call: GuestCallNumber, _ event: EventFields) -> String {
        switch call {
        case .mapGPARange:
            let target = (event.number(.a2) ?? 0) & 0x10 != 0 ? "private" : "shared"
            return
                "to convert \(Words.count(event.number(.a1) ?? 0, "page")) to \(target) (KVM_HC_MAP_GPA_RANGE)"
        case .hold: return "the host to take references on pages, as a device would"
        case .release: return "the host to release the pages that it holds"
        case .peek: return "the host to read eight bytes of guest memory"
        case .poke: return "the host to write eight bytes of guest memory"
        case .state: return "for the state of a page"
        case .yield: return "to let another vCPU run"
        case .hostActs: return "a hostile host to act on two of its pages"
        }
    }

    private static func hypercall(_ event: EventFields) -> String {
        let call = event.number(.number).flatMap(GuestCallNumber.init(rawValue:))
        let result = event.signed(.result) ?? 0
        let text =
            call.map { "The guest asked \(request($0, event))" }
            ?? "The guest made a call with an unknown number"
        if result < 0 {
            let errno = Int32(exactly: result).map { Errno(rawValue: 0 &- $0) } ?? .invalidArgument
            return text + "; the call failed, and RAX is -\(errno.name)."
        }
        if call == .state { return text + ": it is \(result == 1 ? "private" : "shared")." }
        if call == .mapGPARange, result > 0 {
            return text + "; the monitor answered \(result), which is neither 0 nor a negative errno."
        }
        return text + "; the call succeeded."
    }

    private static func convert(_ event: EventFields) -> String {
        let pages = Words.count((event.number(.size) ?? 0) / pageSize, "page")
        let contents: String
        switch event.text(.contents).flatMap(ContentPolicy.init(rawValue:)) {
        case .preserve?: contents = "The bytes must be the same afterwards; otherwise the request is refused."
        case .zero?: contents = "The bytes must be zero afterwards; otherwise the request is refused."
        case .unspecified?, nil: contents = "The bytes may be anything afterwards."
        }
        return "Request to convert \(pages) to \(event.text(.target) == "shared" ? "shared" : "private"). "
            + contents
    }

    private static func call(_ event: EventFields) -> String {
        let target = event.text(.target) == "shared" ? PageState.shared : .private
        guard let number = event.signed(.errno), number != 0 else {
            return target == .private
                ? "Success: no page of the range was in use, or all of it was private already. The host cannot access it now."
                : "Success: a conversion to shared checks no references. The host can access the range now."
        }
        let errno = Int32(exactly: number).map { Errno(rawValue: $0) } ?? .invalidArgument
        var arguments = ConversionArguments()
        arguments.offset = event.number(.offset)
        arguments.size = event.number(.size)
        arguments.attributes = target == .private ? 8 : 0
        if errno == .resourceTemporarilyUnavailable {
            let page =
                event.number(.errorOffset).map { " The page is at offset \(Words.hex($0)) of the file." }
                ?? ""
            return ConversionRow.inUse.means + page
        }
        let row = ValidationTable().possibilities(arguments).first { $0.errno == errno }?.row
        return row?.means ?? CallErrors.general(errno).means
    }

    private static func askHolders(_ event: EventFields) -> String {
        let (released, refused) = (event.number(.released) ?? 0, event.number(.refused) ?? 0)
        return refused == 0
            ? "\(Words.count(released, "known holder")) released the page; the next call may succeed."
            : "\(Words.count(refused, "known holder")) refused to release the page. The monitor can only wait, or give up."
    }

    private static func converted(_ event: EventFields) -> String {
        let how: String
        switch event.text(.means).flatMap(ContentMeans.init(rawValue:)) {
        case .promisedByABI?: how = "The contents are preserved: this VM type guarantees it."
        case .keptByFlag?: how = "The contents are preserved: each call had the flag for it."
        case .zeroedByFlag?: how = "The contents are zeroed: each call had the flag for it."
        case .zeroedByMonitor?: how = "The contents are zeroed: the monitor did so after the conversion."
        case .notRequested?, nil: how = "The request left the contents unspecified."
        }
        let busy = event.number(.busy) ?? 0
        return "The whole range is converted. " + how
            + (busy == 0 ? "" : " Before that, \(Words.count(busy, "call")) failed with EAGAIN.")
    }

    private static func notConverted(_ event: EventFields) -> String {
        let errno = event.signed(.errno).flatMap { Int32(exactly: $0) }.map { Errno(rawValue: $0) }
        let changed = event.number(.convertedBytes) ?? 0
        let kept =
            changed == 0
            ? "No page has changed."
            : "\(Words.count(changed / pageSize, "page")) had been converted before that."
        switch errno {
        case .resourceTemporarilyUnavailable?:
            return "A page stayed in use until the monitor gave up. \(kept)"
        case .notSupportedOnSocket?:
            return
                "This backend cannot honour the content policy, so the monitor refused the request. \(kept)"
        default: return "The request failed: \(errno?.name ?? "no errno"). \(kept)"
        }
    }

    private static func hold(_ event: EventFields) -> String {
        "The host took references on these pages, as a device would. They cannot become private until it releases them. The holder "
            + (event.flag(.yields) == true
                ? "releases them on request." : "does not release them on request.")
    }

    private static func hostAccess(_ event: EventFields) -> String {
        let verb = event.text(.direction) == "write" ? "wrote" : "read"
        guard let errno = event.signed(.errno), errno != 0 else {
            return "The host \(verb) the page, which is shared."
        }
        return errno == 14
            ? "The page is private, or outside RAM: a system call on it fails with EFAULT, and a plain access would raise SIGBUS."
            : "The host could not access the page."
    }
}
