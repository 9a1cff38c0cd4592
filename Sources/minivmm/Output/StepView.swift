// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

/// The view of `--step` at a stop: registers, the instruction, the pages.
struct StepView {
    let image: BootImage
    /// Nil if none is installed.
    let disassembler: Disassembler?
    let terminal: Terminal

    func registers(_ vcpu: any KVMVCPU, isShort: Bool) {
        guard let r = try? vcpu.registers() else {
            return terminal.print("   the registers cannot be read")
        }
        let short = [
            ("RIP", r.rip), ("RAX", r.rax), ("RBX", r.rbx), ("RCX", r.rcx), ("RDX", r.rdx), ("RSP", r.rsp),
            ("RFLAGS", r.rflags),
        ]
        let rest = [
            ("RSI", r.rsi), ("RDI", r.rdi), ("RBP", r.rbp), ("R8", r.r8), ("R9", r.r9), ("R10", r.r10),
            ("R11", r.r11), ("R12", r.r12), ("R13", r.r13), ("R14", r.r14), ("R15", r.r15),
        ]
        let words = (isShort ? short : short + rest).map { "\($0.0)=\(hex($0.1))" }
        terminal.paragraph(words.joined(separator: " "), indent: 3)
    }

    // MARK: the instruction

    /// The instruction that caused the exit, from the image as loaded, because the host cannot read private code.
    ///
    /// For some exits KVM leaves RIP at the instruction, for others after it, so both places are examined.
    func instruction(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        guard let registers = try? vcpu.registers() else { return }
        if let special = try? vcpu.specialRegisters(), special.cs.l == 0 {
            return terminal.paragraph("at RIP  code of 16 or 32 bits, which is not shown", indent: 3)
        }
        let rip = registers.rip
        guard let here = decoded(at: rip) else {
            return terminal.paragraph("at RIP  outside the image", indent: 3)
        }
        // The guest addresses the shared alias with the shared bit set.
        func page(_ fault: MemoryFault) -> UInt64 {
            let bit = fault.wants == .shared ? machine.layout.sharedBit : nil
            return (fault.gpa | (bit.map { UInt64(1) << UInt64($0) } ?? 0)) / pageSize
        }
        func left(_ instruction: Instruction) -> Bool {
            switch exit {
            case .io(let io):
                return instruction.accesses(port: io.port, isOut: io.direction == CKVM_EXIT_IO_OUT)
            case .memoryFault(let fault, _): return instruction.touches(page: page(fault), registers)
            default: return true
            }
        }
        // With emulation by memslots a fault is an MMIO exit, and KVM has already advanced RIP past a write. On other
        // backends RIP is at the faulting instruction.
        var isFault = false
        if case .memoryFault = exit { isFault = true }
        let mayBeBehind = !isFault || machine.backend.retiresFaultingWrites
        let isHere = left(here)
        let behind = mayBeBehind ? ending(at: rip, prefixes: Self.prefixes(exit), where: left) : nil
        guard let behind, !isHere || isFault else {
            return terminal.hanging("   at RIP  ", here.line, indent: 5, used: 11)
        }
        let label = "at \(hex(rip &- UInt64(behind.bytes.count)))  "
        if isHere {
            terminal.hanging("   at RIP  ", here.line, indent: 5, used: 11)
            terminal.hanging(
                "   or at",
                " " + label.dropFirst(3) + behind.line + " (if it is a write, RIP is already after it)",
                indent: 5,
                used: 8)
        } else {
            terminal.hanging(
                "   " + label, behind.line + " (RIP is already after it)", indent: 5, used: 3 + label.count)
        }
    }

    /// The shortest instruction, including its prefixes, that ends at RIP and matches the exit.
    private func ending(
        at rip: UInt64, prefixes: Set<UInt8>, where does: (Instruction) -> Bool
    ) -> Instruction? {
        var found: Instruction?
        for length in 1...15 {
            guard let one = decoded(at: rip &- UInt64(length)), let first = one.bytes.first, one.text != nil,
                one.bytes.count == length, first != 0, does(one),
                found == nil || prefixes.contains(first)
            else {
                if found != nil { break }
                continue
            }
            found = one
        }
        return found
    }

    /// LOCK, REPNE, REP and operand size, and REX except for IN and OUT: it has no effect there, so such a byte belongs to
    /// the instruction before.
    private static func prefixes(_ exit: Exit) -> Set<UInt8> {
        let all: Set<UInt8> = [0xf0, 0xf2, 0xf3, 0x66]
        if case .io = exit { return all }
        return all.union(0x40...0x4f)
    }

    private func decoded(at address: UInt64) -> Instruction? {
        let segment = image.segments.first {
            $0.gpa <= address && address - $0.gpa < UInt64($0.bytes.count)
        }
        guard let segment else { return nil }
        let start = Int(address - segment.gpa)
        let bytes = Array(segment.bytes[start..<min(start + 15, segment.bytes.count)])
        return Instruction(bytes, at: address, by: disassembler)
    }

    // MARK: the pages

    /// Strips of all of RAM and of the pages around `range`, which is marked.
    func pages(_ machine: Machine, about range: PageRange? = nil) -> [String] {
        let strip = PageStrip(terminal: terminal)
        let map = machine.memory.attributes
        let width = max(8, min(32, terminal.width - 24))
        let held = machine.converter.holds.heldRanges
        let all = PageRange(start: 0, size: map.size)
        let near = window(machine, about: range)
        var lines = [(all, "all of RAM"), (near, "from \(hex(near?.start ?? 0))")].compactMap { range, what in
            range.map {
                "   \(strip.draw(map, $0, held: held, width: width))  " + terminal.styled(what, .dim)
            }
        }
        if let near, let range, let part = range.intersection(near) {
            var pagesPerCell: UInt64 = 1
            while near.pageCount > UInt64(width) * pagesPerCell { pagesPerCell *= 2 }
            let cell = pagesPerCell * pageSize
            let first = Int((part.start - near.start) / cell)
            let last = Int((part.end - 1 - near.start) / cell)
            lines.append(
                "   " + String(repeating: " ", count: first)
                    + String(repeating: "^", count: last - first + 1))
        }
        return lines
    }

    /// The start of free RAM, or the pages around `range`.
    private func window(_ machine: Machine, about range: PageRange?) -> PageRange? {
        let size = 32 * pageSize
        let ram = machine.memory.size
        var start = machine.layout.free.lowerBound
        if let range, range.start < start || range.start >= start + size {
            start = range.start / size * size
        }
        guard start < ram else { return nil }
        return PageRange(start: start, size: min(size, ram - start) & ~(pageSize - 1))
    }
}
