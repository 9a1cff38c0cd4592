import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// Stops a machine at its exits and asks what to do.
///
/// Its lock is held while somebody is asked, so that vCPUs on several threads stop in turn; the others run meanwhile, and
/// wait at their next exit.
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
    }
    private let state = Mutex(State())
    private let image: BootImage
    private let terminal = Terminal.diagnostics

    init(image: BootImage) { self.image = image }

    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        state.withLock { state in
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
        terminal.print()
        terminal.print(
            terminal.styled("exit \(state.exits), vcpu\(vcpu.id)", .bold) + "  "
                + StepText.what(exit, vcpu.runPage, call))
        terminal.paragraph(StepText.next(exit, call, machine), indent: 3, style: .dim)
        registers(vcpu, isShort: true)
        instruction(vcpu)
        let now = pages(machine)
        if state.before != now { for line in now { terminal.print(line) } }
        state.before = now
    }

    // MARK: commands

    /// Until something lets the machine go on.
    private func ask(_ vcpu: any KVMVCPU, _ machine: Machine, _ state: inout State) {
        while true {
            terminal.print(terminal.styled("   step (Enter), c, u, ? >", .dim))
            guard let line = readLine() else {
                terminal.print("   the input ends here: the guest goes on by itself")
                state.mode = .free
                return
            }
            let words = line.split(separator: " ").map(String.init)
            switch words.first ?? "" {
            case "", "n", "step":
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
            case "r", "registers": registers(vcpu, isShort: false)
            case "p", "pages": for line in pages(machine) { terminal.print(line) }
            case "x", "memory": memory(words, machine)
            case "private", "shared":
                convert(words, machine)
            default: help(words.first ?? "")
            }
        }
    }

    private func help(_ word: String) {
        if word != "?", word != "help" { terminal.print("   no such command: \(word)") }
        for (command, what) in [
            ("Enter, n", "to the next exit"), ("u", "to the next exit that asks for a conversion"),
            ("c", "on without stopping"), ("q", "end the guest"), ("r", "all registers"),
            ("p", "the pages: private and shared"), ("x ADDRESS [BYTES]", "memory, as the host sees it"),
            ("private ADDRESS PAGES [preserve|zero|unspecified]", "convert by hand; shared, too"),
        ] {
            terminal.hanging("   " + terminal.styled(command, .bold) + "  ", what, indent: 5)
        }
    }

    private func registers(_ vcpu: any KVMVCPU, isShort: Bool) {
        guard let r = try? vcpu.registers() else {
            return terminal.print("   the registers cannot be read")
        }
        let short = [
            ("RIP", r.rip), ("RAX", r.rax), ("RBX", r.rbx), ("RCX", r.rcx), ("RDX", r.rdx), ("RSP", r.rsp),
            ("FLAGS", r.rflags),
        ]
        let rest = [
            ("RSI", r.rsi), ("RDI", r.rdi), ("RBP", r.rbp), ("R8", r.r8), ("R9", r.r9), ("R10", r.r10),
            ("R11", r.r11), ("R12", r.r12), ("R13", r.r13), ("R14", r.r14), ("R15", r.r15),
        ]
        let words = (isShort ? short : short + rest).map { "\($0.0)=\(hex($0.1))" }
        terminal.paragraph(words.joined(separator: " "), indent: 3)
    }

    /// The bytes at RIP as they were loaded: the host cannot read private code.
    private func instruction(_ vcpu: any KVMVCPU) {
        guard let rip = try? vcpu.registers().rip,
            let segment = image.segments.first(where: {
                $0.gpa <= rip && rip - $0.gpa < UInt64($0.bytes.count)
            })
        else { return }
        let start = Int(rip - segment.gpa)
        let bytes = Array(segment.bytes[start..<min(start + 15, segment.bytes.count)])
        terminal.print("   at RIP  " + Instruction(bytes).text)
    }

    private func pages(_ machine: Machine) -> [String] {
        let strip = PageStrip(terminal: terminal)
        let free = machine.layout.free
        let size = min(free.upperBound - free.lowerBound, 32 * pageSize) & ~(pageSize - 1)
        let width = max(8, min(32, terminal.width - 24))
        let map = machine.memory.attributes
        return [
            (PageRange(start: 0, size: map.size), "all of RAM"),
            (PageRange(start: free.lowerBound, size: size), "from \(hex(free.lowerBound))"),
        ].compactMap { range, what in
            range.map {
                "   \(strip.draw(map, $0, held: [], width: width))  " + terminal.styled(what, .dim)
            }
        }
    }

    private func memory(_ words: [String], _ machine: Machine) {
        guard words.count >= 2, let gpa = Self.number(words[1]),
            case let wanted = words.count > 2 ? Self.number(words[2]) : 16, let wanted, wanted > 0
        else { return terminal.print("   x ADDRESS [BYTES]: numbers, decimal or 0x") }
        let count = Int(min(wanted, 256))
        do throws(HostAccessError) {
            let bytes = try machine.memory.read(gpa: gpa, count: count)
            for start in stride(from: 0, to: count, by: 16) {
                let row = bytes[start..<min(start + 16, count)].map(Instruction.hexByte)
                terminal.print("   \(hex(gpa &+ UInt64(start))):  " + row.joined(separator: " "))
            }
        } catch {
            terminal.paragraph("\(error)", indent: 3)
        }
    }

    private func convert(_ words: [String], _ machine: Machine) {
        let policy = words.count > 3 ? ContentPolicy(rawValue: words[3]) : .preserve
        guard words.count >= 3, let gpa = Self.number(words[1]), let pages = Self.number(words[2]),
            let target = PageState(rawValue: words[0]), let policy,
            case (let size, false) = pages.multipliedReportingOverflow(by: pageSize),
            let range = PageRange(start: gpa, size: size)
        else {
            return terminal.paragraph(
                "\(words[0]) ADDRESS PAGES [preserve|zero|unspecified]: an address of whole pages, and at least one",
                indent: 3)
        }
        do throws(ConversionError) {
            let result = try machine.converter.convert(
                ConversionRequest(range: range, to: target, contents: policy), by: .host)
            terminal.print(
                "   \(pages) pages to \(target.rawValue): done, contents: \(result.means.rawValue)")
        } catch {
            terminal.paragraph("\(error)", indent: 3)
        }
    }

    private static func number(_ text: String) -> UInt64? {
        text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    }
}
