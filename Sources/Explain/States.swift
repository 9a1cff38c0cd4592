// SPDX-License-Identifier: MIT
import MiniVMM

/// What a page of guest memory can be.
enum States {
    static let all: [Explanation] = [
        Explanation(
            .state, "private", "a private page: only the guest may touch it",
            [
                (.means, "KVM_MEMORY_ATTRIBUTE_PRIVATE is set for it in the guest_memfd."),
                (
                    .host,
                    "The mapping is still there, but touching the page is SIGBUS; a system call on it is EFAULT."
                ),
                (
                    .guest,
                    "It reads and writes it. Through the shared alias the access is a memory fault, exit 39 with flags 0."
                ),
                (
                    .advice,
                    "To see it, convert it to shared: no reference is looked for in that direction. On a software-protected VM the "
                        + "contents are the same afterwards."
                ),
            ]),
        Explanation(
            .state, "shared", "a shared page: guest and host may touch it",
            [
                (.means, "No attribute is set for it."),
                (
                    .host,
                    "It reads and writes through mmap, and others may take references on it: pipes, io_uring, devices."
                ),
                (
                    .guest,
                    "It reads and writes it. Through the private alias the access is a memory fault, exit 39 with flag PRIVATE (0x8)."
                ),
                (
                    .advice,
                    "To make it private every reference must be gone, or the call is EAGAIN and error_offset names the page."
                ),
            ]),
        Explanation(
            .state, "in-use", "a page in use: it cannot become private",
            [
                (
                    .means,
                    "It is pinned for DMA, still mapped, or its reference count is not what the kernel expects once its own "
                        + "batches are drained."
                ),
                (
                    .host,
                    "Known holders are io_uring buffers, pipes (vmsplice), O_DIRECT on its way, VFIO and RDMA."
                ),
                (.guest, "It notices nothing until it asks for the page to be private: EAGAIN."),
                (.advice, "Have the holder let go and call again, or convert around the page."),
                (.see, "hazards A3 A4 A5 A6 A7"),
            ]),
        Explanation(
            .state, "untouched", "a page that nobody has touched: not allocated yet",
            [
                (.means, "The file has only its attribute, not its bytes. Converting it is bookkeeping."),
                (.host, "The first touch reads zero, if the page is shared."),
                (.guest, "The first touch reads zero."),
                (
                    .advice,
                    "To make a page so again, punch a hole (FALLOC_FL_PUNCH_HOLE): private or shared does not change."
                ),
            ]),
        Explanation(
            .state, "mixed", "a range that is private in part",
            [
                (.means, "Its pages do not agree."),
                (
                    .host,
                    "A conversion to private checks every page that exists, those that are private already too; on a uniform range it "
                        + "checks none."
                ),
                (.guest, "Each page is what it is."),
                (
                    .advice,
                    "Ask for what you want of the whole range: the call goes through or changes nothing."
                ),
                (.see, "hazard A10"),
            ]),
    ]

    static func named(_ word: String) -> Explanation? {
        let name =
            ["held": "in_use", "pinned": "in_use", "busy": "in_use", "unallocated": "untouched"][
                NearWords.folded(word)]
            ?? NearWords.folded(word)
        return all.first { NearWords.folded($0.name) == name }
    }
}
