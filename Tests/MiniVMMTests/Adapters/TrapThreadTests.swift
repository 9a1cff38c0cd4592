// SPDX-License-Identifier: MIT
import CKVMShim
import Dispatch
import Synchronization
import SystemPackage
import Testing

@testable import MiniVMM

/// vCPUs that run while memslots change.
@Suite(
    "MemslotTrapKVM: threads", .enabled(if: TrapHost.canTrap, TrapHost.reason), .timeLimit(.minutes(120)),
    .serialized)
struct TrapThreadTests {
    static let at = TrapGuest.data

    @Test func `four vCPUs count through both aliases while the host converts, and no count is lost`() throws
    {
        let code: [UInt8] = [
            0x48, 0xff, 0x07,  // again: inc qword [rdi]
            0x48, 0xff, 0x06,  //        inc qword [rsi]
            0x48, 0xff, 0xc9,  //        dec rcx
            0x75, 0xf5,  //              jnz again
            0xe6, 0xf4,  //              out 0xf4, al
        ]
        let guest = try TrapGuest(code, vcpus: 4)
        let rounds: UInt64 = 20_000
        let pages = 4 as UInt64
        try guest.file.convert(Self.at, pages * pageSize, to: .private)
        // vCPU n uses its own word in page n mod 2 through the private alias, and one in page 2 + n mod 2
        // through the shared alias.
        func word(_ id: Int, _ alias: UInt64) -> UInt64 {
            Self.at + (alias * 2 + UInt64(id) % 2) * pageSize + UInt64(id) * 8
        }
        let threads = TrapThreads()
        let left = Atomic<Int>(4)
        let failures = Atomic<Int>(0)
        for id in 0..<4 {
            try guest.start(id, rcx: rounds, rsi: word(id, 1) | TrapHost.shared, rdi: word(id, 0))
            nonisolated(unsafe) let guest = guest
            threads.start {
                if (try? guest.finish(id, limit: .max)) == nil { failures.add(1, ordering: .relaxed) }
                left.subtract(1, ordering: .releasing)
            }
        }
        var conversions = 0
        var random: UInt64 = 88_172_645_463_325_252
        // Some conversions, even if the guests finish before the first.
        while left.load(ordering: .acquiring) > 0 || conversions <= 10 {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            let first = random % pages
            let count = 1 + random >> 8 % (pages - first)
            let state: PageState = random >> 16 % 2 == 0 ? .private : .shared
            try guest.file.convert(Self.at + first * pageSize, count * pageSize, to: state)
            try guest.file.convert(TrapGuest.besideCode, to: state)
            conversions += 1
            TrapHost.pause(milliseconds: 2)
        }
        #expect(threads.join(seconds: 600))
        #expect(failures.load(ordering: .relaxed) == 0)
        #expect(conversions > 10)
        try guest.file.convert(Self.at, pages * pageSize, to: .shared)
        for id in 0..<4 {
            #expect(try guest.view.word(word(id, 0)) == rounds)
            #expect(try guest.view.word(word(id, 1)) == rounds)
        }
    }

    @Test func `conversions never end a run, kicks always do`() throws {
        // jmp $
        let guest = try TrapGuest([0xeb, 0xfe])
        try guest.start()
        let threads = TrapThreads()
        let came = DispatchSemaphore(value: 0)
        let isOver = Atomic<Bool>(false)
        let others = Atomic<Int>(0)
        let interrupted = Atomic<Int>(0)
        nonisolated(unsafe) let shared = guest
        threads.start {
            while !isOver.load(ordering: .acquiring) {
                if case .interrupted = shared.vcpu.runToExit() {
                    interrupted.add(1, ordering: .relaxed)
                    shared.vcpu.runPage.clearImmediateExit()
                    came.signal()
                } else {
                    others.add(1, ordering: .relaxed)
                }
            }
        }
        threads.start {
            var state = PageState.shared
            while !isOver.load(ordering: .acquiring) {
                try? shared.file.convert(TrapGuest.besideCode, to: state)
                state = state.other
            }
        }
        let kicks = 200
        var answered = 0
        for kick in 0..<kicks {
            if kick % 10 == 0 { TrapHost.pause(milliseconds: 5) }
            guest.vcpu.kick()
            if came.wait(timeout: .now() + .seconds(300)) == .success { answered += 1 }
        }
        #expect(answered == kicks)
        #expect(others.load(ordering: .relaxed) == 0)
        #expect(interrupted.load(ordering: .relaxed) == kicks)
        isOver.store(true, ordering: .releasing)
        guest.vcpu.kick()
        #expect(threads.join(seconds: 600))
    }

