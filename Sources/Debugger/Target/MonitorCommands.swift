// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

// The commands of GDB's `monitor`.
extension GuestDebugger {
    package func monitor(_ words: [String], by thread: Int) -> String {
        guard let machine else { return "the guest has ended\n" }
        let lines: [String] =
            switch words.first ?? "help" {
            case "pages" where words.count == 1: pages(machine)
            case "convert" where (3...4).contains(words.count): convert(Array(words.dropFirst()), machine)
            case "faults" where words.count == 2: faults(words[1])
            case "why" where words.count == 1: why(machine)
            case "help", "?": help
            default:
                ["monitor \(words.joined(separator: " ")): no such command, or other words are needed"] + help
            }
        return lines.map { $0 + "\n" }.joined()
    }

    private var help: [String] {
        [
            "monitor pages                          which pages are private and shared",
            "monitor convert RANGE private|shared   converts pages; the contents are preserved",
            "monitor convert RANGE STATE POLICY     POLICY for the contents: preserve, zero or unspecified",
            "monitor faults stop|pass               whether the guest stops after a memory fault (default: pass)",
            "monitor why                            explains the last memory fault, and the debugger's last error",
            "monitor help                           this list",
            "RANGE is START-END or START+BYTES in guest-physical memory, or one address for its page",
        ]
    }

    private func pages(_ machine: Machine) -> [String] {
        let size = machine.memory.size
        guard let all = PageRange(start: 0, size: size) else { return ["the guest has no RAM"] }
        let lines = machine.memory.attributes.runs(in: all).map { run in
            let pages = run.range.size / pageSize
            return
                "\(hex(run.range.start))-\(hex(run.range.end))  \(run.value.rawValue)  \(pages) page\(pages == 1 ? "" : "s")"
        }
        guard let bit = machine.layout.sharedBit else { return lines }
        return lines + [
            "a page is shared at its address with bit \(bit) (\(hex(1 << UInt64(bit)))) set, and private at its own"
        ]
    }

    private func faults(_ word: String) -> [String] {
        switch word {
        case "stop", "pass":
            explanation.withLock { $0.stopsAtFaults = word == "stop" }
            return word == "stop"
                ? ["the guest stops after each memory fault, before the access is tried again"]
                : ["memory faults do not stop the guest"]
        default: return ["\(word): write stop or pass"]
        }
    }

    // MARK: conversion

    private func convert(_ words: [String], _ machine: Machine) -> [String] {
        guard let range = Self.range(words[0]) else {
            return [
                "\(words[0]): not a range; write START-END, START+BYTES or one address, in decimal or with 0x"
            ]
        }
        guard let target = PageState(rawValue: words[1]) else {
            return ["\(words[1]): not a state; write private or shared"]
        }
        guard let policy = words.count > 2 ? ContentPolicy(rawValue: words[2]) : .preserve else {
            return ["\(words[2]): not a policy; write preserve, zero or unspecified"]
        }
        do throws(ConversionError) {
            let request = ConversionRequest(range: range, to: target, contents: policy)
            let result = try machine.converter.convert(request, by: .monitor)
            return ["\(hex(range.start))-\(hex(range.end)) is \(target.rawValue) (\(result.means.rawValue))"]
        } catch {
            return ["\(error)"]
        }
    }

    /// Whole pages that contain the bytes.
    static func range(_ text: String) -> PageRange? {
        func number(_ text: Substring) -> UInt64? {
            text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
        }
        for separator in ["-", "+"] as [Character] {
            guard let place = text.firstIndex(of: separator) else { continue }
            guard let start = number(text[..<place]), let second = number(text[text.index(after: place)...])
            else {
                return nil
            }
            let (size, wraps) =
                separator == "+" ? (second, false) : second.subtractingReportingOverflow(start)
            return wraps || size == 0 ? nil : PageRange.covering(start: start, size: size)
        }
        return number(text[...]).flatMap { PageRange.covering(start: $0, size: 1) }
    }

    // MARK: explanation

    private func why(_ machine: Machine) -> [String] {
        let explanation = explanation.withLock { $0 }
        var lines: [String] = []
        if let (vcpu, fault, state, rip) = explanation.fault {
            let place = rip.map { " (RIP \(hex($0)))" } ?? ""
            lines.append(
                "the last memory fault: vCPU \(vcpu) accessed guest-physical \(hex(fault.gpa)) as \(fault.wants.rawValue) memory\(place)"
            )
            lines += reaction(to: fault, state, machine)
        } else {
            lines.append("there was no memory fault since the debugger is there")
        }
        if let ending = explanation.ending { lines.append("the guest ends when it goes on: \(ending.text)") }
        let facts = breakpoints.withLock { $0.facts }
        if facts?.stopsAtAddresses == false {
            lines.append(
                "debug registers stop nothing on this kernel and CPU: with breakpoints, the guest is stepped through"
            )
        }
        if facts?.watchesData == false {
            lines.append(
                "debug registers watch no data on this kernel and CPU: with watchpoints, the guest is stepped through, and the bytes are compared"
            )
        }
        if facts?.stopsInRing3 == false {
            lines.append(
                "this kernel stops nothing in ring 3: breakpoints there are passed, and a step into it is lost"
            )
        }
        if let error = explanation.error { lines.append("the debugger's last error: \(error)") }
        return lines
    }

    private func reaction(to fault: MemoryFault, _ state: PageState?, _ machine: Machine) -> [String] {
        guard let state else {
            return [
                "RAM ends at \(hex(machine.memory.size)), so there is nothing to convert: the guest crashes"
            ]
        }
        guard machine.configuration.aliases == .two else {
            return [
                "with one alias an access has the kind that the page has: it ran into a conversion, and is tried again"
            ]
        }
        guard state != fault.wants else {
            return ["the page was \(state.rawValue) by the time of the exit: the access is tried again"]
        }
        let page =
            "the page was \(state.rawValue), and the access went through the \(fault.wants.rawValue) alias"
        return switch machine.configuration.faultPolicy {
        case .convert:
            [page, "the monitor converts the page to \(fault.wants.rawValue) (--on-fault convert)"]
        case .reenter: [page, "the monitor enters the guest again without converting (--on-fault reenter)"]
        case .refuse: [page, "the monitor ends the guest (--on-fault refuse)"]
        }
    }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
