// SPDX-License-Identifier: MIT

// Where a picture opens, and the line that states what it draws.
extension Timeline {
    /// The event at which the page opens.
    ///
    /// It is the first failed step, or else the end of a run that failed, or else the first memory fault or
    /// conversion that changes a page or fails. The monitor's conversion at boot does not count.
    func opening(_ trace: RecordedTrace) -> Int {
        if let step = kinds.firstIndex(of: .failedStep) { return step }
        if trace.endedWell == false, let end = kinds.lastIndex(of: .failedEnd) { return end }
        let hasBoot = kinds.contains(.boot)
        let changes = firstChanges(trace)
        var fallback: Int?
        // By actor: the conversion in progress.
        var begun: [UInt8: Int] = [:]
        for event in 0..<trace.count where !hasBoot || trace.isVCPU(event) {
            switch kinds[event] {
            case .fault, .race, .busy, .failedCall, .notConverted, .hold, .refusedAccess, .punch:
                return begun[trace.actorOf[event]] ?? event
            case .convert:
                begun[trace.actorOf[event]] = event
                fallback = fallback ?? event
            case .ioctl:
                if changes.contains(event) { return begun[trace.actorOf[event]] ?? event }
                fallback = fallback ?? event
            case .converted: begun[trace.actorOf[event]] = nil
            case .hypercall, .access: fallback = fallback ?? event
            default: break
            }
        }
        return fallback ?? 0
    }

    /// The events that changed a page from shared to private or back.
    private func firstChanges(_ trace: RecordedTrace) -> Set<Int> {
        var found: Set<Int> = []
        for segment in segments where segment.state == .private || segment.state == .shared {
            found.insert(segment.events.lowerBound)
        }
        return found
    }

    /// The pages and events that a picture of the whole trace draws, in a sentence.
    func drawnText(_ trace: RecordedTrace) -> String {
        func number(_ value: UInt64) -> String {
            var digits = Array(String(value))
            for place in stride(from: digits.count - 3, to: 0, by: -3) { digits.insert(",", at: place) }
            return String(digits)
        }
        func counted(_ value: UInt64, _ noun: String) -> String {
            "\(number(value)) \(noun)\(value == 1 ? "" : "s")"
        }
        let left = trace.leftOut
        let count = UInt64(trace.count)
        let events =
            left == 0
            ? "all \(counted(count, "event"))" : "\(number(count)) of \(counted(count + left, "event"))"
        let pages = pageCounts
        guard pages.all > 0 else { return "Drawn: \(events), which concern no page." }
        guard pages.active < pages.all else {
            return "Drawn: \(pages.all == 1 ? "" : "all ")\(counted(pages.all, "page")), \(events)."
        }
        return "Drawn: \(number(pages.active)) of \(counted(pages.all, "page")) in "
            + "\(counted(UInt64(pages.blocks), "block")) at full height, the other pages compressed; \(events)."
    }
}

extension RecordedTrace {
    /// The number of events that were left out of a long trace.
    var leftOut: UInt64 {
        guard shapes.contains(where: { $0.event == .leftOut }) else { return 0 }
        for event in 0..<count where shape(event).event == .leftOut { return number(event, .events) ?? 0 }
        return 0
    }
}
