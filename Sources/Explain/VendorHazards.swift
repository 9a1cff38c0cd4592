// SPDX-License-Identifier: MIT
extension Hazard {
    /// The hazards of SNP, TDX, pKVM and CCA guests and of their monitors (docs/CONFIDENTIAL.md), by number.
    static let vendor: [Hazard] = validation + requests + touches + monitors

    private static let validation: [Hazard] = [
        Hazard(
            "V1", "a host swaps the contents of a private page, and the guest notices nothing",
            trigger: "SNP: the guest validates a page again after its validation has disappeared",
            means:
                "The host gave the address another page and the guest validated that, too. Now two pages are valid for the address, "
                + "and the host chooses which of them the guest sees. PVALIDATE reported nothing, because the second page was new.",
            cure:
                "Remember which pages are validated, and stop if one of them raises #VC. Never validate a page twice.",
            litmus: [
                "snp/remapped-page-validated-again", "snp/remapped-page-noticed",
                "tdx/remapped-page-must-be-accepted-again",
            ]),
        Hazard(
            "V2", "a page that should be new was valid before",
            trigger: "SNP: the guest ignores the carry flag of PVALIDATE",
            means: "CF 1 says that the page was in the requested state already, so its bytes are old.",
            cure: "Treat CF 1 as an error.",
            litmus: ["snp/pvalidate-twice-reports-no-change", "snp/conversion-back-needs-validation-again"]),
        Hazard(
            "V3", "accepted memory has old bytes where zeros are expected",
            trigger: "TDX: the guest ignores the status TDX_PAGE_ALREADY_ACCEPTED",
            means:
                "ACCEPT of an accepted page warns and does not zero it. The opposite proves nothing either: ACCEPT succeeds again "
                + "if the host has removed the page, and then its contents are lost.",
            cure: "Treat the warning as an error, or zero the page.",
            litmus: ["tdx/accept-twice-is-a-warning", "tdx/accept-after-removal-loses-the-page"]),
        Hazard(
            "V4", "memory that was unplugged comes back with old private pages",
            trigger: "the host punches only the shared pages of unplugged memory",
            means: "The private pages stay assigned and accepted, so the guest's next validation meets them.",
            cure: "Take the private pages back as well.",
            litmus: [
                "snp/unplug-leaves-private-pages", "snp/unplug-punches-everything",
                "tdx/unplug-punches-everything",
            ]),
        Hazard(
            "V5", "a validated page has a host's or an older guest's bytes",
            trigger: "SNP: the guest uses a page after PVALIDATE without writing it first",
            means:
                "Validation does not touch the bytes. They were written with another key and read as garbage, or they are the guest's "
                + "own old plaintext, which a host can choose.",
            cure: "Initialise every page after validating it.",
            litmus: ["snp/private-page-is-garbage-until-written", "snp/same-bytes-after-there-and-back"]),
        Hazard(
            "V7", "a private page changes although the guest has rescinded it on all vCPUs",
            trigger: "SNP: the guest does not flush its TLBs after PVALIDATE has rescinded a page",
            means: "PVALIDATE promises no flush, so another vCPU may still use the old translation.",
            cure: "Flush the TLBs before the page is shared.",
            untested:
                "the model looks at the reverse map table at each access, and no document says how long a stale TLB entry lasts"
        ),
        Hazard(
            "V23", "validation of 2 MiB fails, or a request for 4 KiB exits",
            trigger: "the size in the instruction is not that of the host's entry",
            means: "SNP answers EAX 6, TDX TDX_PAGE_SIZE_MISMATCH, and nothing has changed.",
            cure: "Validate the 512 small pages.",
            litmus: ["snp/large-pvalidate-of-small-pages", "tdx/large-accept-of-small-pages"]),
        Hazard(
            "V24", "a memory fault on a private page that no memslot has",
            trigger: "the guest validates or touches an address where it has no memory",
            means:
                "The access itself says that it is private, so KVM reports the fault. There is nothing to convert.",
            cure: "The monitor looks for the memslot first, and ends the guest if there is none.",
            litmus: ["snp/pvalidate-of-a-hole", "tdx/accept-of-a-hole"]),
        Hazard(
            "V31", "a page that was just shared becomes private again, and the next DMA fails",
            trigger: "SNP: the guest validates a page after it has shared it",
            means:
                "PVALIDATE of a shared page is a memory fault that asks for a private page, and an obedient monitor converts.",
            cure: "The guest rescinds before it shares; the monitor converts on request only.",
            litmus: ["snp/pvalidate-of-a-shared-page"]),
        Hazard(
            "V35", "the last page of a range is left in the other state",
            trigger: "the end of the range is not page aligned, and one of two loops rounds up",
            means: "One loop validates or accepts a page that the other has not asked for.",
            cure: "Round the range once, and use the result for both.",
            litmus: [
                "snp/accept-belongs-to-the-converted-range", "tdx/accept-belongs-to-the-converted-range",
            ]),
        Hazard(
            "V36", "pages are zero after a conversion was rolled back",
            trigger: "TDX: the guest accepts pages again because their release failed",
            means: "ACCEPT zeroes every page that the host has removed meanwhile.",
            cure: "Do not roll back; finish the conversion or stop.",
            litmus: ["tdx/rollback-by-accept-loses-the-page"]),
    ]

