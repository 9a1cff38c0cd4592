// SPDX-License-Identifier: MIT
extension Hazard {
    /// All hazards: those of Linux 7.4 (A) by number, those of posted versions only (H), then those of SNP, TDX, pKVM and
    /// CCA (V).
    public static let all: [Hazard] =
        (inUse + afterCalls + guests).sorted { $0.number < $1.number } + historic
        + vendor.sorted { $0.number < $1.number }

    private static let inUse: [Hazard] = [
        Hazard(
            "A3", "EAGAIN occurs occasionally although nothing pins the pages",
            trigger: "another thread of the host accesses the mapping while the range is converted",
            means:
                "A page that is being faulted in has an additional reference for a moment. With one such thread, up to 6 % of "
                + "conversions failed this way, without any pin.",
            cure:
                "Retry a few times, at once at first and then after longer and longer waits. The reference goes away by itself.",
            litmus: ["race-convert-and-read", "race-convert-and-write", "race-the-retry-that-succeeds"]),
        Hazard(
            "A4", "EAGAIN at the same offset on every retry",
            trigger:
                "a long-term pin: VFIO or iommufd, RDMA, a fixed buffer of io_uring (which needs no privilege)",
            means: "The pin stays until its owner releases it. Waiting does not help.",
            cure:
                "Keep track of everything that pins guest memory, and have the owner unpin a page before it is converted. Give up after "
                + "a limited number of retries.",
            litmus: ["held-by-io-uring", "held-by-gup-test", "failed-call-twice"]),
        Hazard(
            "A5", "EAGAIN until a pipe or device has finished",
            trigger:
                "a page of the range is in a pipe (vmsplice), or is the buffer of an O_DIRECT request in progress",
            means: "The reference is released when the pipe is read or the device has completed the request.",
            cure:
                "Drain the pipe or wait for the device, without holding a lock that either needs; then call again.",
            litmus: ["held-by-vmsplice", "held-by-o-direct", "row-11-page-in-use"]),
        Hazard(
            "A6", "one page in use fails a huge request",
            trigger: "the conversion of a large range in which a single page is pinned",
            means:
                "The call is all or nothing: no page is converted, and error_offset names the lowest page in use.",
            cure:
                "Convert the pages before error_offset, skip that page, continue after it, and try the page again at the end (--in-use "
                + "bisect).",
            litmus: [
                "all-or-nothing", "bisect-around-a-page-in-use", "bisect-two-pages-in-use",
                "regions-page-in-use-in-the-second",
            ]),
        Hazard(
            "A7", "a conversion that never ends",
            trigger: "unlimited retries while a vCPU or a device keeps taking new references",
            means:
                "Whenever the kernel checks the range, some page has a reference, each time from another holder.",
            cure:
                "Limit the retries by number and by time (--attempts, --deadline), and return an error to the guest.",
            litmus: ["a-new-holder-each-time", "race-retry-for-ever"]),
        Hazard(
            "A10", "the same pin fails one call and not another",
            trigger: "a range with a held page that is already private, entirely or in part",
            means:
                "For a range that is uniformly private already, the call returns 0 without a check. In a mixed range every page is "
                + "checked, also the private ones.",
            cure: "Do not take success as proof that no page is in use.",
            litmus: ["uniform-ok-mixed-eagain", "a-mixed-range-in-use", "row-9-nothing-changes"]),
    ]

    private static let afterCalls: [Hazard] = [
        Hazard(
            "A8", "a failed call leaves the range unmapped in the host",
            trigger: "EAGAIN on a conversion to private",
            means:
                "The kernel unmaps the range from every process before it checks references. The pages fault back in with their "
                + "contents; only time is lost.",
            cure: "Expect page faults after a failed call, and no lost data.",
            litmus: ["failed-call-the-host", "failed-call-the-guest", "unmapped-by-a-failed-call"]),
        Hazard(
            "A9", "the guest faults on pages that were not converted",
            trigger: "munmap or MADV_DONTNEED on the mapping that a memslot's userspace_addr names",
            means:
                "KVM follows changes of that mapping and drops the guest's page table entries, although they point to the file.",
            cure:
                "Leave the mapping behind userspace_addr alone while the guest runs; use a second mapping for other purposes.",
            litmus: ["a-slot-that-is-a-mapping", "dontneed-under-the-guest", "zap-by-dontneed"]),
        Hazard(
            "A11", "a device works on a page that the guest no longer has",
            trigger: "FALLOC_FL_PUNCH_HOLE on a page that is pinned",
            means:
                "The hole detaches the page from the file. A later conversion finds a fresh page and succeeds, while the holder of the pin "
                + "keeps the old page.",
            cure:
                "Have the holder release the page before you punch a hole. The conversion's success does not show the problem.",
            litmus: ["punch-while-held", "a-hold-on-the-fresh-page", "punch-between-eagain-and-retry"]),
        Hazard(
            "A12", "the data of the wrong page",
            trigger: "a memslot whose userspace_addr is not the mapping of its file at its offset",
            means:
                "KVM's own accesses go through userspace_addr and the guest's go to the file. KVM does not check that they agree.",
            cure: "Compute both from one value: userspace_addr = mapping + the slot's offset in the file.",
            litmus: ["the-wrong-userspace-address", "the-wrong-offset-in-userspace"]),
        Hazard(
            "A13", "EFAULT, and the real result is lost",
            trigger: "the struct of the call is in memory that the kernel cannot write",
            means:
                "The kernel could not write error_offset. The real result was EAGAIN or ENOMEM; success writes nothing.",
            cure: "Keep the struct in writable memory.",
            litmus: ["row-12-eagain-is-hidden", "row-12-enomem-is-hidden"]),
        Hazard(
            "A15", "all operations on the file stall for a while",
            trigger: "one call for a very large range, for example 1 GiB",
            means:
                "While a conversion runs, other conversions of the file, host faults, vCPU faults and fallocate wait for it.",
            cure: "Convert in chunks (--chunk).",
            litmus: ["sixty-four-mebibytes", "sixty-four-mebibytes-in-chunks"]),
        Hazard(
            "A16", "kernel memory that grows with every conversion",
            trigger: "every other page is converted, so that no two neighbours have the same state",
            means:
                "The kernel records attributes as ranges. One range per page is the worst case, and it can end in ENOMEM.",
            cure:
                "Limit how finely a guest may divide its memory, and merge neighbouring ranges where possible.",
            litmus: ["every-other-page", "row-10-no-memory", "row-10-every-other-page"]),
    ]

