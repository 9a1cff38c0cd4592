// SPDX-License-Identifier: MIT
import CKVMShim

/// The registers and tables with which a vCPU starts: ring 0, interrupts off, in the mode of the image. In 64-bit mode
/// the IDT is that of ``ExceptionTable``, in protected mode there is none.
struct BootState {
    let layout: GuestLayout
    /// Registers that differ from those below.
    var registersOfImage: [GuestRegister: UInt64] = [:]
    /// Where the stack of a real-mode guest ends.
    var imageBase: UInt64 = 0

    /// Flat 64-bit code and data descriptors, matching the hidden parts of the segment registers below.
    private static let longDescriptors: [UInt64] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]
    /// Flat 32-bit ones.
    private static let protectedDescriptors: [UInt64] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff]

    /// The tables to write into RAM besides the image.
    func structures(boot: BootInformation) -> [(gpa: UInt64, bytes: [UInt8])] {
        let information = (layout.bootInformation, boot.words(layout).littleEndianBytes)
        let data =
            (layout.hasBIOSData ? [(BIOSData.place.lowerBound, BIOSData.bytes)] : [])
            + (layout.hasVectorTable ? FirmwareTrap.structures : [])
        switch layout.mode {
        case .real: return data
        case .protected:
            return data + [(layout.gdt, Self.protectedDescriptors.littleEndianBytes), information]
        case .long:
            var first = Self.longDescriptors.littleEndianBytes
            layout.exceptions?.append(to: &first, vcpus: layout.vcpus)
            return data + [
                (layout.gdt, first), information,
                (layout.tables.start, layout.tables.words().littleEndianBytes),
            ]
        }
    }

    func registers(vcpu: Int) -> ckvm_regs {
        var registers = ckvm_regs()
        registers.rip = layout.entry
        registers.rflags = 2
        if layout.mode == .real {
            registers.rip = layout.entry & 0xffff
            // Below the image if there is room; otherwise the stack grows down from the end of the segment.
            registers.rsp = imageBase & 0xffff < 0x1000 ? 0 : imageBase & 0xffff
        } else {
            registers.rsp = layout.stackTop(vcpu)
            registers.rdi = layout.bootInformation
        }
        registers.rsi = UInt64(vcpu)
        for (name, value) in registersOfImage { registers[keyPath: name.path] = value }
        registers.rflags |= 2
        return registers
    }

    /// - Parameter reset: the state after vCPU creation, which the result is based on.
    func specialRegisters(vcpu: Int, over reset: ckvm_sregs) -> ckvm_sregs {
        switch layout.mode {
        case .real: return reset.inRealMode(segment: UInt16(layout.entry >> 4 & 0xf000))
        case .protected:
            var registers = reset.inProtectedMode()
            registers.gdt.base = layout.gdt
            registers.gdt.limit = UInt16(Self.protectedDescriptors.count * 8 - 1)
            return registers
        case .long:
            var registers = reset.inLongMode(tables: layout.tables.root)
            registers.gdt.base = layout.gdt
            registers.gdt.limit = UInt16(Self.longDescriptors.count * 8 - 1)
            layout.exceptions?.load(into: &registers, vcpu: vcpu)
            return registers
        }
    }
}

extension GuestRegister {
    fileprivate var path: WritableKeyPath<ckvm_regs, UInt64> {
        switch self {
        case .rax: \.rax
        case .rbx: \.rbx
        case .rcx: \.rcx
        case .rdx: \.rdx
        case .rsi: \.rsi
        case .rdi: \.rdi
        case .rbp: \.rbp
        case .rsp: \.rsp
        case .r8: \.r8
        case .r9: \.r9
        case .r10: \.r10
        case .r11: \.r11
        case .r12: \.r12
        case .r13: \.r13
        case .r14: \.r14
        case .r15: \.r15
        case .rflags: \.rflags
        }
    }
}

extension [UInt64] {
    /// The words as they stand in a guest's memory.
    package var littleEndianBytes: [UInt8] {
        unsafe map { $0.littleEndian }.withUnsafeBytes { unsafe [UInt8]($0) }
    }
}

