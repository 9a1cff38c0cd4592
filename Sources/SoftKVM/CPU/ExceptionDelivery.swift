// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Exceptions and INT n are delivered through the guest's own table: the IDT of 64-bit mode here, that of protected mode and the
// vector table of real mode in LegacyHandlers.swift. The engine only reports them. An exception that cannot be delivered ends the
// run with KVM_EXIT_SHUTDOWN.
extension SoftVCPU {
    /// #GP(0).
    func generalProtection() -> Step { raise(CPUException(CPUException.generalProtection)) }
    /// #UD.
    func invalidOpcode() -> Step { raise(CPUException(CPUException.invalidOpcode)) }

    /// Delivers an exception or a software interrupt that the engine has reported.
    ///
    /// The engine takes a second #DE or #GP for a double fault, and a third one for a triple fault, because it never learns that
    /// the first was delivered here. Delivery never happens in the engine, so such a report is the exception itself. The engine
    /// reports no error code. It is 0 here, which is wrong for a selector that cannot be loaded.
    func raiseFromEngine(_ number: UInt32) -> Step {
        let code = codeAtRIP()
        if let length = Self.softwareInterrupt(code, number) { return interrupt(number, length) }
        guard number != CPUException.doubleFault else {
            return raise(
                CPUException(
                    Self.isDivision(code) ? CPUException.divideError : CPUException.generalProtection))
        }
        return number < 32 ? raise(CPUException(UInt8(number))) : generalProtection()
    }

    /// INT n, INT3, INTO and INT1. Returns the length of the instruction, or nil if the exception has another cause.
    private static func softwareInterrupt(_ code: [UInt8], _ number: UInt32) -> UInt64? {
        switch (code.first, number) {
        case (0xcc, 3), (0xce, 4), (0xf1, 1): 1
        case (0xcd, _) where code.count > 1 && number == code[1]: 2
        default: nil
        }
    }

