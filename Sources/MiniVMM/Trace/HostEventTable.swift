// SPDX-License-Identifier: MIT
/// Events of the host, of litmus tests, and those that readers add.
extension EventSchema {
    static let host: [EventSchema] = [
        EventSchema(
            .hold, .host,
            "The host took references on pages, as a device would. Converting them to private now fails with EAGAIN.",
            "takes references on {pages}{name+ ({name})}; {yields?a conversion may ask for their release}"
                + "{yields!no conversion can ask for their release}",
            range + [
                Field(.yields, "whether a conversion can have it released"),
                Field(.name, "the hold's name in a litmus test; may be absent", optional: true),
            ]),
        EventSchema(
            .release, .host, "A hold has released its pages.",
            "the references on {pages}{name+ ({name})} are released",
            range + [Field(.name, "the hold's name in a litmus test; may be absent", optional: true)]),
        EventSchema(
            .releaseHolds, .host,
            "The host released all its holds. Each has its own release event before this one.",
            "has all {count} hold{count=1!s} of the host released", [Field(.count, "number of holds")]),
        EventSchema(
            .hostAccess, .host,
            "The host read or wrote 8 bytes of guest memory through its mapping, for the guest.",
            "has the host {direction=read?read}{direction=write?write} {pages}: {errno?{errno}}{errno!succeeds}",
            [
                Field(.gpa, "address of the 8 bytes"), Field(.direction, "`read` or `write`"),
                Field(.errno, "0, or 14 `EFAULT` for a private page"),
            ]),
    ]

    static let litmus: [EventSchema] = [
        EventSchema(
            .file, .litmus,
            "A guest_memfd of a litmus test was created; its pages have addresses of their own.",
            "creates the guest_memfd {name}: {pages}, {state}",
            [Field(.name, "its name in the test")] + range
                + [Field(.state, "`private` or `shared`: the initial state of its pages")]),
        EventSchema(
            .step, .litmus, "A step of a litmus test, and its outcome.",
            "line {line}: {text} → {outcome}{ok! ✗}{expected+, expected: {expected}}",
            [
                Field(.line, "line of the test; 0 if the test has no text"),
                Field(.text, "the step as written"),
                Field(.outcome, "the outcome"), Field(.ok, "whether the outcome is as expected"),
                Field(
                    .expected, "the expected outcome; absent if the step only names its result",
                    optional: true),
            ]),
        EventSchema(
            .access, .litmus, "An actor of a litmus test accessed memory.",
            "{direction}s {pages}{value+ ({value})}: {errno?{errno}}{errno!succeeds}",
            range + [
                Field(.direction, "`read` or `write`"), Field(.errno, "0 on success"),
                Field(.value, "the value read or written; may be absent", optional: true),
            ]),
        EventSchema(
            .punch, .litmus,
            "A hole was punched: the pages are unallocated until the next access, read as zero then, and keep their states.",
            "punches a hole: {pages} unallocated", range),
    ]

    static let readers: [EventSchema] = [
        EventSchema(
            .console, .readers,
            "A line that a vCPU has printed: the exits for its letters, out to port 0x3f8 or 0xe9, as one event. "
                + "A line ends with a newline, after 256 letters, or when its vCPU does something else.",
            "prints “{text}”",
            [Field(.text, "the line"), Field(.exits, "number of exits that it replaces")]),
        EventSchema(
            .leftOut, .readers, "Events in the middle of a long trace that a picture does not show.",
            "{events} events are left out here", [Field(.events, "number of events")]),
        EventSchema(
            .pagesThen, .readers, "The states of pages after the events that were left out.",
            "after the events left out: {pages}, {state}", range + [Field(.state, "`private` or `shared`")]),
    ]

    private static let range = [Field(.gpa, "start of the range"), Field(.size, "size of the range")]
}