extension ckvm_sregs {
    /// The state after vCPU creation, changed to 64-bit mode: ring 0, flat segments, paging on, no GDT and no IDT.
    ///
    /// - Parameter tables: guest-physical address of the 4-level page tables.
    package func inLongMode(tables: UInt64) -> ckvm_sregs {
        var registers = self
        var code = ckvm_segment()
        code.limit = 0xffff_ffff
        code.selector = 8
        code.type = 0xb
        code.present = 1
        code.s = 1
        code.l = 1
        code.g = 1
        var data = code
        data.selector = 16
        data.type = 3
        data.l = 0
        data.db = 1
        registers.cs = code
        registers.ds = data
        registers.es = data
        registers.fs = data
        registers.gs = data
        registers.ss = data
        registers.clearTables()
        registers.cr0 = 0x8001_0033  // PG, WP, NE, ET, MP, PE
        registers.cr3 = tables
        registers.cr4 = 0x620  // OSXMMEXCPT, OSFXSR, PAE
        registers.efer = 0x500  // LMA, LME
        return registers
    }
}

extension ckvm_sregs {
    /// A busy TSS of the smallest size at 0, and no LDT, GDT and IDT.
    private mutating func clearTables() {
        tr.base = 0
        tr.limit = 0x67
        tr.selector = 0
        tr.type = 0xb
        tr.present = 1
        tr.s = 0
        tr.unusable = 0
        ldt = ckvm_segment()
        ldt.unusable = 1
        gdt.base = 0
        gdt.limit = 0
        idt.base = 0
        idt.limit = 0
    }

    /// The state after vCPU creation, changed to 32-bit protected mode: ring 0, flat segments, no paging, no GDT and no IDT.
    func inProtectedMode() -> ckvm_sregs {
        var registers = inLongMode(tables: 0)
        registers.cs.l = 0
        registers.cs.db = 1
        registers.cr0 = 0x11  // ET, PE
        registers.cr4 = 0
        registers.efer = 0
        return registers
    }

    /// The state after vCPU creation, changed to real mode with the vector table at 0.
    ///
    /// - Parameter segment: the value of CS, DS, ES and SS; the others are 0.
    func inRealMode(segment: UInt16) -> ckvm_sregs {
        var registers = self
        registers.clearTables()
        var code = ckvm_segment()
        code.selector = segment
        code.base = UInt64(segment) << 4
        code.limit = 0xffff
        code.type = 0xb
        code.present = 1
        code.s = 1
        var data = code
        data.type = 3
        registers.cs = code
        (registers.ds, registers.es, registers.ss) = (data, data, data)
        data.selector = 0
        data.base = 0
        (registers.fs, registers.gs) = (data, data)
        registers.idt.limit = 0x3ff
        registers.cr0 = 0x10  // ET
        registers.cr3 = 0
        registers.cr4 = 0
        registers.efer = 0
        return registers
    }
}

/// The boot information page. guest/include/guest.h defines its layout for payloads.
struct BootInformation {
    /// The guest can call with VMMCALL or VMCALL.
    let instruction: Bool
    /// The instruction is VMCALL.
    let isVMCALL: Bool
    var vmType = VMType.softwareProtected

    func words(_ layout: GuestLayout) -> [UInt64] {
        let flags: UInt64 =
            (instruction ? 1 : 0) | (layout.sharedBit != nil ? 2 : 0) | (instruction && isVMCALL ? 4 : 0)
            | (vmType == .snp ? 8 : 0) | (vmType == .tdx ? 16 : 0)
        return [
            0x314d_4d56_494e_494d,  // "MINIVMM1"
            1 | UInt64(layout.vcpus) << 32,
            layout.ramSize,
            layout.sharedBit.map { 1 << UInt64($0) } ?? 0,
            flags,
            layout.image.start,
            layout.image.end,
            layout.free.lowerBound,
            layout.free.upperBound,
        ]
    }
}