    /// DIV and IDIV: F6 and F7 with /6 and /7.
    private static func isDivision(_ code: [UInt8]) -> Bool {
        let prefixes: Set<UInt8> = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3]
        var rest = code.drop { prefixes.contains($0) }
        if let rex = rest.first, rex & 0xf0 == 0x40 { rest = rest.dropFirst() }
        guard let opcode = rest.first, opcode & 0xfe == 0xf6, let operand = rest.dropFirst().first else {
            return false
        }
        return operand >> 3 & 6 == 6
    }

    /// A software interrupt returns to the next instruction and has no error code. Without a gate it is #GP with the gate's
    /// selector.
    private func interrupt(_ number: UInt32, _ length: UInt64) -> Step {
        if enterHandler(UInt64(number), returningTo: registersNow.rip &+ length, code: nil, isSoftware: true)
        {
            return .proceed
        }
        let isInterruptTable: UInt32 = 2
        return raise(CPUException(CPUException.generalProtection, errorCode: number << 3 | isInterruptTable))
    }

    /// Enters the guest's handler of an exception. The run ends if the guest has none, or if its frame cannot be written; no
    /// double fault is delivered then.
    func raise(_ exception: CPUException) -> Step {
        let isEntered = enterHandler(
            UInt64(exception.vector), returningTo: registersNow.rip, code: exception.errorCode,
            isSoftware: false)
        return isEntered ? .proceed : shutdown(exception)
    }

    private func enterHandler(
        _ vector: UInt64, returningTo next: UInt64, code: UInt32?, isSoftware: Bool
    ) -> Bool {
        storeSpecial()
        if special.cr0 & 1 == 0 { return enterRealModeHandler(vector, returningTo: next) }
        guard special.isLongModeActive else {
            return enterProtectedModeHandler(vector, returningTo: next, code: code, isSoftware: isSoftware)
        }
        guard let gate = gate(vector), !isSoftware || gate.privilege >= currentRing else { return false }
        return enter(gate, returningTo: next, code)
    }

    /// An interrupt or trap gate of the IDT.
    private struct Gate {
        let handler: UInt64
        /// The number of the stack in the TSS; 0 for the current one.
        let stack: UInt64
        let isInterruptGate: Bool
        /// The ring from which INT n may use it.
        let privilege: Int
    }

    /// Exceptions in ring 3 and in compatibility mode are not supported: the run ends.
    private func gate(_ vector: UInt64) -> Gate? {
        let offset = vector * 16
        guard currentRing == 0, special.codeBits == 64, offset + 15 <= UInt64(special.idt.limit),
            let low = readBytes(special.idt.base &+ offset, 8),
            let high = readBytes(special.idt.base &+ offset &+ 8, 8)
        else { return nil }
        let (isPresent, type) = (low >> 47 & 1 == 1, low >> 40 & 0xf)
        guard isPresent, type == 0xe || type == 0xf else { return nil }
        return Gate(
            handler: low & 0xffff | (low >> 48) << 16 | high << 32, stack: low >> 32 & 7,
            isInterruptGate: type == 0xe, privilege: Int(low >> 45 & 3))
    }

    /// - Returns: false, with nothing changed but the stack's memory, if the frame cannot be written.
    private func enter(_ gate: Gate, returningTo next: UInt64, _ code: UInt32?) -> Bool {
        var frame = [
            UInt64(special.ss.selector), registersNow.rsp, registersNow.rflags, UInt64(special.cs.selector),
            next,
        ]
        if let code { frame.append(UInt64(code)) }
        var stack = registersNow.rsp
        if gate.stack > 0 {
            // IST1 is at offset 36 of a 64-bit TSS.
            let offset = 28 + gate.stack * 8
            guard offset + 7 <= UInt64(special.tr.limit),
                let top = readBytes(special.tr.base &+ offset, 8)
            else { return false }
            stack = top
        }
        var top = stack & ~0xf
        for word in frame {
            top &-= 8
            guard writeBytes(top, word, 8) else { return false }
        }
        registersNow.rsp = top
        registersNow.rip = gate.handler
        // IF stays for a trap gate; TF, NT and RF are cleared by both.
        registersNow.rflags &= ~(gate.isInterruptGate ? 0x1_4300 : 0x1_4100)
        return true
    }

    // MARK: the guest's memory, in ring 0

    /// A little-endian number of `count` bytes, at most 8; nil if the guest could not read them without an exit or an exception.
    func readBytes(_ linear: UInt64, _ count: UInt64) -> UInt64? {
        var word: UInt64 = 0
        for index in 0..<count {
            guard let byte = unsafe byteAddress(linear &+ index, isWrite: false) else { return nil }
            word |= unsafe UInt64(byte.load(as: UInt8.self)) << (index * 8)
        }
        return word
    }

    /// - Returns: false if the guest could not write the bytes; some of them may have been written.
    func writeBytes(_ linear: UInt64, _ value: UInt64, _ count: UInt64) -> Bool {
        for index in 0..<count {
            guard let byte = unsafe byteAddress(linear &+ index, isWrite: true) else { return false }
            unsafe byte.storeBytes(of: UInt8(truncatingIfNeeded: value >> (index * 8)), as: UInt8.self)
        }
        return true
    }

    private func byteAddress(_ linear: UInt64, isWrite: Bool) -> UnsafeMutableRawPointer? {
        let linear = special.isLongModeActive ? linear : linear & 0xffff_ffff
        let kind = AccessKind(isWrite: isWrite, isFetch: false, isUser: false)
        guard let leaf = try? vm.walk(linear, kind, special) else { return nil }
        let address = leaf.gpa + (linear - leaf.linear)
        guard case .memory(let backing) = vm.resolve(address, isWrite: isWrite), !backing.isCiphertext,
            !(isWrite && backing.isReadOnly)
        else { return nil }
        _ = vm.model.kernel.noteGuestTouch(vm.number, at: address, isWrite: isWrite)
        if isWrite { vm.model.kernel.noteGuestWrite(vm.number, at: address) }
        return unsafe vm.bytes(in: backing, at: address)
    }
}
