// SPDX-License-Identifier: MIT
import CUnicornShim
import SoftKVM
import Testing

/// Decodes the instructions that the CPU process must not execute and the monitor emulates.
struct DecoderTests {
    private func decode(_ bytes: [UInt8], bits: UInt32 = 64) -> cuc_instruction {
        cuc_decode(bytes, UInt32(bytes.count), bits)
    }

    private static let kinds: [([UInt8], cuc_instruction_kind)] = [
        ([0xe4, 0x10], CUC_INSTRUCTION_IN), ([0xed], CUC_INSTRUCTION_IN),
        ([0xe7, 0xe8], CUC_INSTRUCTION_OUT),
        ([0xee], CUC_INSTRUCTION_OUT), ([0xf3, 0x6c], CUC_INSTRUCTION_INS), ([0x6f], CUC_INSTRUCTION_OUTS),
        ([0xf4], CUC_INSTRUCTION_HALT), ([0x0f, 0x01, 0xc1], CUC_INSTRUCTION_HYPERCALL),
        ([0x0f, 0x01, 0xd9], CUC_INSTRUCTION_HYPERCALL), ([0x0f, 0x20, 0xd8], CUC_INSTRUCTION_READ_CONTROL),
        ([0x44, 0x0f, 0x22, 0xc1], CUC_INSTRUCTION_WRITE_CONTROL),
        ([0x0f, 0x21, 0xc1], CUC_INSTRUCTION_READ_DEBUG),
        ([0x0f, 0x23, 0xfb], CUC_INSTRUCTION_WRITE_DEBUG), ([0x0f, 0x30], CUC_INSTRUCTION_WRITE_MSR),
        ([0x0f, 0x31], CUC_INSTRUCTION_READ_TIME), ([0x0f, 0x32], CUC_INSTRUCTION_READ_MSR),
        ([0x0f, 0x01, 0xf8], CUC_INSTRUCTION_SWAP_GS),
        ([0x0f, 0x01, 0xf9], CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR), ([0x0f, 0xa2], CUC_INSTRUCTION_CPUID),
        ([0x0f, 0x01, 0x3e], CUC_INSTRUCTION_INVALIDATE_PAGE),
        ([0x0f, 0x01, 0x7c, 0x24, 0x08], CUC_INSTRUCTION_INVALIDATE_PAGE),
        ([0x43, 0x0f, 0x01, 0xbc, 0x88, 0, 1, 0, 0], CUC_INSTRUCTION_INVALIDATE_PAGE),
    ]

    @Test func kindsAndLengthsAreDecoded() {
        for (bytes, kind) in Self.kinds {
            // Prefixes without effect, and the bytes of the following instructions.
            for prefix: [UInt8] in [[], [0x2e], [0x66, 0x67], [0x48, 0x2e]] {
                let decoded = decode(prefix + bytes + [0x90, 0xf4])
                #expect(decoded.kind == kind, "\(prefix + bytes)")
                #expect(Int(decoded.length) == prefix.count + bytes.count, "\(prefix + bytes)")
            }
        }
    }

    @Test func incompleteInstructionsHaveNoLength() {
        for (bytes, _) in Self.kinds {
            for length in 0..<bytes.count {
                #expect(decode(Array(bytes.prefix(length))).length == 0, "\(bytes) cut at \(length)")
            }
        }
    }

    @Test func operandsAreDecoded() {
        let port = decode([0x66, 0xe5, 0xf4])
        #expect(port.has_port && port.port == 0xf4 && port.size == 2)
        let string = decode([0xf2, 0x67, 0x65, 0x6e])
        #expect(!string.has_port && string.size == 1 && string.is_repeated && string.address_size == 4)
        #expect(string.segment == 0x65)
        let move = decode([0x45, 0x0f, 0x22, 0xc1])  // mov cr8, r9
        #expect(move.number == 8 && move.general == 9)
        // A REX prefix counts only as the last prefix.
        let other = decode([0x45, 0x66, 0x0f, 0x22, 0xc1])
        #expect(other.number == 0 && other.general == 1)
    }

    /// In 16-bit and 32-bit code the sizes have other defaults, every segment prefix counts, and there is no REX.
    @Test func sizesDependOnTheCodeSegment() {
        for (bits, bytes, size, addresses) in [
            (64, [0x6f], 4, 8), (64, [0x66, 0x67, 0x6f], 2, 4), (32, [0x6f], 4, 4),
            (32, [0x66, 0x67, 0x6f], 2, 2), (16, [0x6f], 2, 2), (16, [0x66, 0x67, 0x6f], 4, 4),
            (16, [0x6e], 1, 2),
        ] as [(UInt32, [UInt8], UInt8, UInt8)] {
            let string = decode(bytes, bits: bits)
            #expect(
                string.size == size && string.address_size == addresses && string.length == bytes.count,
                "\(bits) bits: \(bytes)")
        }
        #expect(decode([0x2e, 0x6e], bits: 16).segment == 0x2e && decode([0x2e, 0x6e]).segment == 0)
        #expect(decode([0x40, 0xf4]).kind == CUC_INSTRUCTION_HALT)
        #expect(decode([0x40, 0xf4], bits: 32).kind == CUC_INSTRUCTION_NONE)
        // invlpg [0x1234], with an address of 16 bits and of 32 bits
        #expect(decode([0x0f, 0x01, 0x3e, 0x34, 0x12], bits: 16).length == 5)
        #expect(decode([0x0f, 0x01, 0x3d, 0x34, 0x12, 0, 0], bits: 32).length == 7)
        let status = decode([0x0f, 0x01, 0xf3])  // lmsw bx
        #expect(status.kind == CUC_INSTRUCTION_WRITE_MACHINE_STATUS && status.general == 3)
    }

    @Test(
        arguments: [
            [0x0f, 0x05], [0x0f, 0x07], [0x0f, 0x33], [0x0f, 0x34], [0x0f, 0x35], [0x0f, 0x01, 0xc8],
            [0x0f, 0x01, 0xc9], [0x0f, 0x01, 0x30], [0x0f, 0xc7, 0xf0],
            [0x0f, 0xc7, 0xf9],
        ] as [[UInt8]])
    func instructionsMissingOnThisCPUAreAbsent(bytes: [UInt8]) {
        #expect(decode(bytes).kind == CUC_INSTRUCTION_ABSENT)
    }

    @Test(
        arguments: [
            [], [0x90], [0x66], [0x48, 0x89, 0x0b], [0x0f], [0x0f, 0x01], [0x0f, 0x01, 0x10],
            [0x0f, 0xc7, 0x0e], [0x0f, 0x28, 0x06], [0xcc], [0xf1], [0xf0, 0xff, 0x00],
        ] as [[UInt8]])
    func otherInstructionsAreLeftToTheEngine(bytes: [UInt8]) {
        #expect(decode(bytes).kind == CUC_INSTRUCTION_NONE)
    }

    @Test func randomBytesAreDecodedConsistently() {
        var random = SplitMix64(seed: 1)
        for _ in 0..<100_000 {
            let bytes = (0..<random.next() % 16).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            let decoded = decode(bytes)
            #expect(Int(decoded.length) <= bytes.count)
            #expect(decoded.kind != CUC_INSTRUCTION_NONE || decoded.length == 0)
        }
    }
}
