// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

/// Ten thousand files that are nearly executables. Each must give an error with a description, or an image that a
/// layout accepts or refuses. None may crash the process.
@Suite("Mutated executables")
struct BootImageMutationTests {
    private static let extremes: [UInt64] = [
        0, 1, 2, 3, 55, 56, 64, 120, 4095, 4096, 0x7fff, 0xffff, 0x10_0000, 0x20_0000, 0x7fff_ffff,
        0xffff_ffff, 1 << 40, 1 << 46, 1 << 62, 1 << 63, .max - 4096, .max - 55, .max - 1, .max,
    ]
    /// Offset and width of the fields of the header, and of a program header.
    private static let headerFields = [(4, 1), (5, 1), (16, 2), (18, 2), (24, 8), (32, 8), (54, 2), (56, 2)]
    private static let programFields = [(0, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8)]

    private static func mutant(_ generator: inout Generator) -> [UInt8] {
        var elf = ELFBuilder()
        elf.segments = (0..<1 + generator.below(3)).map { index in
            ELFBuilder.Segment(
                virtual: 0x20_0000 + UInt64(index) << 16,
                content: [UInt8](repeating: UInt8(index), count: 1 + generator.below(64)),
                size: UInt64(64 + generator.below(8192)))
        }
        var bytes = elf.bytes
        for _ in 0..<1 + generator.below(3) {
            switch generator.below(12) {
            case 0...3: bytes[generator.below(bytes.count)] ^= 1 << UInt8(generator.below(8))
            case 4: bytes = Array(bytes.prefix(max(64, generator.below(bytes.count + 1))))
            case 5...6:
                put(headerFields[generator.below(headerFields.count)], base: 0, &bytes, &generator)
            default:
                put(
                    programFields[generator.below(programFields.count)],
                    base: 64 + 56 * generator.below(elf.segments.count), &bytes, &generator)
            }
        }
        if generator.below(20) == 0 { bytes = Array(bytes.prefix(generator.below(bytes.count + 1))) }
        return bytes
    }

    private static func put(
        _ field: (Int, Int), base: Int, _ bytes: inout [UInt8], _ generator: inout Generator
    ) {
        var value = extremes[generator.below(extremes.count)]
        if generator.below(3) == 0 { value = value &+ UInt64(generator.below(17)) &- 8 }
        for index in 0..<field.1 where base + field.0 + index < bytes.count {
            bytes[base + field.0 + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
        }
    }

    @Test func tenThousandOfThem() {
        var generator = Generator(seed: 2026)
        var refusedByParser = 0
        var refusedByLayout = 0
        var booted = 0
        for _ in 0..<10_000 {
            let bytes = Self.mutant(&generator)
            do {
                let image = try BootImage.parse(bytes)
                #expect(!image.segments.isEmpty)
                let layout = try GuestLayout(
                    ramSize: 16 << 20, vcpus: 1, sharedBit: generator.below(2) == 0 ? nil : 46,
                    gigabytePages: true, image: image)
                // An accepted image can be written into RAM as it is.
                #expect(image.segments.allSatisfy { $0.gpa + UInt64($0.bytes.count) <= layout.ramSize })
                #expect(layout.image.end <= layout.ramSize && layout.free.upperBound <= layout.ramSize)
                booted += 1
            } catch let error as ImageError {
                #expect(!error.description.isEmpty)
                refusedByParser += 1
            } catch {
                #expect(!"\(error)".isEmpty)
                refusedByLayout += 1
            }
        }
        // All three must happen, otherwise the mutations are too mild or too drastic to prove anything.
        #expect(
            refusedByParser > 2000 && refusedByLayout > 200 && booted > 1000,
            "\(refusedByParser), \(refusedByLayout), \(booted)")
    }
}
