// SPDX-License-Identifier: MIT
extension Hazard {
    /// All hazards: those of Linux 7.4 (A) by number, then those that only posted versions have (H).
    public static let all: [Hazard] =
        (inUse + afterCalls + guests).sorted { $0.number < $1.number } + historic

    private static let inUse: [Hazard] = [
        Hazard(
            "A3", "EAGAIN now and then, though nobody pins anything",
            trigger: "another thread of the host touches the mapping while the range is converted",
            means:
                "A page that is just being faulted in has one more reference for a moment. With one such thread up to 6 % of "
                + "conversions met it; no pin was anywhere.",
            cure: "Retry a few times at once, and wait a little longer each time. It goes away by itself.",
            litmus: ["race-convert-and-read", "race-convert-and-write", "race-the-retry-that-succeeds"]),
        Hazard(
            "A4", "EAGAIN at the same offset, for ever",
            trigger:
                "a long-term pin: VFIO or iommufd, RDMA, a fixed buffer of io_uring (which needs no privilege)",
            means: "The pin stays until its owner takes it back, and no waiting helps.",
            cure:
                "Know who pins guest memory, and have the owner unpin the page before it is converted; give up after a while.",
            litmus: ["held-by-io-uring", "held-by-gup-test", "failed-call-twice"]),
        Hazard(
            "A5", "EAGAIN until something is drained",
            trigger:
                "a page of the range lies in a pipe (vmsplice), or under O_DIRECT that has not completed",
            means: "The reference goes when the pipe is read or the device has answered.",
            cure: "Drain the pipe or wait for the device, without a lock that they need; then call again.",
            litmus: ["held-by-vmsplice", "held-by-o-direct", "row-11-page-in-use"]),
        Hazard(
            "A6", "one page in use fails a huge request",
            trigger: "a bulk conversion of a range in which a single page is pinned",
            means:
                "The call is all or nothing: nothing is converted, and error_offset names the lowest such page.",
            cure:
                "Convert what lies before error_offset, leave that page out, go on behind it and come back to it (--in-use bisect).",
            litmus: [
                "all-or-nothing", "bisect-around-a-page-in-use", "bisect-two-pages-in-use",
                "regions-page-in-use-in-the-second",
            ]),
        Hazard(
            "A7", "a conversion that never ends",
            trigger: "retrying for ever while a vCPU or a device takes new references all the time",
            means: "There is always a holder when the kernel looks, each time another one.",
            cure: "Bound the retries by number and by time (--attempts, --deadline), and tell the guest no.",
            litmus: ["a-new-holder-each-time", "race-retry-for-ever"]),
        Hazard(
            "A10", "the same pin fails one call and not another",
            trigger: "a range that is private already, in part or as a whole, with a page of it held",
            means:
                "A range that is uniformly private already answers 0 without a check; a mixed one is checked page by page, the "
                + "private pages too.",
            cure: "Do not take success for a proof that nobody holds the pages.",
            litmus: ["uniform-ok-mixed-eagain", "a-mixed-range-in-use", "row-9-nothing-changes"]),
    ]

    private static let afterCalls: [Hazard] = [
        Hazard(
            "A8", "host mappings are gone after a call that failed",
            trigger: "EAGAIN on a conversion to private",
            means:
                "The kernel unmaps the range from every process before it looks at references. The pages fault back in, "
                + "data intact: only time is lost.",
            cure: "Expect page faults after a failed call, and no lost data.",
            litmus: ["failed-call-the-host", "failed-call-the-guest", "unmapped-by-a-failed-call"]),
        Hazard(
            "A9", "the guest faults pages in again that nobody converted",
            trigger: "munmap or MADV_DONTNEED on the memory that userspace_addr of a slot names",
            means:
                "KVM watches that memory and drops the guest's mappings of it, though they lead to the file.",
            cure:
                "Leave the mapping behind userspace_addr alone while the guest runs; use another one for your own work.",
            litmus: ["a-slot-that-is-a-mapping", "dontneed-under-the-guest", "zap-by-dontneed"]),
        Hazard(
            "A11", "a device works on a page that the guest no longer has",
            trigger: "FALLOC_FL_PUNCH_HOLE on a page that is pinned",
            means:
                "The hole detaches the page. A later conversion succeeds on the fresh one, while who holds the pin keeps the "
                + "old one.",
            cure:
                "Have the holder let go before a hole is punched; success of the conversion does not show it.",
            litmus: ["punch-while-held", "a-hold-on-the-fresh-page", "punch-between-eagain-and-retry"]),
        Hazard(
            "A12", "data of the wrong page",
            trigger: "a memslot whose userspace_addr is not the mapping of its file at its offset",
            means:
                "KVM's own accesses go through userspace_addr and the guest's to the file. Nobody checks that they agree.",
            cure: "Derive both from one place: userspace_addr = mapping + the slot's offset in the file.",
            litmus: ["the-wrong-userspace-address", "the-wrong-offset-in-userspace"]),
        Hazard(
            "A13", "EFAULT, and the real answer is lost",
            trigger: "the struct of the call lies in memory that cannot be written",
            means:
                "The kernel could not write error_offset. It was EAGAIN or ENOMEM; success writes nothing.",
            cure: "Keep the struct in writable memory.",
            litmus: ["row-12-eagain-is-hidden", "row-12-enomem-is-hidden"]),
        Hazard(
            "A15", "everything on the file stalls for a while",
            trigger: "one call for a very large range, 1 GiB for instance",
            means:
                "Conversions of a file exclude each other, host faults, vCPU faults and fallocate while they last.",
            cure: "Convert in pieces (--chunk).",
            litmus: ["sixty-four-mebibytes", "sixty-four-mebibytes-in-chunks"]),
        Hazard(
            "A16", "memory of the kernel that grows with every conversion",
            trigger: "every other page converted, so that no two neighbours agree",
            means:
                "Attributes are kept as ranges; a range for each page is the worst case, and ENOMEM its end.",
            cure: "Limit how finely a guest may divide its memory, and join what can be joined.",
            litmus: ["every-other-page", "row-10-no-memory", "row-10-every-other-page"]),
    ]

