// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization
import SystemPackage

/// Prints a trace as sentences, one per event, with a strip of the pages after each change.
///
/// Events come from several threads. The lock keeps each sentence in one piece.
final class Narrator: TraceSink {
    private let terminal: Terminal
    private let strip: PageStrip
    private let told: Mutex<Told>

    private struct Told {
        var map = AttributeMap(size: 0, initial: .shared)
        var held: [PageRange] = []
        /// The pages that are shown: the start of the guest's free memory.
        var window: PageRange?
        var lines = 0
        var skipped = 0
        var lastPicture = ""
        var lastSentence = ""
        var booting = true
        var busyPage: UInt64?
        /// The map when the last conversion ended.
        var before: AttributeMap?
    }

    /// The most sentences that are printed; further ones are counted.
    private let limit: Int
    private let tellsBoot: Bool
    /// Records the same events for pictures.
    let gallery: Gallery?

    /// - Parameters:
    ///   - limit: the most sentences that are printed, not counting the guest's output.
    ///   - gallery: records the same events for pictures.
    ///   - tellsBoot: whether events before the guest's first instruction are printed.
    init(_ terminal: Terminal, limit: Int, tellsBoot: Bool = false, gallery: Gallery? = nil) {
        self.terminal = terminal
        self.limit = limit
        self.tellsBoot = tellsBoot
        self.gallery = gallery
        strip = PageStrip(terminal: terminal)
        told = Mutex(Told())
    }

    private static let labelWidth = 7
    private var cells: Int { max(8, min(64, terminal.width - Self.labelWidth - 16)) }

    private func line(_ who: String, _ text: String) {
        let label = who + String(repeating: " ", count: max(1, Self.labelWidth - who.count))
        terminal.hanging("  " + terminal.styled(label, .dim), text, indent: Self.labelWidth + 2)
    }

    /// A line of the guest's console.
    func console(_ text: String) {
        told.withLock { _ in
            let bar = terminal.styled(terminal.unicode ? "│ " : "| ", .dim)
            let room = max(20, terminal.width - Self.labelWidth - 4)
            var label = "guest"
            for part in text.count > room ? Terminal.folded(text, room) : [text] {
                line(label, bar + part)
                label = ""
            }
        }
    }

    /// Prints how many events were left out.
    func finish() {
        told.withLock { told in
            guard told.skipped > 0 else { return }
            let more = told.skipped == 1 ? "1 more event" : "\(told.skipped) more events like these"
            line("", "\(terminal.unicode ? "…" : "...") and \(more)")
        }
    }

