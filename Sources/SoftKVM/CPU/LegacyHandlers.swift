// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Handlers of protected mode and real mode: an IDT of eight-byte gates, or the interrupt vector table.
extension SoftVCPU {
    /// Enters a handler of protected mode in the same ring and the same code segment. Anything else, such as a task gate, is not
    /// supported, and the run ends.
    ///
    /// - Parameters:
    ///   - next: EIP in the frame.
    ///   - code: the error code, for a vector with one.
    ///   - isSoftware: INT n, which a gate may refuse.
    /// - Returns: false, with nothing changed but the stack's memory, if the handler cannot be entered.
    func enterProtectedModeHandler(
        _ vector: UInt64, returningTo next: UInt64, code: UInt32?, isSoftware: Bool
    ) -> Bool {
        guard vector * 8 + 7 <= UInt64(special.idt.limit), special.codeBits == 32,
            let gate = readBytes(special.idt.base &+ vector * 8, 8)
        else { return false }
        let (isPresent, type, privilege) = (gate >> 47 & 1 == 1, gate >> 40 & 0x1f, Int(gate >> 45 & 3))
        guard isPresent, type == 0xe || type == 0xf, !isSoftware || privilege >= currentRing,
            gate >> 16 & 0xffff == UInt64(special.cs.selector)
        else { return false }
        var frame = [registersNow.rflags, UInt64(special.cs.selector), next]
        if let code { frame.append(UInt64(code)) }
        let mask: UInt64 = special.ss.db != 0 ? 0xffff_ffff : 0xffff
        var top = registersNow.rsp & mask
        for word in frame {
            top = (top &- 4) & mask
            guard writeBytes(special.ss.base &+ top, word, 4) else { return false }
        }
        registersNow.rsp = registersNow.rsp & ~mask | top
        registersNow.rip = gate & 0xffff | (gate >> 48) << 16
        // IF stays for a trap gate; TF, NT, RF and VM are cleared by both.
        registersNow.rflags &= ~(type == 0xe ? 0x3_4300 : 0x3_4100)
        return true
    }

    /// Pushes FLAGS, CS and IP, and continues at the handler of the vector table.
    ///
    /// - Returns: false, with nothing changed but the stack's memory, if there is no such handler or no stack.
    func enterRealModeHandler(_ vector: UInt64, returningTo next: UInt64) -> Bool {
        guard vector * 4 + 3 <= UInt64(special.idt.limit),
            let handler = readBytes(special.idt.base &+ vector * 4, 4)
        else { return false }
        var top = registersNow.rsp & 0xffff
        for word in [registersNow.rflags, UInt64(special.cs.selector), next] {
            top = (top &- 2) & 0xffff
            guard writeBytes(special.ss.base &+ top, word, 2) else { return false }
        }
        registersNow.rsp = registersNow.rsp & ~0xffff | top
        registersNow.rip = handler & 0xffff
        special.cs.selector = UInt16(truncatingIfNeeded: handler >> 16)
        special.cs.base = (handler >> 16) << 4
        specialChanged = true
        registersNow.rflags &= ~0x4_0300  // AC, IF, TF
        return true
    }
}
