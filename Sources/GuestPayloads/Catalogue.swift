// SPDX-License-Identifier: MIT
import MiniVMM

/// The demo guests, in the order in which a newcomer should run them.
public enum Catalogue {
    /// All guests that are described here and assembled in `guest/`.
    public static let all: [Payload] = [
        payload(
            "hello", "boots, prints its environment and exits",
            """
            The boot contract: a boot information page, a console, an exit status. The guest prints the size of its RAM \
            and the number of vCPUs and aliases. It requests no conversion, so the only one in the trace is the \
            monitor's own: the boot image is made private in place.
            """),
        payload(
            "explicit", "conversions that the guest requests by hypercall",
            """
            KVM_HC_MAP_GPA_RANGE on one page, on 16 pages, and on 2 MiB. Each time the guest shares a message, the host \
            reads it and writes an answer, and the pages become private again: then host accesses fail (EFAULT), and \
            all bytes are preserved.
            """, needsPreservation: true),
        payload(
            "implicit", "conversions by access, through two aliases",
            """
            RAM has two aliases, as on TDX. An access through the alias that does not match the page's state is a \
            KVM_EXIT_MEMORY_FAULT, and the monitor converts the page. The guest makes accesses of every size, across \
            pages and across the private/shared border, read-modify-writes, and copies from alias to alias.
            """, aliases: .two, needsPreservation: true),
        payload(
            "forget", "conversions that zero the contents",
            """
            Like implicit, but the monitor zeroes the pages that it converts. Data written through one alias is never \
            readable through the other, in any size and in both directions; the neighbouring page keeps all its bytes. \
            Also runs on backends that cannot preserve contents.
            """, aliases: .two, contents: .zero),
        payload(
            "contents", "the content policies: preserve, zero, unspecified",
            """
            Each request names the policy for its contents, in both directions. The monitor honours it, or refuses with \
            EOPNOTSUPP before anything has changed. The output shows which requests this backend honours; guest and \
            host check the bytes.
            """),
        payload(
            "ping-pong", "one page, converted to shared and back 1000 times",
            """
            2000 conversions of the same page, with a counter in it that is incremented after each. It measures the cost \
            of a conversion and shows that no increment is lost. See the latencies in the summary.
            """, needsPreservation: true),
        payload(
            "sweep", "all free RAM, page by page, to shared and back",
            """
            The border between private and shared moves through up to 768 pages, twice. Each page gets its own address \
            as contents while it is shared, and must still have it when it is private. Made for the page timeline.
            """, needsPreservation: true),
        payload(
            "smp", "vCPUs that convert neighbouring pages in parallel",
            """
            The pages of one range are dealt to the vCPUs in turn. Each vCPU converts its own pages to shared and back and \
            checks its neighbours' pages in between: no conversion may change a page outside of its range.
            """, vcpus: 4, needsPreservation: true),
        payload(
            "pinned", "a page in use: EAGAIN, retry, and giving up",
            """
            While the host holds one of eight shared pages, as for DMA, the range cannot become private: EAGAIN. A holder \
            that releases the page on request costs one retry. If the holder keeps the page, the request fails and no \
            byte is lost; after the release, the same request succeeds.
            """, needsPreservation: true),
        payload(
            "resume", "a conversion that stops half-way goes on",
            """
            The host keeps one of eight pages in use. The call fails, and RCX of the reply is the first page that was not \
            converted. When the page is free, the guest repeats the call from there.
            """, needsPreservation: true),
        payload(
            "spurious", "repeating a conversion that is already done",
            """
            The guest requests the state that its pages already have, for whole ranges and for mixed ones. The result is \
            0 and no byte changes. RFC v3 to v5 of the kernel series overwrote memory here.
            """, needsPreservation: true),
        payload(
            "hostile", "invalid requests that the monitor must reject",
            """
            Ranges that wrap, are unaligned or lie outside RAM, undefined attributes and calls, 2^64 - 1 pages, host \
            accesses to private pages, ports without a device. Each request fails with the right errno, and afterwards \
            memory is unchanged.
            """),
        payload(
            "fault-loop", "an access through the wrong alias, never converted",
            """
            The guest reads a private page through the shared alias, and the monitor runs the vCPU again without \
            converting: the same memory fault, endlessly. The monitor must detect the loop and stop the guest (hazard \
            A34).
            """, aliases: .two, faultPolicy: .reenter, ending: .faultLoop),
        confidential(
            "discover", "how an SNP or TDX guest finds out where it runs",
            """
            SEV_STATUS and a #VC for CPUID on SNP; CPUID leaf 0x21 and TDG.VP.INFO on TDX. The guest prints through its GHCB, or \
            by TDG.VP.VMCALL.
            """),
        confidential(
            "first-touch", "a private page is touched before it is validated or accepted",
            """
            SNP raises #VC in the guest, which validates the page and goes on. TDX ends the VM: KVM_RUN is EIO, status 126.
            """),
        confidential(
            "take-then-use", "what a new private page contains",
            """
            The host writes into a shared page, which becomes private. The guest reads garbage on SNP, and zero on TDX.
            """),
        confidential(
            "take-twice", "a page is validated or accepted a second time",
            """
            CF of PVALIDATE, and the warning of ACCEPT, say that the page was the guest's before. Its bytes are old ones.
            """),
        confidential(
            "shared-buffer", "a page that guest and host use together",
            """
            Through the shared alias both see the same bytes. A private page beside it is out of the host's reach.
            """),
        confidential(
            "leaked-secret", "a page is shared with a secret in it",
            """
            The host finds ciphertext on SNP, and zeros on TDX. A software-protected VM would show the secret.
            """),
        confidential(
            "wrong-alias", "a write to a private page through the shared alias",
            """
            A memory fault of the kind of the access. A careful monitor ends the guest; with --on-fault convert the page is lost.
            """, ending: .crash),
        confidential(
            "kexec", "a new kernel touches pages that are still shared",
            """
            The old kernel has shared a page, and the new one takes it for private memory: a memory fault, which ends the guest.
            """, ending: .crash),
        confidential(
            "double-validation", "a guest that validates a lost page again",
            """
            With --host swap-pages the host gives the page another host page. The guest validates that, too, and then the host shows \
            either of them: status 2. With an honest host nothing happens. TDX takes the page away first, so the guest cannot be fooled.
            """),
        confidential(
            "record", "a guest that remembers what it has validated",
            """
            The same attack (--host swap-pages). The guest notices that a page is no longer valid, and asks to be terminated.
            """),
        confidential(
            "partial", "a request that the host refuses",
            """
            With --host refuse: cur_entry of a page state change, or the answer of MapGPA, say how far the request came.
            """),
        confidential(
            "shrunk-list", "a list that the host makes shorter",
            """
            SNP, with --host shrink-list: by the list in shared memory the request is done after one page. The guest compares with \
            its own count and asks again.
            """),
        confidential(
            "lazy-accept", "pages are accepted when they are first touched",
            """
            TDX, with --ve: the handler of #VE accepts the page, and the access runs again. SNP guests must not do the same with \
            PVALIDATE (double-validation).
            """),
        confidential(
            "thousand", "1000 pages to shared and back",
            """
            By page state changes of 250 entries, or by MapGPA; each page is validated or accepted again, and written.
            """),
        payload(
            "crash", "an undefined instruction",
            """
            The guest has no handler for the exception. The monitor's handlers in the guest report it, and the run ends with \
            status 126 as a crash.
            """, ending: .crash),
        payload(
            "hang", "an endless loop without exits",
            """
            A jump to itself never exits. Only a kick from outside ends KVM_RUN when the time limit is reached \
            (--timeout).
            """, ending: .timeLimit),
    ]