    private static let requests: [Hazard] = [
        Hazard(
            "V8", "some pages of a refused request are shared",
            trigger: "SNP: a page state change is refused at one of its entries",
            means:
                "The entries before it are done, and cur_entry says how many. Going back is not safe: that, too, can be refused.",
            cure: "Go on from cur_entry, or leave the rest of the range unused.",
            litmus: ["snp/refused-in-the-middle"]),
        Hazard(
            "V9", "a guest leaves pages unconverted or converts some twice",
            trigger: "SNP: a host moves cur_entry backward or makes end_entry smaller",
            means: "The buffer is shared memory, so the guest reads what the host wants it to read.",
            cure: "Check that cur_entry only grows, and compare end_entry with a private copy.",
            litmus: ["snp/host-shrinks-the-list"]),
        Hazard(
            "V10", "a host kernel reads past its buffer",
            trigger: "SNP: end_entry is larger than the buffer of a page state change",
            means: "The number comes from the guest.",
            cure: "Refuse an end_entry above 252.",
            untested: "the tests of the software CPU make such requests"),
        Hazard(
            "V11", "a host kernel acts on a value that it has not checked",
            trigger: "SNP: the host reads a field of the GHCB twice, and the guest changes it in between",
            means: "The GHCB is shared memory (CVE-2023-4155).",
            cure: "Copy the fields once, then check the copy.",
            untested: "in the tests of the software CPU, another vCPU changes the GHCB between two exits"),
        Hazard(
            "V12", "the boot fails when much memory is converted",
            trigger: "TDX: the guest takes the answer RETRY of MapGPA for a failure",
            means: "The chunks before R11 are done.",
            cure: "Call again from R11 on.",
            litmus: ["tdx/busy-page-is-retry"]),
        Hazard(
            "V13", "the TD dies at the start of a range that it has just converted",
            trigger: "TDX: the guest handles RETRY, and then accepts only the part that it retried",
            means: "The pages before R11 were converted by the first call and still have to be accepted.",
            cure: "Accept the whole range.",
            litmus: ["tdx/only-the-tail-accepted", "tdx/head-and-tail-accepted"]),
        Hazard(
            "V14", "a guest calls MapGPA for ever, or goes on at a wrong address",
            trigger:
                "TDX: R11 makes no progress, is outside of the range, or is compared without its shared bit",
            means: "The host chooses R11.",
            cure:
                "Check that R11 is in the range, with the shared bit, and bound the attempts without progress.",
            litmus: ["tdx/retry-without-progress"]),
        Hazard(
            "V15", "a page in use makes a guest give up",
            trigger: "SNP: the monitor answers EAGAIN to a page state change and expects another try",
            means:
                "The protocol has no answer that says retry: the guest is told that the request was refused.",
            cure: "The monitor retries by itself before it answers.",
            litmus: ["snp/busy-page-is-refused"]),
        Hazard(
            "V22", "memory that is still shared is used as private memory",
            trigger: "the guest frees or uses the pages of a request that failed half way",
            means: "The host can read them (CVE-2024-35939, CVE-2024-36911 to 36913).",
            cure: "Leak the pages.",
            litmus: ["snp/refused-pages-used-anyway", "tdx/refused-pages-used-anyway"]),
        Hazard(
            "V27", "a monitor reports an endless loop of memory faults that is none",
            trigger: "CCA: a memory fault whose page has the requested state already, several times in a row",
            means: "KVM exits for each request of the guest, even if nothing has to change.",
            cure: "Enter again; count faults at the same RIP only.",
            untested: "the model has no CCA, whose RIPAS requests are another protocol"),
        Hazard(
            "V30", "KVM_RUN fails with EINVAL after a request of the guest",
            trigger: "the monitor answers a hypercall exit with a number other than 0, EAGAIN or EINVAL",
            means:
                "KVM refuses other answers, by a series that kvm-x86 took in May 2026. Errnos are positive here, unlike those that "
                + "hypercalls of other guests return in RAX.",
            cure: "Answer 0, EAGAIN or EINVAL.",
            litmus: ["snp/wrong-answer-fails-the-run", "tdx/wrong-answer-fails-the-run"]),
        Hazard(
            "V33", "the guest is told that a request failed, and the page has changed state",
            trigger: "the monitor sets the attribute, and then its cleaning of the page fails",
            means: "The guest and the host disagree about the page.",
            cure: "Refuse before anything has changed whatever cannot be done.",
            litmus: ["snp/monitor-zeroes-only-shared-pages", "tdx/monitor-zeroes-only-shared-pages"]),
    ]

