// SPDX-License-Identifier: MIT

/// The policies for the contents of converted pages. The kernel leaves the decision to the VMM, which decides per request.
enum Contents {
    static let all: [Explanation] = [
        Explanation(
            .contents, "preserve", "contents preserve: the bytes are the same afterwards",
            [
                (.attempted, "to convert a range and keep its contents (--contents preserve)"),
                (
                    .answer,
                    "done if the VM type guarantees it, as a software-protected VM of Linux 7.4 does in both directions; otherwise "
                        + "refused with EOPNOTSUPP before any page has changed"
                ),
                (
                    .means,
                    "The conversion call itself has no content policy. On SNP and TDX the firmware decides, and with per-VM attributes "
                        + "the bytes stay in the other memory."
                ),
                (
                    .advice,
                    "If it is refused, use a backend that preserves contents (--backend auto), or copy the bytes yourself."
                ),
                (.versions, "a flag of the call in RFC v3 to v5, PRESERVE (2)"),
                (.litmus, "contents-survive, to-private-keeps-the-bytes, to-shared-keeps-the-bytes"),
            ]),
        Explanation(
            .contents, "zero", "contents zero: the bytes are zero afterwards",
            [
                (.attempted, "to convert a range so that it reads as zeros (--contents zero)"),
                (
                    .answer,
                    "done by the monitor after the conversion, so that a conversion that fails loses nothing"
                ),
                (
                    .means,
                    "The monitor punches a hole where pages were private, and they read as zeros on the next access. It overwrites pages "
                        + "that were already shared, because after a hole a holder would keep the old page with its contents."
                ),
                (.advice, "Use it when pages change owner and the new owner must not see the old contents."),
                (.versions, "a flag of the call in RFC v3 to v5, ZERO (1), to shared only"),
                (.litmus, "zero-to-private, zero-to-shared"),
            ]),
        Explanation(
            .contents, "unspecified", "contents unspecified: the bytes may be anything afterwards",
            [
                (
                    .attempted,
                    "to convert a range that will be written before it is read (--contents unspecified)"
                ),
                (.answer, "done on every backend"),
                (
                    .means,
                    "The bytes may be the same, zero, or random. Code that relies on the behaviour of one kernel fails on another."
                ),
                (.advice, "Write the pages before you read them."),
                (
                    .versions,
                    "flags 0 in RFC v3 to v5, which overwrote existing pages with random bytes (hazard H22)"
                ),
                (.litmus, "unspecified-promises-nothing"),
            ]),
    ]

    static func named(_ word: String) -> Explanation? { all.first { $0.name == word.lowercased() } }
}
