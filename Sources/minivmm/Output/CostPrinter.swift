// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM

/// Prints costs in instructions as a table or as JSON.
struct CostPrinter {
    let costs: Costs

    // MARK: text

    private static let width = 12
    private static let label = 31

    func print(on out: Terminal) {
        out.print(out.styled("kernel     ", .dim) + costs.backend)
        out.print(out.styled("interface  ", .dim) + costs.interface.text)
        out.hanging(
            out.styled("figures    ", .dim),
            "Instructions of an emulated processor, counted by QEMU; no times. Each is one system call, the "
                + "median of \(costs.repetitions). Reading the counter (\(costs.overhead)) is subtracted.",
            indent: 11)
        out.print()
        let sizes = Costs.sizes.map { Self.right(grouped($0), Self.width) }.joined()
        out.print(out.styled(Self.left("pages in one call", Self.label) + sizes, .bold))
        for target in Operation.Target.allCases {
            out.print("to \(target.rawValue), pages")
            for pages in Operation.Pages.before(target) {
                row("  " + pages.text, .conversion(target, pages), out)
            }
            row("  already \(target.rawValue)", .unchanged(target), out)
        }
        if costs.costs.contains(where: { $0.operation == .busy(.first) }) {
            out.print("to private, EAGAIN, held by a pipe")
            for held in Operation.Held.allCases { row("  the \(held.rawValue) page", .busy(held), out) }
        }
        out.print()
        out.print(out.styled("a vCPU", .bold))
        for guest in Operation.Guest.allCases {
            guard let cost = costs.cost(.guest(guest), 1) else { continue }
            line("  " + guest.text(costs.interface), figure(cost), out)
        }
        if let fault = costs.fault { line("  fault, conversion, resume together", grouped(fault), out) }
        notes(out)
    }

    private func row(_ name: String, _ operation: Operation, _ out: Terminal) {
        let cells = Costs.sizes.map { size in
            Self.right(costs.cost(operation, size).map(figure) ?? "-", Self.width)
        }
        out.print(Self.left(name, Self.label) + cells.joined())
    }

    private func line(_ name: String, _ figure: String, _ out: Terminal) {
        out.print(Self.left(name, Self.label + 3 * Self.width) + Self.right(figure, Self.width))
    }

    /// The median, marked if the repetitions differ.
    private func figure(_ cost: Cost) -> String { (cost.isExact ? "" : "~") + grouped(cost.median) }

    private func notes(_ out: Terminal) {
        let spread = costs.costs.filter { !$0.isExact }
        let withTicks = costs.costs.filter { $0.ticks > 0 }
        guard !spread.isEmpty || !withTicks.isEmpty else { return }
        out.print()
        if !withTicks.isEmpty {
            let names = withTicks.map { "\($0.key) (\($0.ticks))" }.joined(separator: ", ")
            out.hanging(
                "",
                "A timer tick comes every \(grouped(costs.tickPeriod)) instructions and takes about "
                    + "\(grouped(costs.tickCost)). Each call begins right after one. These contain ticks: \(names).",
                indent: 0)
        }
        guard !spread.isEmpty else { return }
        out.print("~ differs between repetitions, from least to most:")
        for cost in spread {
            out.print(
                "  " + Self.left(cost.key, 36)
                    + Self.right("\(grouped(cost.least)) to \(grouped(cost.most))", 26))
        }
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(1, width - text.count)) + text
    }

    // MARK: JSON

    /// Schema `minivmm.costs/1`.
    var json: JSON {
        .object([
            ("schema", .string("minivmm.costs/1")), ("backend", .string(costs.backend)),
            ("interface", .string(costs.interface.rawValue)), ("unit", .string("instructions")),
            ("repetitions", .number(UInt64(costs.repetitions))), ("overhead", .number(costs.overhead)),
            ("tick_period", .number(costs.tickPeriod)), ("tick_cost", .number(costs.tickCost)),
            (
                "costs",
                .array(
                    costs.costs.map { cost in
                        .object([
                            ("key", .string(cost.key)), ("operation", .string(cost.operation.key)),
                            ("pages", .number(cost.pages)), ("median", .number(cost.median)),
                            ("least", .number(cost.least)), ("most", .number(cost.most)),
                            ("samples", .array(cost.samples.map(JSON.number))),
                            ("ticks", .number(cost.ticks)),
                        ])
                    })
            ),
        ])
    }
}

extension ConversionInterface {
    fileprivate var text: String {
        switch self {
        case .inPlace: "in place: KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd"
        case .perVM: "per-VM attributes: KVM_SET_MEMORY_ATTRIBUTES on the VM"
        }
    }
}

extension Operation.Pages {
    fileprivate var text: String {
        switch self {
        case .neverTouched: "never touched"
        case .justWritten: "just allocated by a write"
        case .present: "present, mapped by nobody"
        case .mappedByHost: "mapped by the host"
        case .mappedByGuest: "mapped by the guest"
        case .mixed: "mixed"
        case .alternating: "every second one converted"
        }
    }
}

extension Operation.Guest {
    fileprivate func text(_ interface: ConversionInterface) -> String {
        switch self {
        case .exit: "exit round trip (OUT)"
        case .hypercall: "hypercall round trip (KVM_HC_MAP_GPA_RANGE)"
        case .faultExit:
            interface == .inPlace
                ? "KVM_RUN up to a memory fault (a default VM)" : "KVM_RUN up to a memory fault"
        case .faultConversion: "conversion of that page to shared"
        case .faultResume: "KVM_RUN that maps the page, up to OUT"
        }
    }
}

extension InstructionClock.Refusal {
    /// The error message: the fault of the clock, and advice.
    var text: String {
        let advice =
            "Run it in the lab, where QEMU counts: lab/boot --icount -- minivmm bench --instructions"
        return switch self {
        case .noCounter: "--instructions: this processor is not x86-64. \(advice)"
        case .scaled(let factor):
            "--instructions: the time stamp counter advances by \(factor) with each instruction, not by 1 "
                + "(QEMU's -icount needs shift=0). \(advice)"
        case .other(let instructions, let least, let most):
            "--instructions: the time stamp counter does not count instructions here: a loop of "
                + "\(grouped(instructions)) instructions advanced it by "
                + (least == most ? grouped(least) : "\(grouped(least)) to \(grouped(most))") + ". \(advice)"
        }
    }
}

extension CostError {
    /// The error message.
    var text: String {
        switch self {
        case .call(let call, let errno): "--instructions: \(call) failed: \(errno)"
        case .noConversion:
            "--instructions: this kernel has no software-protected VMs with conversion, neither in place nor by "
                + "per-VM attributes. Boot one that has: lab/boot --icount -- minivmm bench --instructions"
        case .answer(let what, let expected, let seen):
            "--instructions: \(what) had another answer than it must have: \(seen) in place of \(expected)"
        case .exit(let what, let expected, let seen):
            "--instructions: KVM_RUN (\(what)) returned with exit \(seen) in place of \(expected)"
        }
    }
}

private func grouped(_ number: UInt64) -> String { Litmus.grouped(Int(clamping: number)) }
