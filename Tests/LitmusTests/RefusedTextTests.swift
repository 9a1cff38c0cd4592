// SPDX-License-Identifier: MIT
import Foundation
import MiniVMM
import Testing

@testable import Litmus

@Suite("Texts that are not litmus tests", .timeLimit(.minutes(120)))
struct RefusedTextTests {
    @Test(arguments: [
        ("", "1:1: the text is empty"),
        ("host read 0", "1:1: a test begins with"),
        ("test x", "1:6: expected what the test shows, in quotes, found `x`"),
        ("test \"x", "1:6: the text that begins here has no closing quote"),
        ("test \"x\\\"", "1:8: only printable ASCII is allowed in quotes"),
        ("test \"x\"\nmemory 0 pages shared\nhost read 0", "1:1: a memory has 1 to 268435456 pages, not 0"),
        ("test \"x\"\nmemory 4 pgaes shared", "2:10: expected `pages`, found `pgaes`; did you mean pages?"),
        ("test \"x\"\nmemory 4 pages common", "2:16: expected one of `shared`, `private`, found `common`"),
        ("test \"x\"\nmemory 1 pages shared", "1:1: a test needs at least one step"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost jump 0",
            "3:6: unknown action jump: expected read, write, "
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost read 0x => 1", "3:11: `0x` is not a number"),
        ("test \"x\"\nmemory 1 pages shared\nhost read 0 => 256", "3:16: 256 is too large: expected a byte"),
        (
            "test \"x\"\nmemory 1 pages shared\n host read 0 => EFAULT",
            "3:2: an access that gets no page is `SIGBUS`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost fill 3..1 0",
            "3:14: the last page, 1, is before the first, 3"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 0 0",
            "3:13: expected the end of the line, found the number 0"
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost release h", "3:1: there is no hold `h`"),
        ("test \"x\"\nmemory 1 pages shared\nhost convert 0 private => EWHAT", "3:27: unknown outcome EWHAT"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost99 read 0",
            "3:1: unknown actor host99: expected `host` to `host15`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu read 0",
            "3:1: unknown actor vcpu: expected `vcpu0` to `vcpu15`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 0 => a",
            "3:1: unknown outcome a: expected `ok`, an errno"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost read 0",
            "3:1: the parallel block that begins here"
        ),
        ("test \"x\"\nend", "2:1: `end` without `parallel`"),
        ("test \"x\"\ntest \"y\"", "2:1: there is already a `test` line"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 0\nvm default",
            "4:1: `vm` belongs before the first step"
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost read \u{7}", "3:11: unexpected byte 0x7"),
        ("test \"x\"\nmemory 1 pages shared\nhost fill 0..99999 1", "3:1: one step accesses at most 64 MiB"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 18446744073709551616",
            "3:11: `18446744073709551616` is not"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 4503599627370496",
            "3:11: 4503599627370496 is too large"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost hypercall 0 private",
            "3:1: only a vCPU can make a hypercall"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost mbind 0 interleave 0",
            "3:14: expected `default`, `local`, `bind` or `preferred`, found `interleave`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost mprotect 0 exec",
            "3:17: expected one of `none`, `read`, `read_write`, found `exec`"
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost mremap v to 1 pages as w", "3:1: there is no view `v`"),
        ("test \"x\"\nmemory 1 pages shared\nhost dup ram as ram", "3:1: there is already a file `ram`"),
        ("test \"x\"\nmemory 1 pages shared\nvcpu0 dirty slot 1", "3:1: a vCPU can `read`"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost vm_attributes ram:0 private on default\nhost vm_attributes f:0 shared",
            "4:1: a VM's attributes are for guest-physical pages"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost convert guest:0 private",
            "3:1: the guest's memory may have several files: add a content policy"
        ),
        (
            "test \"x\"\nmemory 1 pages shared unbound\nhost convert guest:0 private zero",
            "3:1: the guest has no memory"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost convert guest:0 private preserve flags 1",
            "3:1: for `guest:` the monitor fills in the struct"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost convert guest:0 attributes 1 preserve",
            "3:1: for `guest:` the monitor fills in the struct"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost convert guest:@1+4096 private preserve",
            "3:1: the monitor converts whole pages, which `guest:@0x1+4096` is not"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost convert guest:0 private preserve bisect\nend",
            "4:1: in a parallel block a conversion is one call"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost convert guest:0 private zero\nend",
            "4:1: `zero` is a conversion and then another step"
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost read guest:0", "3:1: only `convert` accepts `guest:`"),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 hypercall guest:0 private",
            "3:1: only `convert` accepts `guest:`"
        ),
        ("test \"x\"\nmemory guest 1 pages shared\nhost read guest:0", "1:1: `guest` is the guest's"),
        ("test \"x\"\nmemory 1 pages shared\nhost map 0 as guest", "3:1: `guest` is the guest's"),
        (
            "test \"x\"\nmemory 1 pages shared\nhost create guest 1 pages mmap",
            "3:1: `guest` is the guest's"
        ),
        ("test \"x\"\nmemory 1 pages shared\nhost hold 0 as guest", "3:1: `guest` is the guest's"),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost read 0 => guest\nend",
            "4:1: `guest` is the guest's"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost close ram\nhost create ram 1 pages mmap\nhost convert guest:0 private zero",
            "5:1: the guest's memory `ram` was closed, and its name now refers to another file"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost read 0 converting preserve",
            "3:1: `converting` is for a vCPU's `read`, `write`, `fill` and `check`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost convert 0 private converting zero",
            "3:1: `converting` is for a vCPU's"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 hypercall 0 private converting zero",
            "3:1: `converting` is for a vCPU's"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 read 0\nvcpu0 again converting zero",
            "4:1: `again` repeats an access with its own policy"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 read 0 converting",
            "3:24: expected one of `preserve`, `zero`, `unspecified`, found the end of the line"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 read 0 converting preserve attempts 0",
            "3:1: `attempts` must be 1 to 100"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nvcpu0 read 0 converting zero\nend",
            "4:1: in a parallel block the monitor converts by one call: omit `zero`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nparallel\nvcpu0 read 0 converting preserve bisect\nend",
            "4:1: in a parallel block the monitor converts by one call: omit `zero`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nvcpu0 read 0 converting zero\nparallel\nvcpu0 again\nend",
            "5:1: in a parallel block the monitor converts by one call: omit `zero`"
        ),
        (
            "test \"x\"\nmemory 1 pages shared\nhost fork child\nhost map 0 as v\nhost unmap v\nhost fork child1\nchild1 read w:0",
            "7:1: there is no view `w`"
        ),
    ])
    func errorsNameThePlace(_ text: String, _ message: String) {
        let error = #expect(throws: SyntaxError.self) { _ = try Source(parsing: text) }
        #expect(error?.description.hasPrefix(message) == true, "\(error?.description ?? "none")")
    }

}
