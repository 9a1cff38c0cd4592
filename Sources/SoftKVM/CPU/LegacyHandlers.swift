// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Handlers of protected mode and real mode: an IDT of eight-byte gates, or the interrupt vector table.
extension SoftVCPU {
    /// Enters a handler of protected mode through a gate of 32 bits. A task gate, a gate of 16 bits and virtual 8086 mode are
    /// not supported: they are #GP.
    ///
    /// - Throws: with nothing changed but the stack's memory.
    func enterProtectedModeHandler(_ event: Event) throws(DeliveryFailure) {
        let isVirtual8086 = registersNow.rflags & 1 << 17 != 0
        guard event.vector * 8 + 7 <= UInt64(special.idt.limit), !isVirtual8086 else {
            throw event.refused(CPUException.generalProtection)
        }
        let gate = try readNumber(special.idt.base &+ event.vector * 8, 8)
        let (isPresent, type, privilege) = (gate >> 47 & 1 == 1, gate >> 40 & 0x1f, Int(gate >> 45 & 3))
        guard type == 0xe || type == 0xf, !event.isSoftware || privilege >= currentRing else {
            throw event.refused(CPUException.generalProtection)
        }
        guard isPresent else { throw event.refused(CPUException.segmentNotPresent) }
        let handler = try handlerContext(
            UInt16(truncatingIfNeeded: gate >> 16), isLong: false, external: event.external)

        var frame = [event.flags(registersNow.rflags), UInt64(special.cs.selector), event.next]
        var (segment, stack) = (special.ss, registersNow.rsp)
        if handler.ring < currentRing {
            // ESP0 is at offset 4 of a TSS, and SS0 at offset 8.
            let place = 4 + UInt64(handler.ring) * 8
            stack = try readTaskState(place, 4, external: event.external)
            let selector = try readTaskState(place + 4, 2, external: event.external)
            segment = try innerStackSegment(
                UInt16(truncatingIfNeeded: selector), ring: handler.ring, external: event.external)
            frame = [UInt64(special.ss.selector), registersNow.rsp] + frame
        }
        if let code = event.code { frame.append(UInt64(code)) }
        let mask: UInt64 = segment.db != 0 ? 0xffff_ffff : 0xffff
        var top = stack & mask
        for word in frame {
            top = (top &- 4) & mask
            try push(word, 4, at: segment.base &+ top, ring: handler.ring)
        }
        registersNow.rsp = stack & ~mask | top
        registersNow.rip = gate & 0xffff | (gate >> 48) << 16
        // IF stays for a trap gate; TF, NT, RF and VM are cleared by both.
        registersNow.rflags &= ~(type == 0xe ? 0x3_4300 : 0x3_4100)
        (special.cs, special.ss) = (handler.code, segment)
        specialChanged = true
    }

    /// Pushes FLAGS, CS and IP, and continues at the handler of the vector table.
    ///
    /// - Throws: with nothing changed but the stack's memory.
    func enterRealModeHandler(_ event: Event) throws(DeliveryFailure) {
        guard event.vector * 4 + 3 <= UInt64(special.idt.limit) else {
            throw event.refused(CPUException.generalProtection)
        }
        let handler = try readNumber(special.idt.base &+ event.vector * 4, 4)
        var top = registersNow.rsp & 0xffff
        for word in [registersNow.rflags, UInt64(special.cs.selector), event.next] {
            top = (top &- 2) & 0xffff
            try push(word, 2, at: special.ss.base &+ top, ring: 0)
        }
        registersNow.rsp = registersNow.rsp & ~0xffff | top
        registersNow.rip = handler & 0xffff
        special.cs.selector = UInt16(truncatingIfNeeded: handler >> 16)
        special.cs.base = (handler >> 16) << 4
        specialChanged = true
        registersNow.rflags &= ~0x4_0300  // AC, IF, TF
    }
}
