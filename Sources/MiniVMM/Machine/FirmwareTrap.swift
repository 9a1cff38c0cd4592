// SPDX-License-Identifier: MIT
import CKVMShim

/// The few fields of the BIOS data area that kernels read without a BIOS call: Xen places its start code by the size of memory.
enum BIOSData {
    static let place: Range<UInt64> = 0x400..<0x500

    static var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: place.count)
        func put(_ value: UInt16, at address: Int) {
            bytes[address - 0x400] = UInt8(truncatingIfNeeded: value)
            bytes[address - 0x3ff] = UInt8(value >> 8)
        }
        put(Console.serialPort, at: 0x400)  // COM1
        put(0x9fc0, at: 0x40e)  // segment of the extended data area
        put(639, at: 0x413)  // KiB of memory below it
        return bytes
    }
}

/// Makes a call of the BIOS visible, and an exception in real mode. Each vector of the table at address 0 leads to a handler of its
/// own, which writes to ``port``; the monitor finds the vector from RIP.
enum FirmwareTrap {
    static let port: UInt16 = 0xeb
    static let table: Range<UInt64> = 0..<0x400
    /// As on a PC, firmware is in the segment 0xF000.
    static let handlers: Range<UInt64> = 0xf_0000..<0xf_0400
    /// One past the last page of the handlers.
    static let end: UInt64 = 0xf_1000
    private static let segment: UInt16 = 0xf000

    /// OUT to the port, IRET, NOP: four bytes for each vector.
    private static let handler: [UInt8] = [0xe6, UInt8(port), 0xcf, 0x90]

    static var structures: [(gpa: UInt64, bytes: [UInt8])] {
        let vectors = (0..<256).flatMap { vector -> [UInt8] in
            let offset = UInt8(vector * 4 & 0xff)
            return [
                offset, UInt8(vector * 4 >> 8), UInt8(truncatingIfNeeded: segment), UInt8(segment >> 8),
            ]
        }
        return [
            (table.lowerBound, vectors),
            (handlers.lowerBound, (0..<256).flatMap { _ in handler }),
        ]
    }

    /// A vector that the guest did not set itself, with AX.
    struct Call: Sendable, Hashable {
        let vector: UInt8
        let ax: UInt16

        /// The byte to print, if the call is "teletype output" (INT 0x10, AH 0x0E), the one service of a BIOS that this
        /// machine has.
        var teletype: UInt8? {
            vector == 0x10 && ax >> 8 == 0x0e ? UInt8(truncatingIfNeeded: ax) : nil
        }
    }

    /// The call that a vCPU has just made; nil if its code is not a handler.
    static func call(_ vcpu: any KVMVCPU) -> Call? {
        guard let special = try? vcpu.specialRegisters(), let registers = try? vcpu.registers(),
            special.cr0 & 1 == 0, special.cs.selector == segment, registers.rip < 0x400
        else { return nil }
        // KVM leaves RIP at the OUT or after it.
        return Call(
            vector: UInt8(truncatingIfNeeded: registers.rip / 4),
            ax: UInt16(truncatingIfNeeded: registers.rax))
    }
}
