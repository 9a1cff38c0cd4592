// SPDX-License-Identifier: MIT
import MiniVMM

/// Where a guest crashed: the symbol, and after an exception the instruction and the memory that it accesses.
struct CrashPlace {
    private let place: VCPUPlace
    private let symbol: SymbolTable.Place?
    private let callers: [SymbolTable.Place]
    private let exception: CPUException?
    /// Nil if the bytes are not known.
    private let instruction: Instruction?
    /// The memory operands of the instruction, with the state of their pages where it is known.
    private let accesses: [(address: UInt64, state: PageState?)]

    /// - Returns: nil for any other outcome, or if the registers are lost.
    init?(_ outcome: Outcome, _ machine: Machine, _ symbols: SymbolTable?) {
        guard case .crashed(let vcpu, let crash) = outcome, let place = crash.place else { return nil }
        self.place = place
        symbol = symbols?.place(of: place.rip)
        switch crash.cause {
        case .exception(let unhandled), .tripleFault(.of(let unhandled)):
            exception = unhandled.exception
            callers = Self.callers(unhandled, place.rip, vcpu, machine, symbols)
            let decoded = Instruction(unhandled.code, at: place.rip, by: .installed)
            instruction = unhandled.code.isEmpty ? nil : decoded
            // Only the monitor's page tables are known to map an address to itself.
            let isMapped = unhandled.pageTables == machine.layout.tables.root
            accesses = decoded.operands.map { operand in
                let address = operand.address(
                    unhandled.registers, next: place.rip &+ UInt64(decoded.bytes.count))
                return (address, isMapped ? machine.memory.state(at: address) : nil)
            }
        default:
            exception = nil
            callers = []
            instruction = nil
            accesses = []
        }
    }

    private static func callers(
        _ unhandled: UnhandledException, _ rip: UInt64, _ vcpu: Int, _ machine: Machine,
        _ symbols: SymbolTable?
    ) -> [SymbolTable.Place] {
        guard let symbols, let vcpu = machine.vcpus.first(where: { $0.id == vcpu }) else { return [] }
        let (rsp, rbp) = (unhandled.registers[4], unhandled.registers[5])
        let function = symbols.place(of: rip).map { rip &- $0.offset }
        return CallChain(rbp: rbp, rsp: rsp, function: function, vcpu, machine, symbols).callers
    }

    /// `mov (%rbx), %rax   48 8b 03   in main+0x1c; accesses 0xdead0000`. Empty if nothing is known beside RIP.
    private var text: String {
        var parts: [String] = []
        if let instruction { parts.append(instruction.line) }
        if let symbol { parts.append("in \(symbol)") }
        parts += accesses.map { access in
            "accesses \(hex(access.address))"
                + (access.state.map { ", page \(access.address / pageSize), \($0.rawValue)" } ?? "")
        }
        return parts.joined(separator: "; ")
    }

    func print(on terminal: Terminal) {
        if !text.isEmpty { terminal.hanging(terminal.styled("at      ", .dim), text, indent: 8) }
        guard !callers.isEmpty else { return }
        let names = callers.map(\.description).joined(separator: ", ")
        terminal.hanging(terminal.styled("from    ", .dim), names, indent: 8)
    }

    /// Addresses and codes are numbers; `code` is hexadecimal digits in memory order.
    var json: [(String, JSON)] {
        var members: [(String, JSON)] = [("rip", .number(place.rip)), ("rsp", .number(place.rsp))]
        if let symbol { members.append(("symbol", .string(symbol.description))) }
        if !callers.isEmpty {
            members.append(("callers", .array(callers.map { .string($0.description) })))
        }
        if let exception {
            members.append(("vector", .number(UInt64(exception.vector))))
            if let code = exception.errorCode { members.append(("error_code", .number(UInt64(code)))) }
            if let address = exception.address { members.append(("address", .number(address))) }
        }
        if let instruction {
            members.append(("code", .string(instruction.bytes.map(Instruction.hexByte).joined())))
            if let text = instruction.text { members.append(("instruction", .string(text))) }
        }
        return [("crash", .object(members))]
    }
}
