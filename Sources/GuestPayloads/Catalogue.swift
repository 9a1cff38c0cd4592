// SPDX-License-Identifier: MIT
import MiniVMM

/// The demo guests, in the order in which a newcomer should meet them.
public enum Catalogue {
    /// Each guest that is described here and assembled in `guest/`.
    public static let all: [Payload] = [
        payload(
            "hello", "boots, looks around and leaves",
            """
            The boot contract: a boot information page, a console, a status. It prints how much RAM and how many \
            vCPUs it has, and how many aliases its memory has. It asks for no conversion, so the only one in the \
            trace is the monitor's own: the boot image, made private in place.
            """),
        payload(
            "explicit", "memory that changes hands because the guest asks for it",
            """
            KVM_HC_MAP_GPA_RANGE on one page, on 16, and on 2 MiB. Each time the guest shares a message, the host \
            reads it and answers, and the pages become private again: the host is then shut out (EFAULT), and \
            every byte is still there.
            """, needsPreservation: true),
        payload(
            "implicit", "memory that changes hands because the guest touches it",
            """
            The same RAM has two aliases, as on TDX. An access through the one that does not match the page is \
            a KVM_EXIT_MEMORY_FAULT, and the monitor answers by converting. Accesses of every size, across pages \
            and across the border of private and shared, modified in place and copied from alias to alias.
            """, aliases: .two, needsPreservation: true),
        payload(
            "forget", "memory that changes hands empty",
            """
            Like implicit, on a machine told to make zeros of whatever changes hands. What was written through one \
            alias is never found through the other, in any size, in both directions; the page next to it keeps \
            every byte. Runs where contents cannot be preserved, too.
            """, aliases: .two, contents: .zero),
        payload(
            "contents", "what becomes of the bytes: preserve, zero, unspecified",
            """
            Each conversion says what shall become of its contents, in both directions. The monitor does it, or \
            refuses with EOPNOTSUPP before anything has changed. The table shows what this kernel could honour; \
            bytes are checked from inside and from the host.
            """),
        payload(
            "ping-pong", "one page, to and fro, a thousand times",
            """
            2000 conversions of the same page, each of which leaves a mark in it: what one costs, and that none \
            gets lost. Look at the latencies in the summary.
            """, needsPreservation: true),
        payload(
            "sweep", "all free RAM, page by page, to shared and back",
            """
            A border between shared and private wanders through up to 768 pages, twice. Every page is given its \
            address while it is shared and must still have it when it is private. Made for the page timeline.
            """, needsPreservation: true),
        payload(
            "smp", "vCPUs that convert neighbouring pages at the same time",
            """
            One range is dealt out like cards to all vCPUs. Each converts its own pages to and fro and looks at \
            its neighbours' in between: no conversion may touch a page that it does not name.
            """, vcpus: 4, needsPreservation: true),
        payload(
            "pinned", "a page that the host does not let go of",
            """
            While the host holds one of eight shared pages, as for DMA, the range cannot become private: EAGAIN. \
            A holder that lets go when asked costs a retry. A stubborn one makes the request fail, with every \
            byte in place; when it has gone, the same request succeeds.
            """, needsPreservation: true),
        payload(
            "spurious", "asking for what is already so",
            """
            Pages that have the wanted state are asked for again, alone and in mixed ranges. The answer is 0 and \
            no byte changes. Postings 3 to 5 of the kernel series scrambled memory here.
            """, needsPreservation: true),
        payload(
            "hostile", "everything a guest must not get away with",
            """
            Ranges that wrap, straddle or lie outside RAM, unknown attributes and calls, 2^64 - 1 pages, hosts \
            sent to private pages, ports that nobody listens to. Each gets its errno, and afterwards memory is \
            as it was.
            """),
        payload(
            "fault-loop", "the wrong alias, and a monitor that does nothing about it",
            """
            The guest reads a private page through the shared alias and the monitor re-enters without converting: \
            the same memory fault, for ever. Instead of burning a CPU, the monitor must notice (hazard A34).
            """, aliases: .two, faultPolicy: .reenter, ending: .faultLoop),
        payload(
            "crash", "an instruction that no processor has",
            """
            There is no interrupt table, so an exception becomes a triple fault: KVM_EXIT_SHUTDOWN, and the \
            verdict that the guest crashed.
            """, ending: .crash),
        payload(
            "hang", "a guest that is never done, and never leaves",
            """
            A jump to itself makes no exit. Only a kick from outside ends KVM_RUN, when the time limit is over.
            """, ending: .timeLimit),
    ]

    /// The guest with this name; nil if there is none. Case matters.
    public static func named(_ name: String) -> Payload? {
        all.first { $0.name == name }
    }

    /// Names of guests that `name` may be a misspelling or a prefix of, the most similar first. Empty if none
    /// is similar.
    public static func nearest(to name: String) -> [String] {
        NearWords.nearest(to: name, among: all.map(\.name))
    }

    private static func payload(
        _ name: String, _ shows: String, _ detail: String, aliases: Aliases = .one, vcpus: Int = 1,
        contents: ContentPolicy = .preserve, needsPreservation: Bool = false,
        faultPolicy: FaultPolicy = .convert, ending: Payload.Ending = .exit(status: 0)
    ) -> Payload {
        // Without an image it would crash at once, and say so; the tests see to it that each has one.
        Payload(
            name: name, shows: shows, detail: detail, aliases: aliases, vcpus: vcpus, ramSize: 16 << 20,
            faultPolicy: faultPolicy, contents: contents, needsPreservation: needsPreservation,
            ending: ending, image: Images.byName[name] ?? [])
    }
}