    /// The guest with this name; nil if there is none. Case matters.
    public static func named(_ name: String) -> Payload? {
        all.first { $0.name == name }
    }

    /// The names that are similar to `name` or begin with it, the most similar first. Empty if none is similar.
    public static func nearest(to name: String) -> [String] {
        NearWords.nearest(to: name, among: all.map(\.name))
    }

    /// A guest of an SNP VM, which also runs on TDX.
    private static func confidential(
        _ name: String, _ shows: String, _ detail: String, ending: Payload.Ending = .exit(status: 0)
    ) -> Payload {
        payload(
            name, shows, detail, vmType: .snp, aliases: .two, contents: .unspecified, faultPolicy: .refuse,
            ending: ending)
    }

    private static func payload(
        _ name: String, _ shows: String, _ detail: String, vmType: VMType = .softwareProtected,
        aliases: Aliases = .one, vcpus: Int = 1,
        contents: ContentPolicy = .preserve, needsPreservation: Bool = false,
        faultPolicy: FaultPolicy = .convert, ending: Payload.Ending = .exit(status: 0)
    ) -> Payload {
        // A guest without an image would crash at once. A test checks that each guest has one.
        Payload(
            name: name, shows: shows, detail: detail, vmType: vmType, aliases: aliases, vcpus: vcpus,
            ramSize: 16 << 20,
            faultPolicy: faultPolicy, contents: contents, needsPreservation: needsPreservation,
            ending: ending, image: Images.byName[name] ?? [])
    }
}
