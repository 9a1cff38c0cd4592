// SPDX-License-Identifier: MIT
/// The host's events, those of litmus tests, and those that readers put in.
extension EventSchema {
    static let host: [EventSchema] = [
        EventSchema(
            .hold, .host,
            "The host took references on pages, as a device would. They cannot become private now.",
            "references on {pages}{name+ ({name})} are taken; {yields?a conversion may ask for their release}"
                + "{yields!no conversion can ask for their release}",
            range + [
                Field(.yields, "whether it is released when a conversion asks"),
                Field(.name, "which hold, in litmus tests; may be absent", optional: true),
            ]),
        EventSchema(
            .release, .host, "A hold has released its pages.",
            "the references on {pages}{name+ ({name})} are released",
            range + [Field(.name, "which hold, in litmus tests; may be absent", optional: true)]),
        EventSchema(
            .releaseHolds, .host,
            "The host released all that it held. Each hold has its release event before.",
            "all that the host held is released, {count} hold{count=1!s}", [Field(.count, "how many holds")]),
        EventSchema(
            .hostAccess, .host,
            "The host read or wrote 8 bytes of guest memory through its mapping, for the guest.",
            "has the host {direction=read?read}{direction=write?write} {pages}: {errno?{errno}}{errno!succeeds}",
            [
                Field(.gpa, "of the 8 bytes"), Field(.direction, "`read` or `write`"),
                Field(.errno, "0, or 14 `EFAULT` for a private page"),
            ]),
    ]

    static let litmus: [EventSchema] = [
        EventSchema(
            .file, .litmus, "A guest_memfd of a litmus test appears; its pages have addresses of their own.",
            "creates the guest_memfd {name}: {pages}, {state}",
            [Field(.name, "what the test calls it")] + range
                + [Field(.state, "`private` or `shared`: what its pages are at first")]),
        EventSchema(
            .step, .litmus, "A step of a litmus test, and what came of it.",
            "line {line}: {text} → {outcome}{ok! ✗}{expected+, expected: {expected}}",
            [
                Field(.line, "of the test; 0 where the test has no text"), Field(.text, "what it says"),
                Field(.outcome, "what came of it"), Field(.ok, "whether that is as expected"),
                Field(
                    .expected, "the expected outcome; absent if the step only names its result",
                    optional: true),
            ]),
        EventSchema(
            .access, .litmus, "An actor of a litmus test touched memory.",
            "{direction}s {pages}{value+ ({value})}: {errno?{errno}}{errno!succeeds}",
            range + [
                Field(.direction, "`read` or `write`"), Field(.errno, "0 if it worked"),
                Field(.value, "what was read or written; may be absent", optional: true),
            ]),
        EventSchema(
            .punch, .litmus,
            "A hole: the pages are unallocated until they are touched again. They read zero then, and stay private or shared.",
            "punches a hole: {pages} unallocated", range),
    ]

    static let readers: [EventSchema] = [
        EventSchema(
            .console, .readers,
            "What a vCPU has printed: the exits for a line's letters, out to port 0x3f8 or 0xe9, as one event. "
                + "A line ends with a newline, after 256 letters, or when its vCPU does something else.",
            "prints “{text}”",
            [Field(.text, "the line"), Field(.exits, "for how many exits it stands")]),
        EventSchema(
            .leftOut, .readers, "Events in the middle of a long trace that a picture does not show.",
            "{events} events are left out here", [Field(.events, "how many")]),
        EventSchema(
            .pagesThen, .readers, "What pages are after the events that were left out.",
            "after what was left out: {pages}, {state}", range + [Field(.state, "`private` or `shared`")]),
    ]

    private static let range = [Field(.gpa, "of the range"), Field(.size, "of the range")]
}