    private static let guests: [Hazard] = [
        Hazard(
            "A14", "guest memory that has turned into MMIO",
            trigger: "the memslot of a private page is deleted",
            means:
                "Without a slot the address is no RAM. The attribute stays with the file and is there when a slot comes back.",
            cure:
                "Take a slot away only when the guest no longer uses it; treat MMIO inside RAM as this error.",
            litmus: ["deleted-memslot", "a-private-page-without-its-slot", "the-slot-comes-back-elsewhere"]),
        Hazard(
            "A28", "KVM no longer writes its own structure in guest memory, and nobody is told",
            trigger: "the page that kvmclock or steal time lives in becomes private",
            means: "KVM writes there on the host's side, where a private page is out of reach.",
            cure: "Keep such pages shared, and refuse to convert them.",
            litmus: ["kvm-clock-on-a-private-page"]),
        Hazard(
            "A29", "a thread of the VMM dies of SIGBUS",
            trigger: "a device model touches, through the mapping, a page that the guest made private",
            means:
                "The mapping stays, but a private page behind it cannot be touched. By system call it is EFAULT instead.",
            cure: "Touch guest memory by calls that can fail, or under the lock of the map of states.",
            litmus: ["a-device-meets-a-private-page", "host-access", "the-mapping-stays"]),
        Hazard(
            "A30", "a child or helper process loses the memory too",
            trigger: "a conversion to private while other processes map the file",
            means: "The kernel unmaps the range in every process, however they came by it.",
            cure: "Tell every process that maps guest memory before it is converted.",
            litmus: [
                "a-child-loses-the-page", "children-and-their-parent", "every-view-loses-a-private-page",
            ]),
        Hazard(
            "A33", "two conversions succeeded, and one of them is undone",
            trigger: "two threads convert the same range in opposite directions",
            means: "Whoever takes the lock last wins, and both calls return 0.",
            cure:
                "Have one lock around the call and the map of states, and decide under it what the state shall be.",
            litmus: ["race-opposite-ways", "race-hypercalls-opposite-ways", "race-overlapping-ranges"]),
        Hazard(
            "A34", "a vCPU that faults without end, at full speed",
            trigger: "the VMM enters it again without converting, or converts the wrong way",
            means: "The same access meets the same state, and KVM_RUN comes back at once.",
            cure:
                "Count memory faults in a row with the same registers, and stop the guest. Do not convert what already is as the "
                + "access wants it.",
            litmus: [
                "fault-loop", "aliases-converted-and-back", "race-the-other-alias",
                "race-converting-opposite-ways",
            ]),
    ]

    private static let historic: [Hazard] = [
        Hazard(
            "H1", "EINVAL on the retry after EAGAIN",
            trigger: "the struct of the failed call is used again, with error_offset still in it",
            means:
                "These versions refuse an error_offset other than 0 on input; the arguments are right otherwise.",
            cure: "Fill a new struct for every attempt.", versions: [.rfcV2, .rfcV3, .rfcV4],
            litmus: ["retry-with-the-same-struct", "retry-after-eagain", "row-3-error-offset-on-input"]),
        Hazard(
            "H2", "EAGAIN though nobody pins, while vCPUs run",
            trigger: "a vCPU faults a page of the range in at that moment",
            means:
                "Between finding a page and mapping it the vCPU held a reference: 502 times in 85,000 conversions, and never in "
                + "88,000 with the code that was applied.",
            cure: "Retry at once.", versions: [.rfcV1, .rfcV2, .rfcV3, .rfcV4, .rfcV5, .v6],
            litmus: ["race-vcpu-reads", "race-vcpu-in-a-long-range", "race-vcpu-and-a-hypercall"]),
        Hazard(
            "H22", "shared data destroyed by a call that changes nothing",
            trigger: "flags 0 on a range that is shared already",
            means:
                "Without a content mode these versions overwrite pages that exist, even where no attribute changes.",
            cure: "Pass PRESERVE, or leave out the call where the state is right.",
            versions: [.rfcV3, .rfcV4, .rfcV5],
            litmus: ["shared-again-is-harmless", "private-again-is-harmless", "row-9-nothing-changes"]),
        Hazard(
            "H24", "a size that is no whole number of pages is accepted",
            trigger: "size = a page and a byte",
            means: "The size is cut down without a word, so that less is converted than was asked for.",
            cure: "Round sizes before the call.", versions: [.rfcV1],
            litmus: ["a-page-and-a-byte", "row-7-alignment"]),
    ]
}