    private static let touches: [Hazard] = [
        Hazard(
            "V6", "the host reads a secret of the guest",
            trigger: "the guest shares a page without wiping it",
            means:
                "A software-protected VM and pKVM show the plaintext. SNP shows ciphertext and TDX zeros, but no specification "
                + "promises either.",
            cure: "Wipe a page before it is shared.",
            litmus: ["secret-in-a-page-that-is-shared", "snp/secret-in-a-page-that-is-shared"]),
        Hazard(
            "V16", "a guest stops at its first touch of a page",
            trigger: "the guest touches private memory before it has validated or accepted it",
            means:
                "SNP raises #VC with error code 0x404 in the guest. On TDX the VM is dead (EIO), or the guest gets #VE.",
            cure: "Validate or accept first.",
            litmus: [
                "snp/touch-before-pvalidate", "tdx/touch-before-accept-ends-the-td",
                "tdx/accept-before-touch",
            ]),
        Hazard(
            "V17", "a guest stops at a page that it did not mean to touch",
            trigger: "an unaligned read runs into the next page, which is in the other state",
            means: "The CPU checks each page of an access.",
            cure: "Keep a page of the same state behind each buffer, or read by the byte.",
            litmus: [
                "snp/read-that-reaches-into-an-invalid-page", "tdx/read-that-reaches-into-a-pending-page",
            ]),
        Hazard(
            "V18", "a double fault in the handler of #VE",
            trigger: "TDX: a second #VE before the guest has read the information of the first",
            means: "The module keeps the information of one #VE.",
            cure: "Call TDG.VP.VEINFO.GET first, and touch nothing shared before.",
            untested: "the tests of the software CPU have such a handler"),
        Hazard(
            "V19", "a guest kernel emulates an access that user space has chosen",
            trigger:
                "the handler of MMIO emulates an access of the kernel to an address that user space has passed to it",
            means: "User space makes the kernel read or write a device (CVE-2024-47727, of TDX guests).",
            cure: "Emulate an access only if its address is one of the kernel's.",
            untested: "the tests of the software CPU have such a handler"),
        Hazard(
            "V20", "a kernel that was started by kexec stops, or loses data",
            trigger: "pages of the old kernel are still shared",
            means:
                "The new kernel touches them as private memory. An obedient monitor converts them under its hands.",
            cure: "Make every page private before kexec.",
            litmus: [
                "snp/kexec-with-pages-still-shared", "tdx/kexec-with-pages-still-shared",
                "tdx/kexec-converts-first",
            ]),
        Hazard(
            "V21", "a guest cannot reach its own GHCB",
            trigger: "SNP: the page of the GHCB becomes private while it is still in use",
            means: "The shared alias no longer leads to it.",
            cure: "Convert the page of the GHCB last.",
            litmus: ["snp/ghcb-made-private-too-early"]),
        Hazard(
            "V25", "the host reads old bytes of a private page",
            trigger: "SNP without coherence: no cache lines are evicted after a page became private",
            means: "Lines that were cached through the shared alias may be written back.",
            cure: "Touch the first and the last byte of each 4 KiB, unless CPUID says that it is not needed.",
            untested: "the model keeps the bytes of a page once for each key, and has no cache lines"),
        Hazard(
            "V34", "a guest exits with a memory fault at its first instruction",
            trigger: "the monitor never made the guest's memory private",
            means: "Without paging every access is private.",
            cure: "Convert the guest's memory before the launch ends.",
            litmus: ["snp/memory-that-was-never-made-private", "tdx/memory-that-was-never-made-private"]),
        Hazard(
            "V37", "a guest emulates an access to a page that is not validated",
            trigger: "SNP: the handler of #VC decodes the instruction before it looks at the error code",
            means: "Error code 0x404 is no request for emulation.",
            cure: "Test for 0x404 first.",
            untested: "the tests of the software CPU have such a handler"),
    ]

