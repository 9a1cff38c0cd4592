// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import MiniVMM

/// Files of every format with random changes. Each must give an error with a description, or an image that a layout accepts
/// or refuses. None may crash the process.
@Suite("Mutated images")
struct ImageMutationTests {
    /// Files for each format; ``MINIVMM_FUZZ_INPUTS`` sets another number.
    private static let count =
        ProcessInfo.processInfo.environment["MINIVMM_FUZZ_INPUTS"].flatMap { Int($0) } ?? 4000

    private static let extremes: [UInt64] = [
        0, 1, 2, 3, 7, 8, 31, 32, 52, 56, 4095, 4096, 0x7c00, 0xffff, 0x10_0000, 0x10_000c, 0x7fff_ffff,
        0x8000_0000, 0xffff_f000, 0xffff_ffff, 1 << 32, 1 << 46, 1 << 63, .max - 4095, .max,
    ]

    enum Seed: String, CaseIterable {
        case elf32, multiboot, multibootFlat, multiboot2, multiboot2Flat, pvh32, pvh64, bootSector

        var bytes: [UInt8] {
            let base = UInt64(ForeignGuest.base)
            let place = ForeignGuest.base
            let tags: [(UInt16, UInt16, [UInt32])] = [
                (1, 0, [1, 3, 6]), (5, 1, [80, 25, 0]), (4, 0, [2]), (6, 0, []),
            ]
            switch self {
            case .elf32: return ForeignGuest.elf(ForeignGuest.protected)
            case .multiboot: return ForeignGuest.elf(ForeignGuest.multibootCode(), entry: base + 12)
            case .multibootFlat: return ForeignGuest.multibootFlat(loadEnd: place + 64, zeroEnd: place + 4096)
            case .multiboot2:
                return ForeignGuest.elf(ForeignGuest.multiboot2Header(tags) + [0xf4], entry: base)
            case .multiboot2Flat:
                return ForeignGuest.multiboot2Header(
                    tags + [(2, 0, [place, place, 0, place + 0x1000]), (3, 0, [place + 8])])
            case .pvh32: return ForeignGuest.elf(ForeignGuest.pvh, note: ForeignGuest.note(entry: base))
            case .pvh64:
                return ForeignGuest.elf(
                    ForeignGuest.pvh, wide: true,
                    note: ForeignGuest.note(entry: 3, type: 5) + ForeignGuest.note(entry: base, size: 8))
            case .bootSector: return ForeignGuest.bootSector
            }
        }
    }

    private static func mutant(_ original: [UInt8], _ generator: inout Generator) -> [UInt8] {
        var bytes = original
        for _ in 0..<1 + generator.below(3) where !bytes.isEmpty {
            switch generator.below(8) {
            case 0...1: bytes[generator.below(bytes.count)] ^= 1 << UInt8(generator.below(8))
            case 2: bytes = Array(bytes.prefix(generator.below(bytes.count + 1)))
            case 3:
                bytes.insert(contentsOf: bytes.suffix(generator.below(32)), at: generator.below(bytes.count))
            default:
                var value = extremes[generator.below(extremes.count)]
                if generator.below(3) == 0 { value = value &+ UInt64(generator.below(17)) &- 8 }
                let width = [1, 2, 4, 4, 4, 8][generator.below(6)]
                let place = generator.below(min(bytes.count, 256)) & ~(width - 1)
                for index in 0..<width where place + index < bytes.count {
                    bytes[place + index] = UInt8(truncatingIfNeeded: value >> (UInt64(index) * 8))
                }
            }
        }
        // A checksum that is right lets the other fields through.
        if generator.below(2) == 0 { repairChecksums(&bytes) }
        return bytes
    }

    private static func repairChecksums(_ bytes: inout [UInt8]) {
        func word(_ place: Int) -> UInt32 {
            (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[place + $1]) }
        }
        for place in stride(from: 0, to: bytes.count - 16, by: 4) {
            switch word(place) {
            case 0x1bad_b002:
                bytes.replaceSubrange(
                    place + 8..<place + 12, with: ELFBuilder.little(0 &- word(place) &- word(place + 4)))
            case 0xe852_50d6:
                bytes.replaceSubrange(
                    place + 12..<place + 16,
                    with: ELFBuilder.little(0 &- word(place) &- word(place + 4) &- word(place + 8)))
            default: continue
            }
            return
        }
    }

    private static func options(_ generator: inout Generator) -> ImageOptions {
        var options = ImageOptions()
        guard generator.below(3) == 0 else { return options }
        options.mode = [nil, .real, .protected, .long][generator.below(4)]
        options.loadAddress = generator.below(2) == 0 ? nil : extremes[generator.below(extremes.count)]
        options.entry = generator.below(2) == 0 ? nil : extremes[generator.below(extremes.count)]
        return options
    }

    @Test(arguments: Seed.allCases) func everyFormatSurvivesMutations(_ seed: Seed) {
        var generator = Generator(seed: UInt64(seed.bytes.count))
        var refused = 0
        var booted = 0
        for _ in 0..<Self.count {
            let bytes = Self.mutant(seed.bytes, &generator)
            let ramSize: UInt64 = generator.below(4) == 0 ? 1 << 20 : 16 << 20
            do {
                var options = Self.options(&generator)
                let parsed = try BootImage.parse(bytes, options)
                #expect(!parsed.segments.isEmpty && !parsed.summary.isEmpty)
                if parsed.format.hasProtocol {
                    options.commandLine = "a b"
                    options.modules = (0..<generator.below(3)).map {
                        .init(name: "m", bytes: .init(repeating: 1, count: $0 * 5000), text: "m")
                    }
                }
                let image = try parsed.prepared(options, ramSize: ramSize)
                let layout = try GuestLayout(
                    ramSize: ramSize, vcpus: 1, sharedBit: generator.below(2) == 0 ? nil : 46,
                    gigabytePages: true, image: image)
                #expect(image.segments.allSatisfy { $0.gpa + UInt64($0.bytes.count) <= ramSize })
                #expect(image.segments.contains { $0.contains(image.entry) })
                #expect(layout.image.end <= ramSize && layout.free.upperBound <= ramSize)
                let boot = BootState(layout: layout, registersOfImage: image.registers, imageBase: image.base)
                let information = BootInformation(instruction: false, isVMCALL: false)
                #expect(
                    boot.structures(boot: information).allSatisfy { part in
                        part.gpa + UInt64(part.bytes.count) <= ramSize
                            && !image.segments.contains {
                                $0.gpa < part.gpa + UInt64(part.bytes.count) && part.gpa < $0.gpa + $0.size
                            }
                    })
                booted += 1
            } catch {
                #expect(!"\(error)".isEmpty)
                refused += 1
            }
        }
        // Both must happen, otherwise the mutations are too mild or too drastic to prove anything.
        #expect(refused > Self.count / 20 && booted > Self.count / 20, "\(refused), \(booted)")
    }
}
