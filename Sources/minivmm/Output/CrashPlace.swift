// SPDX-License-Identifier: MIT
import MiniVMM

/// Where a guest crashed: the symbol, and after an exception the instruction and the memory that it accesses.
struct CrashPlace {
    private let place: VCPUPlace
    private let symbol: SymbolTable.Place?
    private let exception: CPUException?
    /// Nil if the bytes are not known.
    private let instruction: Instruction?
    /// The memory operands of the instruction, with the state of their pages where it is known.
    private let accesses: [(address: UInt64, state: PageState?)]

    /// - Returns: nil for any other outcome, or if the registers are lost.
    init?(_ outcome: Outcome, _ machine: Machine, _ symbols: SymbolTable?) {
        guard case .crashed(_, let crash) = outcome, let place = crash.place else { return nil }
        self.place = place
        symbol = symbols?.place(of: place.rip)
        switch crash.cause {
        case .exception(let unhandled), .tripleFault(.of(let unhandled)):
            exception = unhandled.exception
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
            instruction = nil
            accesses = []
        }
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
        guard !text.isEmpty else { return }
        terminal.hanging(terminal.styled("at      ", .dim), text, indent: 8)
    }

    /// Addresses and codes are numbers; `code` is hexadecimal digits in memory order.
    var json: [(String, JSON)] {
        var members: [(String, JSON)] = [("rip", .number(place.rip)), ("rsp", .number(place.rsp))]
        if let symbol { members.append(("symbol", .string(symbol.description))) }
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
