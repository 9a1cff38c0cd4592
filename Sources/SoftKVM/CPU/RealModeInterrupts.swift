// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Interrupts and exceptions in real mode: INT n and faults, through the interrupt vector table at the base of IDTR. In
// protected mode and in long mode every exception is a triple fault (KVM_EXIT_SHUTDOWN), except those of SNP and TDX guests
// (Exceptions.swift).
extension SoftVCPU {
    /// The engine has stopped before or at an instruction that raises this vector.
    func exception(_ vector: UInt32) -> Step {
        guard special.cr0 & 1 == 0, special.codeBits == 16 else { return shutdown() }
        // INT3, INT n, INTO and INT1 return to the next instruction, faults to the instruction itself.
        let code = codeAtRIP()
        let length: UInt64
        switch code.first {
        case 0xcc, 0xce, 0xf1: length = 1
        case 0xcd: length = 2
        default: length = 0
        }
        return enterRealModeHandler(UInt64(vector & 0xff), returningTo: registersNow.rip &+ length)
    }

    /// Pushes FLAGS, CS and IP, and continues at the handler.
    private func enterRealModeHandler(_ vector: UInt64, returningTo next: UInt64) -> Step {
        guard vector * 4 + 3 <= UInt64(special.idt.limit) else { return shutdown() }
        let entry = special.idt.base &+ vector * 4
        guard let offset = readHalf(entry), let segment = readHalf(entry &+ 2) else { return shutdown() }
        var top = registersNow.rsp & 0xffff
        for word in [registersNow.rflags, UInt64(special.cs.selector), next] {
            top = (top &- 2) & 0xffff
            guard writeHalf(special.ss.base &+ top, UInt16(truncatingIfNeeded: word)) else {
                return shutdown()
            }
        }
        registersNow.rsp = registersNow.rsp & ~0xffff | top
        registersNow.rip = UInt64(offset)
        special.cs.selector = segment
        special.cs.base = UInt64(segment) << 4
        specialChanged = true
        registersNow.rflags &= ~0x4_0300  // AC, IF, TF
        return .proceed
    }

    /// Two bytes; nil if the guest could not read them without an exit.
    private func readHalf(_ linear: UInt64) -> UInt16? {
        var value: UInt16 = 0
        for index in 0..<2 as Range<UInt64> {
            guard let byte = unsafe byteAddress(linear &+ index, isWrite: false) else { return nil }
            value |= UInt16(unsafe byte.load(as: UInt8.self)) << (index * 8)
        }
        return value
    }

    private func writeHalf(_ linear: UInt64, _ value: UInt16) -> Bool {
        for index in 0..<2 as Range<UInt64> {
            guard let byte = unsafe byteAddress(linear &+ index, isWrite: true) else { return false }
            unsafe byte.storeBytes(of: UInt8(truncatingIfNeeded: value >> (index * 8)), as: UInt8.self)
        }
        return true
    }

    private func byteAddress(_ linear: UInt64, isWrite: Bool) -> UnsafeMutableRawPointer? {
        let address = linear & 0xffff_ffff
        guard case .memory(let backing) = vm.resolve(address, isWrite: isWrite), !backing.isCiphertext,
            !(isWrite && backing.isReadOnly)
        else { return nil }
        _ = vm.model.kernel.noteGuestTouch(vm.number, at: address, isWrite: isWrite)
        if isWrite { vm.model.kernel.noteGuestWrite(vm.number, at: address) }
        return unsafe vm.bytes(in: backing, at: address)
    }
}