    @Test func `a kick before the run ends it before it starts, and a pending access waits`() throws {
        // mov [rdi], rax; out
        let guest = try TrapGuest([0x48, 0x89, 0x07, 0xe6, 0xf4])
        try guest.start(rax: 9, rdi: Self.at)
        #expect(guest.fault() == .on(Self.at, wanting: .private))
        try guest.file.convert(Self.at, to: .private)
        guest.vcpu.kick()
        for _ in 0..<2 {
            guard case .interrupted = guest.vcpu.runToExit() else {
                Issue.record("not interrupted")
                return
            }
        }
        guest.vcpu.runPage.clearImmediateExit()
        #expect(guest.ends())
        try guest.file.convert(Self.at, to: .shared)
        #expect(try guest.view.word(Self.at) == 9)
    }

    @Test func `a vCPU's own thread converts between runs while another vCPU runs`() throws {
        // jmp $, and at +16: mov [rdi], rax; out
        let guest = try TrapGuest(
            [0xeb, 0xfe] + [UInt8](repeating: 0x90, count: 14) + [0x48, 0x89, 0x07, 0xe6, 0xf4], vcpus: 2)
        try guest.start(1)
        let threads = TrapThreads()
        let end = Atomic<Bool>(false)
        nonisolated(unsafe) let shared = guest
        threads.start {
            if case .interrupted = shared.vcpus[1].runToExit() { end.store(true, ordering: .releasing) }
        }
        for page in 0..<20 as Range<UInt64> {
            try guest.start(rip: TrapGuest.code + 16, rax: page, rdi: Self.at + page * pageSize)
            #expect(try guest.finish() == [.on(Self.at + page * pageSize, wanting: .private)])
        }
        guest.vcpus[1].kick()
        #expect(threads.join(seconds: 600))
        let ended = end.load(ordering: .acquiring)
        #expect(ended)
    }

    @Test func `many small conversions in a row work, and too many runs are ENOMEM`() throws {
        let limit = 64
        let guest = try TrapGuest([0x90], slotLimit: limit)
        for page in 0..<512 as Range<UInt64> {
            try guest.file.convert(Self.at + page * pageSize, to: .private)
        }
        try guest.file.convert(Self.at, 1024 * pageSize, to: .shared)
        // Two slots so far: [0, 1 MiB) private and the rest. Every isolated page adds two more.
        var page: UInt64 = 0
        while page < 200 {
            let request = ckvm_memory_attributes2.conversion(
                Self.at + 2 * page * pageSize, pageSize, .private)
            let refusal = guest.file.refusal(of: request)
            if refusal.errno != nil {
                #expect(refusal == (.noMemory, request.offset))
                break
            }
            page += 1
        }
        #expect(page == UInt64(limit - 2) / 2)
        // Nothing has changed, and a conversion that needs fewer slots still works.
        #expect(try guest.view.bytes(Self.at + 2 * page * pageSize, 1) == [0])
        #expect(throws: Errno.badAddress) { try guest.view.bytes(Self.at, 1) }
        try guest.file.convert(Self.at, 512 * pageSize, to: .shared)
        #expect(try guest.view.bytes(Self.at, 1) == [0])
    }
}