    func begin(backend: BackendIdentity, time: UInt64) {}
    func flush() {}

    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        told.withLock { told in
            // Booting ends with the first event after RAM was made private.
            if told.before != nil { told.booting = false }
            guard let (sentence, pictures) = self.tell(event, &told), !told.booting || self.tellsBoot else {
                return
            }
            guard sentence != told.lastSentence else { return }
            told.lastSentence = sentence
            guard told.lines < limit else {
                told.skipped += 1
                return
            }
            told.lines += 1
            self.line(actor.description, sentence)
            if pictures { self.picture(&told) }
        }
    }

    /// All of RAM while the machine boots, then the pages that the guest works with.
    private func picture(_ told: inout Told) {
        guard let range = told.booting ? PageRange(start: 0, size: told.map.size) : told.window else {
            return
        }
        let picture = strip.draw(told.map, range, held: told.held, width: cells)
        guard picture != told.lastPicture else { return }
        told.lastPicture = picture
        var what = Self.pages(range)
        if terminal.width < 60 { what = what.replacing(" to ", with: "-") }
        line("", picture + terminal.styled("  \(what)", .dim))
    }

    private static func pages(_ range: PageRange) -> String {
        let first = range.start / pageSize
        return range.pageCount == 1 ? "page \(first)" : "pages \(first) to \(range.end / pageSize - 1)"
    }

    /// The sentence for an event, and whether pages have changed. Nil for events that are not printed.
    private func tell(_ event: TraceEvent, _ told: inout Told) -> (String, Bool)? {
        switch event {
        case .booted(let image, _, _, let ram, _):
            told.map = AttributeMap(size: ram, initial: .shared)
            let free = (image.end + (2 << 20) - 1) & ~((2 << 20) - 1)
            let start = free < ram ? free : image.end
            told.window = PageRange(start: start, size: min(32 * pageSize, ram > start ? ram - start : 0))
            return ("writes the image through its mmap of shared memory, \(Self.pages(image))", true)
        case .launched(let range):
            return ("measures \(Self.pages(range)) into the guest, with their contents", false)
        case .imageLeftShared(let end):
            return (
                "leaves RAM up to \(hex(end)) shared, because this backend does not preserve contents", false
            )
        case .attributesCall(let offset, let size, let target, let errno, let errorOffset, let gpa, _):
            guard let errno else {
                told.busyPage = nil
                if let range = PageRange(start: gpa ?? offset, size: size) { told.map.set(range, to: target) }
                return nil
            }
            // Repeated attempts with the same answer are printed once.
            guard told.busyPage != errorOffset else { return nil }
            told.busyPage = errorOffset
            return (
                "KVM_SET_MEMORY_ATTRIBUTES2: " + terminal.styled(errno.name, .bad)
                    + ", error_offset names page \(errorOffset / pageSize); nothing has changed", false
            )
        case .conversionFinished(let request, let result, _):
            let before = told.before
            told.before = told.map
            if before?.uniformValue(of: request.range) == request.target { return nil }
            var text =
                "made \(Self.pages(request.range)) \(request.target.rawValue), contents \(request.contents.participle)"
            if ![.promisedByABI, .notRequested].contains(result.means) {
                text += " (\(result.means.rawValue))"
            }
            if result.busyAnswers > 0 { text += ", after \(result.calls) calls" }
            return (text, true)
        case .conversionFailed(let error):
            let why =
                switch error.reason {
                case .refused(let refusal):
                    "contents cannot be \(error.request.contents.participle): \(refusal)"
                case .inUse(let pages):
                    pages.map(Self.pages).joined(separator: ", ")
                        + " \(pages.count == 1 && pages[0].pageCount == 1 ? "is" : "are") still in use"
                default: error.description
                }
            let verdict: String =
                switch error.reason {
                case .refused: terminal.styled("refused", .bad) + " to make"
                case .inUse: terminal.styled("gave up", .bad) + " making"
                default: "failed to make"
                }
            let calls: String
            if case .inUse = error.reason { calls = " after \(error.result.calls) calls" } else { calls = "" }
            return (
                "\(verdict) \(Self.pages(error.request.range)) \(error.request.target.rawValue)\(calls): \(why)",
                false
            )
        case .memoryFault(let fault, _, let verdict):
            let alias = fault.wants == .private ? "private" : "shared"
            let found = fault.wants.other.rawValue
            switch verdict {
            case .convert:
                return (
                    "accesses page \(fault.gpa / pageSize) through the \(alias) alias, but the page is \(found): "
                        + terminal.styled("KVM_EXIT_MEMORY_FAULT", .bold), false
                )
            case .race:
                return ("faults on page \(fault.gpa / pageSize) during a conversion; enters again", false)
            case .reenter:
                return (
                    "faults on page \(fault.gpa / pageSize); the monitor enters again without converting",
                    false
                )
            case .fatal: return ("faults at \(hex(fault.gpa)); the machine ends", false)
            }
        // The guest itself reports its work on these pages.
        case .guestPages: return nil
        // These come from litmus tests, not from guests.
        case .fileAppeared, .step, .access, .punched, .heldByName, .releasedByName: return nil
        case .hostAccess(let gpa, let direction, let error):
            let verb = direction == .read ? "reads" : "writes"
            guard let error else { return ("the host \(verb) page \(gpa / pageSize): succeeds", false) }
            return (
                "the host \(verb) page \(gpa / pageSize): " + terminal.styled(error.errno.name, .bad)
                    + (error.state == .private ? ": the page is private" : ""), false
            )
        case .held(let range, let yields):
            told.held.append(range)
            return (
                "the host puts \(Self.pages(range)) into a pipe (vmsplice) and "
                    + (yields
                        ? "releases \(range.pageCount == 1 ? "it" : "them") when asked"
                        : "keeps \(range.pageCount == 1 ? "it" : "them")"),
                true
            )
        case .holdersAsked(let gpa, let released, _):
            guard released > 0 else { return nil }
            told.held.removeAll { $0.contains(gpa) }
            return ("asks the holder of page \(gpa / pageSize) to release it: released", true)
        case .releasedHolds:
            told.held = []
            return ("the host releases the pages that it held", true)
        case .waiting(_, let nanoseconds, let attempt):
            guard attempt == 1 else { return nil }
            let unit = terminal.unicode ? "µs" : "us"
            return ("waits \(nanoseconds / 1000) \(unit) and retries, waiting longer each time", false)
        case .stopped(let why, _): return (why, false)
        case .portIn, .portOut, .mmio, .resumed, .released, .halted, .kicked, .conversionStarted,
            .guestExited, .hypercall,
            .steppedOver, .exception:
            return nil
        }
    }
}
