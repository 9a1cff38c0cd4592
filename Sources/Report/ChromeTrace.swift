// SPDX-License-Identifier: MIT
public import MiniVMM

/// A trace in Chrome's trace-event format, which Perfetto and chrome://tracing open.
///
/// Each actor has a track. Conversions, ioctls and memory faults are nested spans. Arrows lead from a fault
/// through the conversion that it requested to the return to the guest. Counters show the numbers of private,
/// shared and held pages. Times are in microseconds of the host's monotonic clock, or of SoftKVM's simulated
/// clock.
public struct ChromeTrace {
    private let trace: RecordedTrace
    private let timeline: Timeline
    private let title: String

    /// - Parameter title: what was run; part of the process name.
    public init(_ trace: RecordedTrace, _ timeline: Timeline, title: String) {
        self.trace = trace
        self.timeline = timeline
        self.title = title
    }

    /// Writes one JSON object and flushes the buffer. An error of the descriptor is in
    /// ``OutputBuffer/failure``.
    public func write(to out: inout OutputBuffer) {
        out.append("{\"displayTimeUnit\":\"ns\",\"otherData\":{\"title\":")
        out.append(quoted: title)
        out.append(",\"backend\":")
        out.append(quoted: trace.identity)
        out.append(",\"simulated\":")
        out.append(trace.isSimulated ? "\"yes\"" : "\"no\"")
        out.append(",\"schema\":\"")
        out.append(EventSchema.version)
        out.append(trace.isSimulated ? "\",\"clock\":\"simulated\"" : "\",\"clock\":\"monotonic\"")
        if let ending = trace.ending {
            out.append(",\"ending\":")
            out.append(quoted: ending)
        }
        for (index, note) in trace.notes.enumerated() {
            out.append(",\"note\(index + 1)\":")
            out.append(quoted: note)
        }
        out.append("},\"traceEvents\":[")
        out.endLine()
        let simulated = trace.isSimulated ? "simulated time and backend: " : ""
        metadata("process_name", 0, "MiniVMM \(title), \(simulated)\(trace.identity)", &out)
        for (index, actor) in trace.actors.enumerated() { metadata("thread_name", index + 1, actor, &out) }
        var spans = [Int: Int]()
        var ends: Set<Int> = []
        for (index, conversion) in timeline.conversions.enumerated() {
            spans[conversion.start] = index
            if conversion.hasEnded { ends.insert(conversion.end) }
        }
        // The end of a conversion is part of its span, unless the beginning was left out.
        for event in 0..<trace.count where !ends.contains(event) || spans[event] != nil {
            write(event, spans[event], &out)
        }
        writeFaults(&out)
        writeFlows(&out)
        writeCounters(&out)
        // The last element, without a comma.
        out.append("{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_labels\",\"args\":{\"labels\":")
        out.append(quoted: simulated + trace.identity)
        out.append("}}]}")
        out.endLine()
        out.flush()
    }

    private func metadata(_ name: StaticString, _ thread: Int, _ value: String, _ out: inout OutputBuffer) {
        out.append("{\"ph\":\"M\",\"pid\":1,\"tid\":")
        out.append(decimal: UInt64(thread))
        out.append(",\"name\":\"")
        out.append(name)
        out.append("\",\"args\":{\"name\":")
        out.append(quoted: value)
        out.append("}},")
        out.endLine()
    }

    // MARK: events

    private func write(_ event: Int, _ conversion: Int?, _ out: inout OutputBuffer) {
        let time = trace.times[event]
        switch timeline.kinds[event] {
        case .convert:
            guard let conversion else { return }
            let end = timeline.conversions[conversion].end
            let target = trace.text(event, .target) ?? "?"
            let done = timeline.conversions[conversion].succeeded ? "convert to" : "not converted to"
            begin("X", "\(done) \(target)", "conversion", trace.actorOf[event], time, &out)
            span(time, trace.times[end], &out)
            arguments(timeline.conversions[conversion].hasEnded ? [event, end] : [event], &out)
        case .ioctl, .busy, .failedCall:
            guard let took = trace.number(event, .ns) else { return instant(event, &out) }
            begin(
                "X", "KVM_SET_MEMORY_ATTRIBUTES2", "ioctl", trace.actorOf[event], time &- min(took, time),
                &out)
            span(0, took, &out)
            arguments([event], &out)
        case .fault, .race, .resume: return
        default: instant(event, &out)
        }
    }

    private func instant(_ event: Int, _ out: inout OutputBuffer) {
        begin("i", name(event), timeline.kinds[event].group, trace.actorOf[event], trace.times[event], &out)
        out.append(",\"s\":\"t\"")
        arguments([event], &out)
    }

