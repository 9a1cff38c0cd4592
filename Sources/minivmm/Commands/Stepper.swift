// SPDX-License-Identifier: MIT
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// Stops a machine at its exits and asks what to do.
///
/// Its lock is held while somebody is asked, so that vCPUs on several threads stop in turn; the others run meanwhile, and
/// wait at their next exit. A machine that ends meanwhile, by a signal say, is asked about no more.
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
        /// The picture of the pages when it last stopped.
        var before: [String] = []
        /// It has been said why instructions are shown as bytes.
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

    /// Until something lets the machine go on.
    private func ask(_ vcpu: any KVMVCPU, _ machine: Machine, _ state: inout State) {
        while true {
            terminal.print(terminal.styled("   Enter steps; u, c, q, ? help >", .dim))
            let line = state.input.next {
                while !machine.isStopping {
                    if isReadable(.standardInput, within: .milliseconds(50)) { return true }
                }
                return false
            }
            guard !machine.isStopping else { return }
            guard let line else {
                terminal.print("   the input ends here: the guest goes on by itself")
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
            ("Enter, n", "to the next exit"), ("u", "to the next exit that asks for a conversion"),
            ("c", "on without stopping"), ("q", "end the guest"), ("r", "all registers"),
            ("p", "the pages: private and shared"), ("x ADDRESS [BYTES]", "memory, as the host sees it"),
            ("private ADDRESS PAGES [POLICY]", "convert by hand; to shared: shared ..."),
            ("POLICY", "what becomes of the bytes: preserve (else), zero, unspecified"),
        ] {
            terminal.hanging(
                "   " + terminal.styled(command, .bold) + " ", " " + what, indent: 5, used: 4 + command.count)
        }
        PageStrip(terminal: terminal).printLegend(indent: 3)
    }

    private func memory(_ words: [String], _ machine: Machine) {
        guard (2...3).contains(words.count), let gpa = Self.number(words[1]),
            case let wanted = words.count > 2 ? Self.number(words[2]) : 16, let wanted, wanted > 0
        else { return terminal.print("   x ADDRESS [BYTES]: numbers, decimal or 0x") }
        let count = Int(min(wanted, 256))
        // Eight bytes a row where sixteen have no room.
        let row = terminal.width < 72 ? 8 : 16
        do throws(HostAccessError) {
            let bytes = try machine.memory.read(gpa: gpa, count: count)
            for start in stride(from: 0, to: count, by: row) {
                let part = bytes[start..<min(start + row, count)].map(Instruction.hexByte)
                terminal.print("   \(hex(gpa &+ UInt64(start))):  " + part.joined(separator: " "))
            }
            if wanted > 256 { terminal.print("   256 bytes are shown at most") }
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
                "\(words[0]) ADDRESS PAGES [preserve|zero|unspecified]: an address of whole pages, and at least one",
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
