// SPDX-License-Identifier: MIT
/// What becomes of the bytes of a converted page: the kernel leaves the decision to the VMM, and the VMM to each request.
enum Contents {
    static let all: [Explanation] = [
        Explanation(
            .contents, "preserve", "contents preserve: the bytes are the same afterwards",
            [
                (.attempted, "to convert a range and keep what is in it (--contents preserve)"),
                (
                    .answer,
                    "done where the VM type promises it, as a software-protected VM of Linux 7.4 does in both directions; else "
                        + "refused with EOPNOTSUPP before any page has changed"
                ),
                (
                    .means,
                    "The call itself says nothing of contents. On SNP and TDX the firmware decides, and with attributes by address "
                        + "the bytes stay behind at the other place."
                ),
                (
                    .advice,
                    "Where it is refused, take a kernel that preserves them (--backend auto), or carry the bytes over yourself."
                ),
                (.versions, "in RFC v3 to v5 a flag of the call, PRESERVE (2)"),
                (.litmus, "contents-survive, to-private-keeps-the-bytes, to-shared-keeps-the-bytes"),
            ]),
        Explanation(
            .contents, "zero", "contents zero: the bytes are zero afterwards",
            [
                (.attempted, "to convert a range and have it read zero (--contents zero)"),
                (
                    .answer,
                    "done by the monitor after the conversion, so that one which fails has lost nothing"
                ),
                (
                    .means,
                    "What was private is punched out, and its first touch reads zero. What was shared already is overwritten, because "
                        + "a hole would leave the old page to whoever holds it."
                ),
                (.advice, "Ask for it when pages change owner and the old bytes are nobody's business."),
                (.versions, "in RFC v3 to v5 a flag of the call, ZERO (1), to shared only"),
                (.litmus, "zero-to-private, zero-to-shared"),
            ]),
        Explanation(
            .contents, "unspecified", "contents unspecified: nobody cares what becomes of the bytes",
            [
                (
                    .attempted,
                    "to convert a range that will be written before it is read (--contents unspecified)"
                ),
                (.answer, "done on every kernel"),
                (
                    .means,
                    "The bytes may be the same, zero, or noise. To rely on what one kernel does is luck."
                ),
                (.advice, "Write the pages before you read them."),
                (
                    .versions,
                    "in RFC v3 to v5 flags 0, which overwrote pages that exist with noise (hazard H22)"
                ),
                (.litmus, "unspecified-promises-nothing"),
            ]),
    ]

    static func named(_ word: String) -> Explanation? { all.first { $0.name == word.lowercased() } }
}