    private static let guests: [Hazard] = [
        Hazard(
            "A14", "guest memory has become MMIO",
            trigger: "the memslot of a private page is deleted",
            means:
                "Without a memslot the address is not RAM. The file keeps the page's state, which applies again when a slot is set.",
            cure:
                "Delete a memslot only when the guest no longer uses it, and treat MMIO inside RAM as this error.",
            litmus: ["deleted-memslot", "a-private-page-without-its-slot", "the-slot-comes-back-elsewhere"]),
        Hazard(
            "A28", "KVM silently stops updating its own structure in guest memory",
            trigger: "the page with kvmclock or steal time becomes private",
            means: "KVM writes the structure through the host's mapping, which cannot reach a private page.",
            cure: "Keep such pages shared, and refuse to convert them.",
            litmus: ["kvm-clock-on-a-private-page"]),
        Hazard(
            "A29", "SIGBUS kills a thread of the VMM",
            trigger: "a device model accesses, through the mapping, a page that the guest has made private",
            means:
                "The mapping still exists, but a private page behind it is not accessible. A system call would fail with EFAULT instead.",
            cure: "Access guest memory with calls that can fail, or under the lock of the map of states.",
            litmus: ["a-device-meets-a-private-page", "host-access", "the-mapping-stays"]),
        Hazard(
            "A30", "child and helper processes lose access, too",
            trigger: "a conversion to private while other processes map the file",
            means: "The kernel unmaps the range from every process, however the process got its mapping.",
            cure: "Tell every process that maps guest memory before you convert it.",
            litmus: [
                "a-child-loses-the-page", "children-and-their-parent", "every-view-loses-a-private-page",
            ]),
        Hazard(
            "A33", "two conversions succeed, and one of them is undone",
            trigger: "two threads convert the same range in opposite directions",
            means: "The thread that takes the kernel's lock last wins, and both calls return 0.",
            cure:
                "Hold one lock around the call and the map of states, and decide under that lock which state the range shall have.",
            litmus: ["race-opposite-ways", "race-hypercalls-opposite-ways", "race-overlapping-ranges"]),
        Hazard(
            "A34", "a vCPU faults endlessly, at full speed",
            trigger:
                "the VMM runs the vCPU again without converting the page, or converts it to the wrong state",
            means: "The same access finds the page in the same state, and KVM_RUN returns at once.",
            cure:
                "Count consecutive memory faults with the same registers, and stop the guest. Do not convert a page that already has the "
                + "state that the access needs.",
            litmus: [
                "fault-loop", "aliases-converted-and-back", "race-the-other-alias",
                "race-converting-opposite-ways",
            ]),
    ]

    private static let historic: [Hazard] = [
        Hazard(
            "H1", "EINVAL on the retry after EAGAIN",
            trigger: "the struct of the failed call is reused, with error_offset still set",
            means:
                "These versions refuse an error_offset other than 0 on input, even if all other arguments are valid.",
            cure: "Fill in a new struct for every attempt.", versions: [.rfcV2, .rfcV3, .rfcV4],
            litmus: ["retry-with-the-same-struct", "retry-after-eagain", "row-3-error-offset-on-input"]),
        Hazard(
            "H2", "EAGAIN although nothing pins the pages, while vCPUs run",
            trigger: "a vCPU faults in a page of the range at that moment",
            means:
                "Between finding a page and mapping it, the vCPU held a reference: in 502 of 85,000 conversions, and in none of 88,000 "
                + "with the applied code.",
            cure: "Retry at once.", versions: [.rfcV1, .rfcV2, .rfcV3, .rfcV4, .rfcV5, .v6],
            litmus: ["race-vcpu-reads", "race-vcpu-in-a-long-range", "race-vcpu-and-a-hypercall"]),
        Hazard(
            "H22", "a call that changes no state destroys shared data",
            trigger: "flags 0 on a range that is already shared",
            means:
                "Without a content mode these versions overwrite existing pages, even where no attribute changes.",
            cure: "Pass PRESERVE, or do not call if the range already has the right state.",
            versions: [.rfcV3, .rfcV4, .rfcV5],
            litmus: ["shared-again-is-harmless", "private-again-is-harmless", "row-9-nothing-changes"]),
        Hazard(
            "H24", "a size that is not a multiple of the page size is accepted",
            trigger: "for example a size of one page and one byte",
            means: "The size is silently rounded down, so that less is converted than requested.",
            cure: "Round sizes before the call.", versions: [.rfcV1],
            litmus: ["a-page-and-a-byte", "row-7-alignment"]),
    ]
}
