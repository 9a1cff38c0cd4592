// SPDX-License-Identifier: MIT
import MiniVMM

/// The states of a page of guest memory.
enum States {
    static let all: [Explanation] = [
        Explanation(
            .state, "private", "a private page: only the guest may access it",
            [
                (.means, "The guest_memfd records KVM_MEMORY_ATTRIBUTE_PRIVATE for the page."),
                (
                    .host,
                    "The mapping still exists, but an access to the page raises SIGBUS, and a system call on it fails with EFAULT."
                ),
                (
                    .guest,
                    "It can read and write the page. An access through the shared alias is a memory fault, exit 39 with flags 0."
                ),
                (
                    .advice,
                    "To access it from the host, convert it to shared: in that direction no references are checked. On a "
                        + "software-protected VM the contents are the same afterwards."
                ),
            ]),
        Explanation(
            .state, "shared", "a shared page: guest and host may access it",
            [
                (.means, "The guest_memfd records no attribute for the page."),
                (
                    .host,
                    "It can read and write the page through its mapping, and pipes, io_uring or devices may take references on it."
                ),
                (
                    .guest,
                    "It can read and write the page. An access through the private alias is a memory fault, exit 39 with flag PRIVATE "
                        + "(0x8)."
                ),
                (
                    .advice,
                    "To make it private, all references must be released; otherwise the call fails with EAGAIN and error_offset names the "
                        + "page."
                ),
            ]),
        Explanation(
            .state, "in-use", "a page in use: it cannot become private",
            [
                (
                    .means,
                    "The page is pinned for DMA or still mapped, or has more references than the kernel expects after draining its own "
                        + "batches."
                ),
                (
                    .host,
                    "Typical holders are io_uring buffers, pipes (vmsplice), O_DIRECT in progress, VFIO and RDMA."
                ),
                (
                    .guest,
                    "It can use the page as before. Only a request to make the page private fails, with EAGAIN."
                ),
                (.advice, "Make the holder release the page and call again, or convert around the page."),
                (.see, "hazards A3, A4, A5, A6, A7"),
            ]),
        Explanation(
            .state, "untouched", "an untouched page: not allocated yet",
            [
                (
                    .means,
                    "The file records the page's state but has no memory for it. A conversion only changes that record."
                ),
                (.host, "The first access reads zeros, if the page is shared."),
                (.guest, "The first access reads zeros."),
                (
                    .advice,
                    "To make a page untouched again, punch a hole (FALLOC_FL_PUNCH_HOLE). Whether it is private or shared does not change."
                ),
            ]),
        Explanation(
            .state, "mixed", "a mixed range: some pages are private, some shared",
            [
                (.means, "The pages of the range do not all have the same state."),
                (
                    .host,
                    "A conversion to private checks every existing page of a mixed range, also those that are private already. If the "
                        + "range is uniformly private, it checks none."
                ),
                (.guest, "Each page behaves according to its own state."),
                (
                    .advice,
                    "Request the conversion of the whole range: the call converts all of it or changes nothing."
                ),
                (.see, "hazard A10"),
            ]),
    ]

    private static let synonyms = [
        "held": "in_use", "pinned": "in_use", "busy": "in_use", "page_in_use": "in_use",
        "unallocated": "untouched",
    ]

    static func named(_ word: String) -> Explanation? {
        let name = synonyms[NearWords.folded(word)] ?? NearWords.folded(word)
        return all.first { NearWords.folded($0.name) == name }
    }
}