    private static let monitors: [Hazard] = [
        Hazard(
            "V26", "a stray access destroys a page",
            trigger: "the monitor converts on every memory fault",
            means:
                "The kind in the exit is that of the access, so an access through the wrong alias asks for a conversion.",
            cure: "Convert on request only; or only if the contents survive.",
            litmus: [
                "snp/stray-access-obeyed", "snp/stray-access-refused", "tdx/stray-access-obeyed",
                "tdx/stray-access-refused",
            ]),
        Hazard(
            "V28", "the TDX module refuses to remove a page",
            trigger: "TDX: the host removes a page that is not blocked, or before TDH.MEM.TRACK",
            means: "A vCPU may still use the old entry.",
            cure: "BLOCK, TRACK, an interrupt to each vCPU, then REMOVE.",
            litmus: ["tdx/removal-needs-a-block", "tdx/removal-needs-a-track"]),
        Hazard(
            "V29", "a device cannot reach its buffer",
            trigger: "DMA to a page that is not shared, or with the C-bit or shared bit left in the address",
            means: "The IOMMU refuses it on SNP; an emulated device gets SIGBUS or EFAULT.",
            cure: "Use a shared bounce buffer, and take the bit off the address.",
            litmus: ["snp/device-cannot-reach-a-private-page", "snp/bounce-buffer"]),
        Hazard(
            "V32", "contents that a conversion has kept are gone",
            trigger: "the monitor punches pages of the guest_memfd after they became shared",
            means:
                "That frees memory if private and shared pages are apart. In place they are the same pages.",
            cure: "Do not punch where conversion is in place.",
            litmus: ["punch-after-sharing-loses-contents", "snp/punch-after-sharing-loses-ciphertext"]),
    ]
}
