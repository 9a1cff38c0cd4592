// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// Stops a machine at its exits and prompts for a command.
///
/// The lock is held during the prompt, so vCPUs on several threads stop one at a time. The other vCPUs keep running and
/// wait at their next exit. If the machine ends during a prompt, for example by a signal, the prompt returns.
final class Stepper: ExitObserver {
    private enum Mode {
        case step
        /// To the next exit that asks for a conversion.
        case untilConversion
        case free
    }
    private struct State {
        var mode = Mode.step
        var exits = 0
        /// The strip of pages at the last stop.
        var before: [String] = []
        /// Whether the advice to install a disassembler was printed.
        var hasAdvised = false
        var input = LineReader()
    }
    private let state = Mutex(State())
    private let terminal = Terminal.diagnostics
    private let view: StepView

    init(image: BootImage) {
        view = StepView(image: image, disassembler: .installed, terminal: .diagnostics)
    }

    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        state.withLock { state in
            guard !machine.isStopping else { return }
            state.exits += 1
            let call = StepText.call(exit, vcpu)
            switch state.mode {
            case .free: return
            case .untilConversion where !StepText.asksForConversion(exit, call): return
            default: break
            }
            show(exit, call, vcpu, machine, &state)
            ask(vcpu, machine, &state)
        }
    }

    private func show(
        _ exit: Exit, _ call: StepText.Call?, _ vcpu: any KVMVCPU, _ machine: Machine, _ state: inout State
    ) {
        let title = "exit \(state.exits), vcpu\(vcpu.id)"
        terminal.print()
        terminal.hanging(
            terminal.styled(title, .bold) + " ", " " + StepText.what(exit, vcpu.runPage, call), indent: 3,
            used: title.count + 1)
        terminal.paragraph(StepText.next(exit, call, machine), indent: 3, style: .dim)
        view.registers(vcpu, isShort: true)
        view.instruction(exit, vcpu, machine)
        if view.disassembler == nil, !state.hasAdvised {
            state.hasAdvised = true
            terminal.paragraph(Disassembler.advice, indent: 3, style: .dim)
        }
        let about = StepText.pages(exit, call)
        let now = view.pages(machine)
        if state.before != now || about != nil {
            for line in view.pages(machine, about: about) { terminal.print(line) }
        }
        state.before = now
    }

    // MARK: commands

    /// Prompts until a command resumes or ends the machine.
    private func ask(_ vcpu: any KVMVCPU, _ machine: Machine, _ state: inout State) {
        while true {
            terminal.print(
                terminal.styled(
                    "   Enter: next exit; u: next conversion; c: continue; q: quit; ?: help >", .dim))
            let line = state.input.next {
                while !machine.isStopping {
                    if isReadable(.standardInput, within: .milliseconds(50)) { return true }
                }
                return false
            }
            guard !machine.isStopping else { return }
            guard let line else {
                terminal.print("   end of input: the guest continues without stopping")
                state.mode = .free
                return
            }
            let words = line.split(separator: " ").map(String.init)
            switch words.first ?? "" {
            case "", "n", "s", "step":
                state.mode = .step
                return
            case "c", "continue":
                state.mode = .free
                return
            case "u", "until":
                state.mode = .untilConversion
                return
            case "q", "quit":
                machine.stop(.interrupted(signal: SIGINT))
                return
            case "r", "registers": view.registers(vcpu, isShort: false)
            case "p", "pages": for line in view.pages(machine) { terminal.print(line) }
            case "x", "memory": memory(words, machine)
            case "private", "shared": convert(words, machine)
            default: help(words.first ?? "")
            }
        }
    }

    private func help(_ word: String) {
        if word != "?", word != "h", word != "help" { terminal.print("   no such command: \(word)") }
        for (command, what) in [
            ("Enter, n", "run to the next exit"), ("u", "run to the next exit that asks for a conversion"),
            ("c", "continue without stopping"), ("q", "end the guest"), ("r", "show all registers"),
            ("p", "show which pages are private and shared"),
            ("x ADDRESS [BYTES]", "show memory as the host sees it, 16 bytes by default"),
            ("private ADDRESS PAGES [POLICY]", "convert to private; `shared ...` converts to shared"),
            ("POLICY", "for the contents: preserve (default), zero or unspecified"),
        ] {
            terminal.hanging(
                "   " + terminal.styled(command, .bold) + " ", " " + what, indent: 5, used: 4 + command.count)
        }
        PageStrip(terminal: terminal).printLegend(indent: 3)
    }

    private func memory(_ words: [String], _ machine: Machine) {
        guard (2...3).contains(words.count), let gpa = Self.number(words[1]),
            case let wanted = words.count > 2 ? Self.number(words[2]) : 16, let wanted, wanted > 0
        else { return terminal.print("   usage: x ADDRESS [BYTES], in decimal or with 0x") }
        let count = Int(min(wanted, 256))
        // 16 bytes per row, or 8 on a narrow terminal.
        let row = terminal.width < 72 ? 8 : 16
        do throws(HostAccessError) {
            let bytes = try machine.memory.read(gpa: gpa, count: count)
            for start in stride(from: 0, to: count, by: row) {
                let part = bytes[start..<min(start + row, count)].map(Instruction.hexByte)
                terminal.print("   \(hex(gpa &+ UInt64(start))):  " + part.joined(separator: " "))
            }
            if wanted > 256 { terminal.print("   only the first 256 bytes are shown") }
        } catch {
            let why = error.errno.name
            terminal.hanging(
                "   " + terminal.styled(why, .bad), ": " + error.description, indent: 5, used: 3 + why.count)
        }
    }

    private func convert(_ words: [String], _ machine: Machine) {
        let policy = words.count > 3 ? ContentPolicy(rawValue: words[3]) : .preserve
        guard (3...4).contains(words.count), let gpa = Self.number(words[1]),
            let pages = Self.number(words[2]), let target = PageState(rawValue: words[0]), let policy,
            case (let size, false) = pages.multipliedReportingOverflow(by: pageSize),
            let range = PageRange(start: gpa, size: size)
        else {
            return terminal.paragraph(
                "usage: \(words[0]) ADDRESS PAGES [preserve|zero|unspecified]; ADDRESS is a multiple of 4096, PAGES at least 1",
                indent: 3)
        }
        do throws(ConversionError) {
            let result = try machine.converter.convert(
                ConversionRequest(range: range, to: target, contents: policy), by: .monitor)
            terminal.paragraph(
                "\(StepText.count(pages)) to \(target.rawValue), contents \(policy.rawValue): done "
                    + "(\(result.means.rawValue))", indent: 3)
        } catch {
            terminal.paragraph("\(error)", indent: 3)
        }
        for line in view.pages(machine, about: range) { terminal.print(line) }
    }

    private static func number(_ text: String) -> UInt64? {
        text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    }
}
