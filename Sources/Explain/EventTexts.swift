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
            .event, name.spelling.description, "\(name.spelling), a line of the trace",
            [
                (.means, EventSchema.of(name).means),
                (.advice, "minivmm run GUEST --trace - --explain says it of each line, with its numbers."),
            ])
    }

    /// Why the event happened and what follows from it, in a sentence or two with its numbers.
    public static func why(_ event: EventFields) -> String {
        switch event.name {
        case .boot: boot(event)
        case .console: "\(Words.count(event.number(.exits) ?? 0, "letter")) for the console, an exit each."
        case .stop: stop(event)
        case .out, .in: port(event)
        case .memoryFault: memoryFault(event)
        case .hypercall: hypercall(event)
        case .convert: convert(event)
        case .setMemoryAttributes2: call(event)
        case .askHolders: askHolders(event)
        case .converted: converted(event)
        case .notConverted: notConverted(event)
        case .hold: hold(event)
        case .hostAccess: hostAccess(event)
        case .mmio:
            "No memslot has this address and no device either: the guest cannot go on. Inside RAM it would be hazard A14."
        case .imageLeftShared, .exitStatus, .resume, .stepOver, .halt, .kick, .wait, .release, .releaseHolds,
            .file, .step, .access, .punch, .leftOut, .pagesThen:
            EventSchema.of(event.name).means
        }
    }

    // MARK: one by one

    private static func boot(_ event: EventFields) -> String {
        "The image was written through the mapping while its pages were shared: no copy of it stays outside."
            + (event.number(.sharedBit).map { " Two aliases: address bit \($0) says shared." } ?? "")
    }

    private static func stop(_ event: EventFields) -> String {
        guard let status = event.signed(.status), let text = Statuses.explanation("\(status)") else {
            return "The machine is at its end; its exit status follows from this."
        }
        return "The machine is at its end; " + text.title + "."
    }

    private static func port(_ event: EventFields) -> String {
        let isOut = event.name == .out
        switch event.number(.port) {
        case 0xf4? where isOut: return "This port takes the guest's exit status: it ends here."
        case 0xe8? where isOut: return "This port takes calls; the numbers are in the registers."
        case let port? where port == 0xe9 || (0x3f8...0x3ff).contains(port):
            return isOut ? "A port of the console." : "The console's status: it can always take a letter."
        default:
            return isOut
                ? "No device has this port; the write is lost." : "No device has this port: it reads as ones."
        }
    }

    private static func memoryFault(_ event: EventFields) -> String {
        let wants = event.text(.wants) ?? "other"
        let state = wants == "private" ? "shared" : "private"
        let page = event.number(.gpa).map { "page \($0 / pageSize)" } ?? "the page"
        switch event.text(.verdict).flatMap(FaultVerdict.init(rawValue:)) {
        case .convert?:
            return
                "The access wants \(page) \(wants), and it is \(state): KVM_RUN came back with EFAULT and exit 39. The monitor converts "
                + "it, and the same instruction completes."
        case .race?:
            return
                "\(page.prefix(1).uppercased() + page.dropFirst()) is already as the access wants it, or no access wants anything here: it met a conversion on its way. Entering again "
                + "is the cure; converting would undo somebody's work."
        case .reenter?:
            return "The monitor was told not to convert, so the same access will fault again (hazard A34)."
        case .fatal?, nil:
            return event.signed(.errno) == 133
                ? "The host's memory behind the page has failed (EHWPOISON): converting does not help."
                : "No conversion leads on from here, and the machine ends: the next line says why."
        }
    }

    private static func request(_ call: GuestCallNumber, _ event: EventFields) -> String {
        switch call {
        case .mapGPARange:
            let target = (event.number(.a2) ?? 0) & 0x10 != 0 ? "private" : "shared"
            return "for \(Words.count(event.number(.a1) ?? 0, "page")) to be \(target) (KVM_HC_MAP_GPA_RANGE)"
        case .hold: return "that the host take references on pages, as a device would"
        case .release: return "that the host release the pages that it holds"
        case .peek: return "that the host read eight bytes of its memory"
        case .poke: return "that the host write eight bytes of its memory"
        case .state: return "what the state of a page is"
        case .yield: return "that another vCPU run"
        }
    }

    private static func hypercall(_ event: EventFields) -> String {
        let call = event.number(.number).flatMap(GuestCallNumber.init(rawValue:))
        let result = event.signed(.result) ?? 0
        let text =
            "The guest asked " + (call.map { request($0, event) } ?? "for a call with an unknown number")
        if result < 0 {
            let errno = Int32(exactly: result).map { Errno(rawValue: 0 &- $0) } ?? .invalidArgument
            return text + "; the answer was \(errno.name), which the guest finds in RAX."
        }
        if call == .state { return text + ": \(result == 1 ? "private" : "shared")." }
        return text + "; it was done."
    }

    private static func convert(_ event: EventFields) -> String {
        let pages = Words.count((event.number(.size) ?? 0) / pageSize, "page")
        let contents: String
        switch event.text(.contents).flatMap(ContentPolicy.init(rawValue:)) {
        case .preserve?: contents = "The bytes must be the same afterwards, or nothing changes."
        case .zero?: contents = "The bytes must be zero afterwards, or nothing changes."
        case .unspecified?, nil: contents = "Nobody cares what becomes of the bytes."
        }
        return "\(pages) shall become \(event.text(.target) ?? "other"). " + contents
    }

    private static func call(_ event: EventFields) -> String {
        let target = event.text(.target) ?? "private"
        guard let number = event.signed(.errno), number != 0 else {
            return target == "private"
                ? "Done: no page of the range was in use, or all of it was private already. The host cannot touch it now."
                : "Done: to shared nobody's reference is in the way. The host may touch it now."
        }
        let errno = Int32(exactly: number).map { Errno(rawValue: $0) } ?? .invalidArgument
        var arguments = ConversionArguments()
        arguments.offset = event.number(.offset)
        arguments.size = event.number(.size)
        arguments.attributes = target == "private" ? 8 : 0
        if errno == .resourceTemporarilyUnavailable {
            let page =
                event.number(.errorOffset).map { " It is the one at \(Words.hex($0)) of the file." } ?? ""
            return ConversionRow.inUse.means + page
        }
        let row = ValidationTable().possibilities(arguments).first { $0.errno == errno }?.row
        return row?.means ?? CallErrors.general(errno).means
    }

    private static func askHolders(_ event: EventFields) -> String {
        let (released, refused) = (event.number(.released) ?? 0, event.number(.refused) ?? 0)
        return refused == 0
            ? "\(Words.count(released, "known holder")) let go: the next call may succeed."
            : "\(Words.count(refused, "known holder")) will not let go: only waiting, or giving up, is left."
    }

    private static func converted(_ event: EventFields) -> String {
        let how: String
        switch event.text(.means).flatMap(ContentMeans.init(rawValue:)) {
        case .promisedByABI?: how = "The contents are the same: this VM type promises it."
        case .keptByFlag?: how = "The contents are the same: each call asked for it."
        case .zeroedByFlag?: how = "The contents are zero: each call asked for it."
        case .zeroedByMonitor?:
            how = "The contents are zero: the monitor made them so, once the pages were theirs."
        case .notRequested?, nil: how = "Nobody asked what becomes of the contents."
        }
        let busy = event.number(.busy) ?? 0
        return "The whole request is done. " + how
            + (busy == 0 ? "" : " \(Words.count(busy, "call")) met a page in use before.")
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
            return "A page stayed in use until the retry policy gave up. \(kept)"
        case .notSupportedOnSocket?:
            return
                "This kernel cannot keep the contents as was asked, and refusing is better than losing them. \(kept)"
        default: return "The request cannot be done: \(errno?.name ?? "no errno"). \(kept)"
        }
    }

    private static func hold(_ event: EventFields) -> String {
        "The host took references on these pages, as a device would. The pages cannot become private until they are dropped. The holder "
            + (event.flag(.yields) == true ? "drops them on request." : "does not drop them on request.")
    }

    private static func hostAccess(_ event: EventFields) -> String {
        let verb = event.text(.direction) == "write" ? "wrote" : "read"
        guard let errno = event.signed(.errno), errno != 0 else {
            return "The host \(verb) the page: it is shared."
        }
        return errno == 14
            ? "The page is private (or outside RAM), out of the host's reach: a system call gets EFAULT, a plain access would be SIGBUS."
            : "The host could not touch the page."
    }
}
