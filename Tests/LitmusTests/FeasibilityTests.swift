// SPDX-License-Identifier: MIT
import Foundation
import Testing

@testable import Litmus

/// Tests that no kernel can perform.
@Suite("Tests that cannot be performed")
struct FeasibilityTests {
    private func problem(_ body: String) throws -> String? {
        try Source(parsing: "test \"x\"\nmemory 4 pages shared\n" + body).impossibility()?.description
    }

    @Test(arguments: [
        (
            "host read 4",
            "3:1: @0x4000+1 is not inside the view `ram`, which has 16384 bytes (4 pages from page 0)"
        ),
        ("host read 0\nhost fill 3..4 7", "4:1: "), ("host check 3..4 0", "3:1: "),
        ("host hold 7 as h", "3:1: "),
        ("host fork child\nchild write 9 1", "4:1: "), ("host map 0..1 as v\nhost read v:2", "4:1: "),
        ("host map @1+1 as v => EINVAL\nhost read v:0", "4:1: there is no view `v`"),
        ("vcpu0 read 262143", "3:1: a vCPU can only access guest-physical addresses below 0x3ff00000"),
        ("vcpu0 fill 0..4 1", "3:1: a vCPU accesses at most 4 pages"),
        (
            "parallel\nhost convert 0 private => a\nhost1 read 0 => b\nforbidden a = SIGBUS\nend",
            "4:1: `forbidden a = SIGBUS` never applies"
        ),
        (
            "parallel\nhost read 0 => a\nhost1 read 1 => b\nallowed a = 0x1, a = 0x2\nend",
            "4:1: `allowed a = 0x1, a = 0x2` never applies"
        ),
    ])
    func impossibleStepsAreErrors(_ body: String, _ message: String) throws {
        let seen = try problem(body)
        #expect(seen?.hasPrefix(message) == true, "\(seen ?? "none")")
    }

    /// Every kernel answers these with an error.
    @Test(arguments: [
        "host convert 9 private => EINVAL", "vcpu0 read 9 => mmio", "host allocate 3..9 => EINVAL",
        "host map 0..9 as v", "host madvise @1+4096 dontneed => EINVAL",
        "host map 0..1 as v => ok or ENOMEM\nhost read v:1",
        "vcpu0 hypercall 9 private => EINVAL",
    ])
    func refusedRequestsAreValid(_ body: String) throws { #expect(try problem(body) == nil) }

    @Test(arguments: RunnerTests.files) func noTestOfTheRepositoryIsWrong(_ file: URL) throws {
        #expect(try RunnerTests.source(file).impossibility() == nil)
    }
}
