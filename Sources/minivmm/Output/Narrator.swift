// SPDX-License-Identifier: MIT
import MiniVMM
import Synchronization
import SystemPackage

/// Tells a trace as a story: a sentence an event and a picture of the pages where they change.
///
/// Events come from several threads; its lock keeps each sentence whole.
final class Narrator: TraceSink {
    private let terminal: Terminal
    private let strip: PageStrip
    private let told: Mutex<Told>

    private struct Told {
        var map = AttributeMap(size: 0, initial: .shared)
        var held: [PageRange] = []
        /// The pages of the close-up: the start of the guest's free memory.
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

    /// Sentences at most; the rest is counted.
    private let limit: Int
    private let tellsBoot: Bool
    /// Where events go besides.
    let gallery: Gallery?

    /// - Parameters:
    ///   - limit: sentences at most; what the guest says comes on top.
    ///   - gallery: records the same events for pictures.
    ///   - tellsBoot: whether what happens before the guest's first instruction is part of the story.
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
        told.withLock { _ in line("guest", terminal.styled(terminal.unicode ? "│ " : "| ", .dim) + text) }
    }

    /// What an act has not told, and its last picture.
    func finish() {
        told.withLock { told in
            guard told.skipped > 0 else { return }
            line("", "\(terminal.unicode ? "…" : "...") and \(told.skipped) more events like these")
        }
    }

    func begin(backend: BackendIdentity, time: UInt64) {}
    func flush() {}

    func write(_ event: TraceEvent, by actor: Actor, time: UInt64) {
        told.withLock { told in
            // Booting ends with the first thing that happens after RAM was made private.
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

    /// The sentence for an event, and whether pages have changed; nil for what the story leaves out.
    private func tell(_ event: TraceEvent, _ told: inout Told) -> (String, Bool)? {
        switch event {
        case .booted(let image, _, _, let ram, _):
            told.map = AttributeMap(size: ram, initial: .shared)
            let free = (image.end + (2 << 20) - 1) & ~((2 << 20) - 1)
            let start = free < ram ? free : image.end
            told.window = PageRange(start: start, size: min(32 * pageSize, ram > start ? ram - start : 0))
            return ("writes the image through its mmap of shared memory, \(Self.pages(image))", true)
        case .imageLeftShared(let end):
            return ("leaves RAM up to \(hex(end)) shared: this kernel does not preserve contents", false)
        case .attributesCall(let offset, let size, let target, let errno, let errorOffset, let gpa, _):
            guard let errno else {
                told.busyPage = nil
                if let range = PageRange(start: gpa ?? offset, size: size) { told.map.set(range, to: target) }
                return nil
            }
            // The same answer to each attempt is told once.
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
                "\(Self.pages(request.range)) to \(request.target.rawValue), contents \(request.contents.rawValue)"
            if ![.promisedByABI, .nothingAsked].contains(result.means) {
                text += " (\(result.means.rawValue))"
            }
            if result.busyAnswers > 0 { text += ", after \(result.calls) calls" }
            return (text, true)
        case .conversionFailed(let error):
            let why =
                switch error.reason {
                case .refused(let refusal):
                    terminal.styled("refused", .bad) + ": contents cannot be preserved: \(refusal)"
                case .inUse(let pages):
                    terminal.styled("given up", .bad) + " after \(error.result.calls) calls: still in use: "
                        + pages.map(Self.pages).joined(separator: ", ")
                default: error.description
                }
            return ("\(Self.pages(error.request.range)) to \(error.request.target.rawValue) " + why, false)
        case .memoryFault(let fault, _, let verdict):
            let alias = fault.wants == .private ? "private" : "shared"
            let found = fault.wants.other.rawValue
            switch verdict {
            case .convert:
                return (
                    "touches page \(fault.gpa / pageSize) through the \(alias) alias; it is \(found): "
                        + terminal.styled("KVM_EXIT_MEMORY_FAULT", .bold), false
                )
            case .race:
                return ("faults on page \(fault.gpa / pageSize), in the midst of a conversion: again", false)
            case .reenter:
                return ("faults on page \(fault.gpa / pageSize); the monitor does nothing about it", false)
            case .fatal: return ("faults at \(hex(fault.gpa)), and that is its end", false)
            }
        // No guest does that.
        case .fileAppeared, .step, .access, .punched, .heldByName, .releasedByName: return nil
        case .hostAccess(let gpa, let direction, let error):
            let verb = direction == .read ? "reads" : "writes"
            guard let error else { return ("the host \(verb) page \(gpa / pageSize): it can", false) }
            return (
                "the host \(verb) page \(gpa / pageSize): " + terminal.styled(error.errno.name, .bad)
                    + (error.state == .private ? ", it is private" : ""), false
            )
        case .held(let range, let yields):
            told.held.append(range)
            return (
                "the host puts \(Self.pages(range)) into a pipe (vmsplice) and "
                    + (yields ? "lets go when asked" : "does not let go"), true
            )
        case .holdersAsked(let gpa, let released, _):
            guard released > 0 else { return nil }
            told.held.removeAll { $0.contains(gpa) }
            return ("asks who holds page \(gpa / pageSize) to let go: released", true)
        case .releasedHolds:
            told.held = []
            return ("the host lets go of what it held", true)
        case .waiting(_, let nanoseconds, let attempt):
            guard attempt == 1 else { return nil }
            let unit = terminal.unicode ? "µs" : "us"
            return ("waits \(nanoseconds / 1000) \(unit) and tries again, longer each time", false)
        case .stopped(let why, _): return (why, false)
        case .portIn, .portOut, .mmio, .resumed, .released, .halted, .kicked, .conversionStarted,
            .guestExited, .hypercall,
            .steppedOver:
            return nil
        }
    }
}
