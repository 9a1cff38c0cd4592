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
        system.cr0 = special.cr0 & (Self.engineCR0 | Self.protectionEnable)
        system.cr4 = special.cr4 & Self.engineCR4
        system.segments = (
            cuc_segment(special.es), cuc_segment(special.cs), cuc_segment(special.ss),
            cuc_segment(special.ds), cuc_segment(special.fs), cuc_segment(special.gs)
        )
        system.is_long = special.isLongModeActive
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
        if system.has_segments {
            special.es = ckvm_segment(system.segments.0)
            special.cs = ckvm_segment(system.segments.1)
            special.ss = ckvm_segment(system.segments.2)
            special.ds = ckvm_segment(system.segments.3)
            special.fs = ckvm_segment(system.segments.4)
            special.gs = ckvm_segment(system.segments.5)
        } else {
            special.fs.base = system.segments.4.base
            special.gs.base = system.segments.5.base
        }
        special.gdt.base = system.gdt_base
        special.gdt.limit = UInt16(truncatingIfNeeded: system.gdt_limit)
        special.idt.base = system.idt_base
        special.idt.limit = UInt16(truncatingIfNeeded: system.idt_limit)
        special.tr.base = system.tr_base
        special.tr.limit = system.tr_limit
        special.tr.selector = system.tr_selector
    }

    /// MOV to or from CR0, CR2, CR3, CR4, CR8. Returns false for a general protection fault: a state that the CPU cannot have.
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
        let value = special.codeBits == 64 ? registersNow[general] : registersNow[general] & 0xffff_ffff
        switch number {
        case 0: new.setCR0(value)
        case 2: new.cr2 = value
        case 3: new.cr3 = value
        case 4: new.cr4 = value
        case 8: new.cr8 = value
        default: return false
        }
        guard canChange(to: new) else { return false }
        special = new
        specialChanged = true
        if number == 0 || number == 3 || number == 4 { engine.flush() }
        return true
    }

    /// LMSW: the low four bits of CR0, of which PE can only be set. Returns false for a general protection fault.
    func writeMachineStatus(_ value: UInt64, _ engine: Engine) -> Bool {
        storeSpecial()
        var new = special
        new.setCR0(special.cr0 & ~0xe | value & 0xf)
        guard canChange(to: new) else { return false }
        special = new
        specialChanged = true
        engine.flush()
        return true
    }

    /// Whether the guest may change its control registers to these. An SNP or TDX guest stays in 64-bit mode.
    private func canChange(to new: ckvm_sregs) -> Bool {
        guard new.isValid, vm.encryptionBit == nil || new.codeBits == 64 else { return false }
        let wasPaging = special.cr0 & 1 << 31 != 0
        let isPaging = new.cr0 & 1 << 31 != 0
        // Paging cannot be turned off by 64-bit code, and long mode neither entered nor left while it is on.
        if wasPaging, !isPaging, special.codeBits == 64 { return false }
        return !(wasPaging && isPaging) || special.efer & 1 << 8 == new.efer & 1 << 8
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

    /// IA32_PAT.
    private static let pageAttributeTable: UInt32 = 0x277

    /// RDMSR; nil for an MSR that this CPU does not have.
    func readMSR(_ number: UInt32) -> UInt64? {
        storeSpecial()
        return switch number {
        case 0x10: vm.model.clock
        case 0x1b: special.apic_base
        case Self.pageAttributeTable: pageAttributes
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
            // LMA follows from LME and paging.
            new.efer = value & ~(1 << 10) | special.efer & 1 << 10
            guard canChange(to: new) else { return false }
            special.efer = new.efer
            engine.flush()
        case Self.pageAttributeTable:
            // Six memory types exist. Memory is the same with each of them.
            let types: Set<UInt64> = [0, 1, 4, 5, 6, 7]
            guard (0..<8).allSatisfy({ types.contains(value >> ($0 * 8) & 0xff) }) else { return false }
            pageAttributes = value
            return true
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

extension cuc_segment {
    fileprivate init(_ segment: ckvm_segment) {
        self.init()
        base = segment.base
        limit = segment.limit
        selector = segment.selector
        var bits = UInt32(segment.type & 0xf) << 8 | UInt32(segment.s & 1) << 12
        bits |= UInt32(segment.dpl & 3) << 13 | UInt32(segment.present & 1) << 15
        bits |= UInt32(segment.avl & 1) << 20 | UInt32(segment.l & 1) << 21
        bits |= UInt32(segment.db & 1) << 22 | UInt32(segment.g & 1) << 23
        access = segment.unusable == 0 ? bits : 0
    }
}

extension ckvm_segment {
    fileprivate init(_ segment: cuc_segment) {
        self.init()
        func field(_ shift: UInt32, _ mask: UInt32 = 1) -> UInt8 { UInt8(segment.access >> shift & mask) }
        base = segment.base
        limit = segment.limit
        selector = segment.selector
        type = field(8, 0xf)
        s = field(12)
        dpl = field(13, 3)
        present = field(15)
        avl = field(20)
        l = field(21)
        db = field(22)
        g = field(23)
        unusable = segment.access == 0 ? 1 : 0
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
