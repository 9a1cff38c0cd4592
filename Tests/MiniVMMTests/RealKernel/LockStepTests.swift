// SPDX-License-Identifier: MIT
import CKVMShim
import SoftKVM
import SystemPackage
import Testing

@testable import MiniVMM

/// The model against the kernel: the same calls must give the same answers.
@Suite("The model and the kernel in lock-step", .serialized, .timeLimit(.minutes(120)))
struct LockStepTests {
    static let pages: UInt64 = 16

    /// One of the two backends.
    private struct Side {
        let file: any KVMGuestMemfd
        let view: (any HostMapping)?

        init(_ backend: any Backend, _ type: VMType, _ flags: GuestMemfdFlags) throws {
            let vm = try backend.createVM(type, sharedBit: nil)
            file = try vm.createGuestMemfd(size: pages * pageSize, flags: flags)
            view = flags.contains(.mmap) ? try file.map(offset: 0, length: pages * pageSize) : nil
        }
    }

    private struct Setting: Sendable, CustomTestStringConvertible {
        let type: VMType
        let flags: GuestMemfdFlags
        var testDescription: String { "\(type), flags \(flags.rawValue)" }
    }
    private static let settings = [
        Setting(type: .softwareProtected, flags: [.mmap, .initShared]),
        Setting(type: .softwareProtected, flags: [.mmap]),
        Setting(type: .softwareProtected, flags: []),
        Setting(type: .default, flags: [.mmap, .initShared]),
    ]

    private func sides(_ setting: Setting) throws -> (backend: Side, model: Side) {
        let backend = try BackendUnderTest.inPlace.required()
        return (
            try Side(backend, setting.type, setting.flags), try Side(SoftKVM(), setting.type, setting.flags)
        )
    }

    /// Every combination of valid and invalid arguments: which errno has precedence is part of the interface.
    @Test(arguments: settings) private func theValidationTable(_ setting: Setting) throws {
        let (backend, model) = try sides(setting)
        let end = Self.pages * pageSize
        let offsets: [UInt64] = [
            0, pageSize, 1, end - pageSize, end, end + pageSize, 1 << 62, .max, .max - 4095,
        ]
        let sizes: [UInt64] = [0, 1, pageSize, pageSize + 1, end, end + pageSize, 1 << 63, .max, .max - 4095]
        var calls = 0
        for offset in offsets {
            for size in sizes {
                for attributes in [0, CKVM_MEMORY_ATTRIBUTE_PRIVATE, 1, 1 << 63, .max] as [UInt64] {
                    for flags in [0, 1, 1 << 63] as [UInt64] {
                        for reserved in [0, 1] as [UInt64] {
                            var request = ckvm_memory_attributes2()
                            request.offset = offset
                            request.size = size
                            request.attributes = attributes
                            request.flags = flags
                            request.reserved.10 = reserved
                            let answers = (backend.file.refusal(of: request), model.file.refusal(of: request))
                            #expect(
                                answers.0 == answers.1,
                                "offset \(hex(offset)), size \(hex(size)), attributes \(attributes), flags \(flags)"
                            )
                            calls += 1
                        }
                    }
                }
            }
        }
        #expect(calls == 2430)
    }

    /// Random conversions, host accesses, holes and holds: the same answers, and the same contents for the host.
    @Test(arguments: [1, 2, 3] as [UInt64]) func randomCalls(seed: UInt64) throws {
        let (backend, model) = try sides(Self.settings[0])
        let views = (try #require(backend.view), try #require(model.view))
        var generator = Generator(seed: seed)
        var holds: [(any PageHold, any PageHold)] = []
        for number in 0..<2000 {
            let first = UInt64(generator.below(Int(Self.pages)))
            let count = 1 + UInt64(generator.below(Int(Self.pages - first)))
            let place = "call \(number), pages \(first) to \(first + count - 1)"
            switch generator.below(10) {
            case 0..<5:
                let state: PageState = generator.below(2) == 0 ? .private : .shared
                let request = ckvm_memory_attributes2.conversion(first * pageSize, count * pageSize, state)
                #expect(
                    backend.file.refusal(of: request) == model.file.refusal(of: request),
                    "\(place) to \(state)")
            case 5, 6:
                let word = generator.next()
                let errnos = [views.0, views.1].map { view in
                    errno { () throws in try view.putWord(first * pageSize, word) }
                }
                #expect(errnos[0] == errnos[1], "\(place), write")
            case 7:
                let errnos = [backend.file, model.file].map { file in
                    errno { () throws in
                        try file.allocate(
                            punchHole: true, offset: first * pageSize, length: count * pageSize)
                    }
                }
                #expect(errnos[0] == errnos[1], "\(place), hole")
            case 8:
                let pair = [views.0, views.1].map { try? $0.hold(at: first * pageSize, length: pageSize) }
                #expect((pair[0] == nil) == (pair[1] == nil), "\(place), hold")
                if let one = pair[0], let two = pair[1] { holds.append((one, two)) }
            default:
                while let (one, two) = holds.popLast() {
                    one.release()
                    two.release()
                }
            }
            guard number % 16 == 15 else { continue }
            let words = [views.0, views.1].map { view in
                (0..<Self.pages).map { try? view.word($0 * pageSize) }
            }
            #expect(words[0] == words[1], "after \(place)")
        }
    }

    private func errno(_ body: () throws -> Void) -> Errno? {
        do {
            try body()
            return nil
        } catch {
            return error as? Errno
        }
    }
}
