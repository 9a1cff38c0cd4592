// SPDX-License-Identifier: MIT
import CKVMShim

/// The registers and tables with which a vCPU starts: 64-bit mode, ring 0, paging on, and the IDT of ``ExceptionTable``.
struct BootState {
    let layout: GuestLayout

    /// Flat 64-bit code and data descriptors, matching the hidden parts of the segment registers below.
    private static let descriptors: [UInt64] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]

    /// The tables to write into RAM besides the image.
    func structures(boot: BootInformation) -> [(gpa: UInt64, bytes: [UInt8])] {
        var first = Self.descriptors.littleEndianBytes
        if layout.hasExceptionTable { ExceptionTable.append(to: &first, vcpus: layout.vcpus) }
        return [
            (GuestLayout.gdt, first),
            (GuestLayout.bootInformation, boot.words(layout).littleEndianBytes),
            (layout.tables.start, layout.tables.words().littleEndianBytes),
        ]
    }

    func registers(vcpu: Int) -> ckvm_regs {
        var registers = ckvm_regs()
        registers.rip = layout.entry
        registers.rflags = 2
        registers.rsp = layout.stackTop(vcpu)
        registers.rdi = GuestLayout.bootInformation
        registers.rsi = UInt64(vcpu)
        return registers
    }

    /// - Parameter reset: the state after vCPU creation, which the result is based on.
    func specialRegisters(vcpu: Int, over reset: ckvm_sregs) -> ckvm_sregs {
        var registers = reset.inLongMode(tables: layout.tables.root)
        registers.gdt.base = GuestLayout.gdt
        registers.gdt.limit = UInt16(Self.descriptors.count * 8 - 1)
        if layout.hasExceptionTable { ExceptionTable.load(into: &registers, vcpu: vcpu) }
        return registers
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
        registers.tr.base = 0
        registers.tr.limit = 0x67
        registers.tr.selector = 0
        registers.tr.type = 0xb
        registers.tr.present = 1
        registers.tr.s = 0
        registers.tr.unusable = 0
        registers.ldt = ckvm_segment()
        registers.ldt.unusable = 1
        registers.gdt.base = 0
        registers.gdt.limit = 0
        registers.idt.base = 0
        registers.idt.limit = 0
        registers.cr0 = 0x8001_0033  // PG, WP, NE, ET, MP, PE
        registers.cr3 = tables
        registers.cr4 = 0x620  // OSXMMEXCPT, OSFXSR, PAE
        registers.efer = 0x500  // LMA, LME
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
