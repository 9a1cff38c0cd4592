// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

// Control registers and MSRs. Their values are kept here; the engine gets only the bits that change how it
// executes.
extension SoftVCPU {
    private static let protectionEnable: UInt64 = 1
    /// MP, EM, TS, NE: used by x87 and SSE instructions.
    private static let engineCR0: UInt64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5
    /// OSFXSR and OSXMMEXCPT: SSE.
    private static let engineCR4: UInt64 = 1 << 9 | 1 << 10

    func loadSpecial(into engine: Engine) {
        var system = cuc_system_registers()
        system.cr0 = special.cr0 & Self.engineCR0 | Self.protectionEnable
        system.cr4 = special.cr4 & Self.engineCR4
        system.fs_base = special.fs.base
        system.gs_base = special.gs.base
        system.gdt_base = special.gdt.base
        system.gdt_limit = UInt32(special.gdt.limit)
        system.idt_base = special.idt.base
        system.idt_limit = UInt32(special.idt.limit)
        system.tr_base = special.tr.base
        system.tr_limit = special.tr.limit
        system.tr_selector = special.tr.selector
        unsafe cuc_write_system(engine.cpu, &system)
        specialChanged = false
    }

    /// Reads back the registers that the guest can change without leaving the engine.
    func storeSpecial() {
        guard let engine, !specialChanged else { return }
        var system = cuc_system_registers()
        unsafe cuc_read_system(engine.cpu, &system)
        special.cr0 = special.cr0 & ~Self.engineCR0 | system.cr0 & Self.engineCR0
        special.fs.base = system.fs_base
        special.gs.base = system.gs_base
        special.gdt.base = system.gdt_base
        special.gdt.limit = UInt16(truncatingIfNeeded: system.gdt_limit)
        special.idt.base = system.idt_base
        special.idt.limit = UInt16(truncatingIfNeeded: system.idt_limit)
        special.tr.base = system.tr_base
        special.tr.limit = system.tr_limit
        special.tr.selector = system.tr_selector
    }

    /// MOV to or from CR0, CR2, CR3, CR4, CR8. Returns false for a general protection fault: a value that would leave
    /// 64-bit mode.
    func moveControlRegister(isWrite: Bool, number: Int, general: Int, _ engine: Engine) -> Bool {
        storeSpecial()
        guard isWrite else {
            switch number {
            case 0: registersNow[general] = special.cr0
            case 2: registersNow[general] = special.cr2
            case 3: registersNow[general] = special.cr3
            case 4: registersNow[general] = special.cr4
            case 8: registersNow[general] = special.cr8
            default: return false
            }
            return true
        }
        var new = special
        let value = registersNow[general]
        switch number {
        case 0: new.cr0 = value
        case 2: new.cr2 = value
        case 3: new.cr3 = value
        case 4: new.cr4 = value
        case 8: new.cr8 = value
        default: return false
        }
        guard new.isLongMode else { return false }
        special = new
        specialChanged = true
        if number == 0 || number == 3 || number == 4 { engine.flush() }
        return true
    }

    /// The debug register that an instruction names: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. Nil for #UD: no such
    /// register.
    func debugRegister(_ number: Int) -> Int? {
        let debuggingExtensions: UInt64 = 1 << 3
        switch number {
        case 4, 5: return special.cr4 & debuggingExtensions == 0 ? number + 2 : nil
        case 0..<8: return number
        default: return nil
        }
    }

    /// MOV to or from a debug register. Returns false for a general protection fault: reserved bits that are set.
    func moveDebugRegister(isWrite: Bool, number: Int, general: Int) -> Bool {
        if isWrite {
            let value = registersNow[general]
            guard number < 4 || value >> 32 == 0 else { return false }
            debugRegisters.set(number, to: value)
        } else {
            registersNow[general] = debugRegisters[number]
        }
        return true
    }

    /// RDMSR; nil for an MSR that this CPU does not have.
    func readMSR(_ number: UInt32) -> UInt64? {
        storeSpecial()
        return switch number {
        case 0x10: vm.model.clock
        case 0x1b: special.apic_base
        case 0xc000_0080: special.efer
        case 0xc000_0100: special.fs.base
        case 0xc000_0101: special.gs.base
        case 0xc000_0102: kernelGSBase
        // SEV_STATUS: SEV, SEV-ES and SNP.
        case 0xc001_0131 where vm.type == .snp: 0b111
        case Self.ghcbMSR where vm.type == .snp: ghcb
        default: nil
        }
    }

    /// WRMSR. Returns false for a general protection fault.
    func writeMSR(_ number: UInt32, _ value: UInt64, _ engine: Engine) -> Bool {
        storeSpecial()
        switch number {
        case 0xc000_0080:
            var new = special
            new.efer = value
            guard new.isLongMode else { return false }
            special.efer = value
            engine.flush()
        case 0xc000_0100: special.fs.base = value
        case 0xc000_0101: special.gs.base = value
        case 0xc000_0102: kernelGSBase = value
        case Self.ghcbMSR where vm.type == .snp:
            ghcb = value
            return true
        default: return false
        }
        specialChanged = true
        return true
    }
}

/// The debug registers of the guest.
struct DebugRegisters {
    private var values: [UInt64] = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400]

    subscript(number: Int) -> UInt64 { values[number & 7] }

    /// Fixed bits are kept.
    mutating func set(_ number: Int, to value: UInt64) {
        values[number & 7] =
            switch number {
            case 6: value & 0xe00f | 0xffff_0ff0
            case 7: value & 0xffff_2bff | 0x400
            default: value
            }
    }
}

extension ckvm_regs {
    /// A general register by its number in instruction encodings.
    subscript(number: Int) -> UInt64 {
        get { self[keyPath: Self.byNumber[number & 15]] }
        set { self[keyPath: Self.byNumber[number & 15]] = newValue }
    }

    private static let byNumber: [WritableKeyPath<ckvm_regs, UInt64> & Sendable] = [
        \.rax, \.rcx, \.rdx, \.rbx, \.rsp, \.rbp, \.rsi, \.rdi, \.r8, \.r9, \.r10, \.r11, \.r12, \.r13, \.r14,
        \.r15,
    ]
}
