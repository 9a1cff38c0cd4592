// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import SystemPackage
import Testing

@testable import MiniVMM

/// Conversion in place, tested from the guest and the host. The same test body runs on a kernel that has the ioctl and
/// on SoftKVM.
@Suite("Conversion in place", .serialized, .timeLimit(.minutes(120)))
struct InPlaceTests {
    static let backends = BackendUnderTest.asked(of: [.inPlace, .software])

    /// Guest and host write markers and read each other's, before and after conversions in both directions: it stays
    /// the same page.
    @Test(arguments: backends) func guestAndHostHaveTheSamePage(on backend: BackendUnderTest) throws {
        let guest = try PlainGuest(
            [
                0x48, 0x8b, 0x1e,  // mov rbx, [rsi]
                0x48, 0x89, 0x07,  // mov [rdi], rax
                0xe6, 0xf4,  // out 0xf4, al
            ], on: backend.required())
        let page = PlainGuest.data
        func exchange(reading: UInt64, writing: UInt64, _ value: UInt64) throws -> UInt64 {
            try guest.prepare {
                $0.rsi = page + reading
                $0.rdi = page + writing
                $0.rax = value
            }
            let (_, stray) = guest.finish()
            #expect(stray == nil, "\(String(describing: stray))")
            return try guest.vcpus[0].registers().rbx
        }
        try guest.view.putWord(page, 0xa1)
        #expect(try exchange(reading: 0, writing: 8, 0xb1) == 0xa1)
        #expect(try guest.view.word(page + 8) == 0xb1)

        try guest.file.convert(page, to: .private)
        #expect(throws: Errno.badAddress) { try guest.view.word(page) }
        #expect(throws: Errno.badAddress) { try guest.view.putWord(page, 0) }
        #expect(try exchange(reading: 0, writing: 16, 0xb2) == 0xa1)
        #expect(try exchange(reading: 8, writing: 24, 0xb3) == 0xb1)

        try guest.file.convert(page, to: .shared)
        #expect(try [0, 8, 16, 24].map { try guest.view.word(page + $0) } == [0xa1, 0xb1, 0xb2, 0xb3])
        try guest.view.putWord(page, 0xa2)
        #expect(try exchange(reading: 0, writing: 8, 0xb4) == 0xa2)
        #expect(try guest.view.word(page + 8) == 0xb4)
    }

    /// Four vCPUs count in eight pages that the host keeps converting. No count is lost.
    @Test(arguments: backends) func noByteIsLostUnderRunningVCPUs(on backend: BackendUnderTest) throws {
        let conversions = backend == .inPlace ? 100_000 : 1_000
        let pages: UInt64 = 8
        let guest = try PlainGuest(
            [
                0x48, 0x89, 0xf3,  // again: mov rbx, rsi
                0xb9, 0x08, 0x00, 0x00, 0x00,  // mov ecx, 8
                0x48, 0xff, 0x04, 0xfb,  // next: inc qword [rbx + rdi * 8]
                0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00,  // add rbx, 4096
                0xff, 0xc9,  // dec ecx
                0x75, 0xf1,  // jnz next
                0x49, 0xff, 0xc0,  // inc r8
                0x49, 0x83, 0x39, 0x00,  // cmp qword [r9], 0
                0x74, 0xe0,  // jz again
                0xe6, 0xf4,  // out 0xf4, al
            ], vcpus: 4, on: backend.required())
        for id in guest.vcpus.indices {
            try guest.prepare(id) {
                $0.rsi = PlainGuest.data
                $0.rdi = UInt64(id)
                $0.r9 = PlainGuest.mailbox
            }
        }
        let results = Collected<(faults: Int, stray: Exit?)>()
        let threads = TrapThreads()
        let lanes =
            guest.backend.runsVCPUsInTurns ? [Array(guest.vcpus.indices)] : guest.vcpus.indices.map { [$0] }
        for lane in lanes { threads.start { for id in lane { results.add(guest.finish(id)) } } }

        var generator = Generator(seed: 1)
        var busy = 0
        for number in 0..<conversions {
            let first = generator.next() % pages
            let count = 1 + generator.next() % (pages - first)
            var request = ckvm_memory_attributes2.conversion(
                PlainGuest.data + first * pageSize, count * pageSize, number % 2 == 0 ? .private : .shared)
            do throws(Errno) {
                try guest.file.setMemoryAttributes2(&request)
            } catch {
                // No page is held: an access of a vCPU must not be taken for a reference (hazard H2).
                #expect(error == .resourceTemporarilyUnavailable)
                busy += 1
            }
            // On one processor the threads would otherwise alternate only at clock ticks.
            if number % 8 == 0 { sched_yield() }
        }
        try guest.file.convert(PlainGuest.data, pages * pageSize, to: .shared)
        try guest.view.putWord(PlainGuest.mailbox, 1)
        try #require(threads.join(seconds: 600), "the vCPUs did not finish")
        #expect(busy == 0, "\(busy) of \(conversions) conversions reported a page in use without a holder")
        for (_, stray) in results.all { #expect(stray == nil, "\(String(describing: stray))") }
        for id in guest.vcpus.indices {
            let rounds = try guest.vcpus[id].registers().r8
            #expect(rounds > 0)
            for page in 0..<pages {
                let count = try guest.view.word(PlainGuest.data + page * pageSize + UInt64(id) * 8)
                #expect(count == rounds, "page \(page), vCPU \(id)")
            }
        }
    }
}
