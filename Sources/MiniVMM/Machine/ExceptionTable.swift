// SPDX-License-Identifier: MIT
import CKVMShim

/// The IDT with which a guest starts. Its handlers report an exception to the monitor, which ends the guest.
///
/// A triple fault tells little: KVM reports neither the exception nor its address, and an AMD CPU is reset before KVM sees it.
/// A handler inside the guest knows everything, on every backend. A guest that loads its own IDT replaces these handlers.
/// They run on a stack of their own (IST1 of a TSS), so the guest's RSP may be anything. SNP and TDX guests have none, because
/// the monitor cannot see their registers.
///
/// It is in the page of the GDT:
///
///     0x040  IDT: 32 interrupt gates
///     0x240  one entry of 8 bytes for each vector: OUT, JMP
///     0x340  the part that all of them share
///     0x400  a TSS for each vCPU
///     0xc00  a stack of 64 bytes for each vCPU
struct ExceptionTable {
    /// Guest-physical address, and linear address, of the page.
    let page: UInt64

    /// The handlers write to this port.
    static let port: UInt16 = 0xea
    private static let vectors: UInt64 = 32
    private var table: UInt64 { page + 0x40 }
    private var entries: UInt64 { page + 0x240 }
    private static let entrySize: UInt64 = 8
    private var shared: UInt64 { page + 0x340 }
    private var states: UInt64 { page + 0x400 }
    private static let stateSize: UInt64 = 0x68
    private var stacks: UInt64 { page + 0xc00 }
    private static let stackSize: UInt64 = 0x40
    /// The selector of the code segment in the GDT with which a guest starts.
    private static let codeSelector: UInt64 = 8

    /// The shared part. It loads the frame and CR2, and then writes the bytes at the address in RBX one by one.
    private static let code: [UInt8] = [
        0x58,  // pop rax: error code, or RIP if there is none
        0x5b,  // pop rbx: RIP or CS
        0x59,  // pop rcx: CS or RFLAGS
        0x5a,  // pop rdx: RFLAGS or RSP
        0x5e,  // pop rsi: RSP or SS
        0x5f,  // pop rdi: SS
        0x41, 0x0f, 0x20, 0xd0,  // mov r8, cr2
        0xe6, 0xea,  // out 0xea, al: the monitor sets RBX to RIP
        0x8a, 0x03,  // mov al, [rbx]
        0xe6, 0xea,  // out 0xea, al
        0x48, 0xff, 0xc3,  // inc rbx
        0xeb, 0xf7,  // jmp to mov al, [rbx]
    ]

    /// Writes the table into the page of the GDT, so that booting takes no further call.
    ///
    /// - Parameter start: the first bytes of the page, up to the IDT at most.
    func append(to start: inout [UInt8], vcpus: Int) {
        var gates: [UInt64] = []
        var stubs: [UInt8] = []
        for vector in 0..<Self.vectors {
            let entry = entries + vector * Self.entrySize
            let presentInterruptGate: UInt64 = 0x8e
            gates.append(
                entry & 0xffff | Self.codeSelector << 16 | 1 << 32 | presentInterruptGate << 40
                    | (entry >> 16 & 0xffff) << 48)
            gates.append(entry >> 32)
            // out 0xea, al; jmp to the shared part; nop
            let distance = UInt32(truncatingIfNeeded: shared &- (entry + 7))
            stubs += [0xe6, UInt8(Self.port), 0xe9]
            stubs += (0..<4).map { UInt8(truncatingIfNeeded: distance >> ($0 * 8)) } + [0x90]
        }
        func put(_ bytes: [UInt8], at gpa: UInt64) {
            start += [UInt8](repeating: 0, count: max(0, Int(gpa - page) - start.count)) + bytes
        }
        put(gates.littleEndianBytes, at: table)
        put(stubs, at: entries)
        put(Self.code, at: shared)
        for vcpu in 0..<UInt64(vcpus) {
            var state = [UInt8](repeating: 0, count: Int(Self.stateSize))
            let ist1 = 36
            let top = stacks + (vcpu + 1) * Self.stackSize
            for index in 0..<8 { state[ist1 + index] = UInt8(truncatingIfNeeded: top >> (index * 8)) }
            // No bitmap of ports: it would begin at the limit of the TSS.
            state[102] = UInt8(Self.stateSize)
            put(state, at: states + vcpu * Self.stateSize)
        }
    }

    /// Loads the table's IDT and TSS into the registers of a vCPU.
    func load(into registers: inout ckvm_sregs, vcpu: Int) {
        registers.idt.base = table
        registers.idt.limit = UInt16(Self.vectors * 16 - 1)
        registers.tr.base = states + UInt64(vcpu) * Self.stateSize
        registers.tr.limit = UInt32(Self.stateSize - 1)
    }

    /// The part of the handlers that RIP is in after one of their OUTs. KVM leaves RIP at the OUT or behind it.
    enum Place: Equatable {
        case entry(vector: UInt8)
        /// Registers hold the frame.
        case frame
        /// AL holds a byte of the instruction.
        case byte
    }

    /// - Returns: nil outside the handlers.
    func place(_ rip: UInt64) -> Place? {
        if rip >= entries, rip < entries + Self.vectors * Self.entrySize {
            return .entry(vector: UInt8((rip - entries) / Self.entrySize))
        }
        guard rip >= shared, rip < shared + UInt64(Self.code.count) else { return nil }
        return rip - shared <= 12 ? .frame : .byte
    }
}