    private func name(_ event: Int) -> String {
        if timeline.kinds[event] == .console, let text = trace.text(event, .text) {
            return text.isEmpty ? "console" : text
        }
        return trace.name(event)
    }

    private func writeFaults(_ out: inout OutputBuffer) {
        // A fault lasts until its vCPU resumes, or else until the next fault of that vCPU. The last one has no
        // duration if its vCPU never resumes.
        var open: [UInt8: Int] = [:]
        func close(_ fault: Int, at event: Int) {
            begin(
                "X", timeline.kinds[fault] == .race ? "memory fault (race)" : "memory fault", "faults",
                trace.actorOf[fault], trace.times[fault], &out)
            span(trace.times[fault], trace.times[event], &out)
            arguments([fault], &out)
        }
        for event in 0..<trace.count {
            let actor = trace.actorOf[event]
            switch timeline.kinds[event] {
            case .resume:
                if let fault = open.removeValue(forKey: actor) { close(fault, at: event) }
            case .fault, .race:
                if let fault = open.updateValue(event, forKey: actor) { close(fault, at: fault) }
            default: break
            }
        }
        for fault in open.values.sorted() { close(fault, at: fault) }
    }

    private func writeFlows(_ out: inout OutputBuffer) {
        for (index, conversion) in timeline.conversions.enumerated() {
            guard let cause = conversion.cause, timeline.kinds[cause] == .fault,
                let resume = conversion.resume
            else {
                continue
            }
            let actor = trace.actorOf[conversion.start]
            for (phase, event) in [("s", cause), ("t", conversion.start), ("f", resume)] {
                begin(phase, "fault to resume", "flow", actor, trace.times[event], &out)
                out.append(",\"id\":")
                out.append(decimal: UInt64(index + 1))
                if phase == "f" { out.append(",\"bp\":\"e\"") }
                out.append("},")
                out.endLine()
            }
        }
    }

    private func writeCounters(_ out: inout OutputBuffer) {
        for (state, name) in [
            (Timeline.State.private, "private pages"), (.shared, "shared pages"), (.held, "held pages"),
        ] {
            var last: Int64 = -1
            for (event, pages) in timeline.counts(of: state, events: trace.count).enumerated()
            where pages != last {
                last = pages
                begin("C", name, "pages", nil, trace.times[event], &out)
                out.append(",\"args\":{\"pages\":")
                out.append(signed: pages)
                out.append("}},")
                out.endLine()
            }
        }
    }

    // MARK: parts of an event

    private func begin(
        _ phase: String, _ name: String, _ category: String, _ actor: UInt8?, _ time: UInt64,
        _ out: inout OutputBuffer
    ) {
        out.append("{\"ph\":\"")
        out.append(phase)
        out.append("\",\"pid\":1,\"tid\":")
        out.append(decimal: actor.map { UInt64($0) + 1 } ?? 0)
        out.append(",\"ts\":")
        microseconds(time, &out)
        out.append(",\"cat\":")
        out.append(quoted: category)
        out.append(",\"name\":")
        out.append(quoted: name)
    }

    private func span(_ start: UInt64, _ end: UInt64, _ out: inout OutputBuffer) {
        out.append(",\"dur\":")
        microseconds(end > start ? end - start : 0, &out)
    }

    private func microseconds(_ nanoseconds: UInt64, _ out: inout OutputBuffer) {
        out.append(decimal: nanoseconds / 1000)
        out.append(46)
        let rest = nanoseconds % 1000
        out.append(UInt8(48 + rest / 100))
        out.append(UInt8(48 + rest / 10 % 10))
        out.append(UInt8(48 + rest % 10))
    }

    /// Writes the fields of some events, each key once, and ends the object.
    private func arguments(_ events: [Int], _ out: inout OutputBuffer) {
        out.append(",\"args\":{")
        var seen: Set<String> = []
        for event in events {
            let shape = trace.shape(event)
            for (place, key) in shape.keys.enumerated() where seen.insert(key).inserted {
                if seen.count > 1 { out.append(",") }
                out.append(quoted: key)
                out.append(":")
                let value = trace.value(event, place)
                switch shape.types[place] {
                case .text: out.append(quoted: trace.strings[Int(value)])
                case .flag: out.append(value == 0 ? "false" : "true")
                case .number, .wide:
                    // As hex text, because viewers show numbers in decimal.
                    if shape.isAddress(place), shape.types[place] == .wide || value >= 0 {
                        out.append("\"0x")
                        out.append(hex: UInt64(bitPattern: value))
                        out.append("\"")
                    } else if shape.types[place] == .wide {
                        out.append(decimal: UInt64(bitPattern: value))
                    } else {
                        out.append(signed: value)
                    }
                }
            }
        }
        out.append("}},")
        out.endLine()
    }
}
