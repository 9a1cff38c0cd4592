// SPDX-License-Identifier: MIT
import MiniVMM

/// The chapters of the tour.
enum Chapters {
    private static let raceTest = """
        test    "a conversion and a read"
        memory  1 page shared
        host    write 0 0x41
        parallel
        host    convert 0 private  => c
        host1   read 0             => r
        end
        """

    static let all: [Chapter] = [
        Chapter(
            title: "What private means",
            idea: [
                "A guest's memory is a file, a guest_memfd. Each of its pages is either shared or private. The host can map and "
                    + "access a shared page like its own memory. Only the guest can access a private page. A conversion does not "
                    + "move the page or its bytes; it changes who can access them.",
                "First a guest boots. All of RAM is shared while the monitor writes the image, and is then made private in "
                    + "place.",
            ],
            play: { try $0.hostView() },
            afterwards: [
                "Touching a private page raises SIGBUS; passing it to a system call returns EFAULT. The mapping itself stays in "
                    + "place, and works again when the page is shared."
            ],
            question: "The host wrote \"hi, guest\" and then lost the page. Where are the bytes?",
            answer:
                "In the same page. Nothing was copied or erased: on this type of VM, converting a page changes only who can "
                + "access it. On SNP and TDX the hardware and its firmware decide what happens to the contents; see chapter 5.",
            toTry: [
                (
                    "minivmm run hello --trace - --explain",
                    "every exit and every call, each with an explanation"
                ),
                ("minivmm run hello --step", "stop at each exit; ? lists the commands"),
                ("minivmm explain private", "the same in one paragraph"),
            ], source: .guest("hello")),
        Chapter(
            title: "Two aliases",
            idea: [
                "A page has one state, but the guest can reach it by two addresses: the private alias, and the shared alias, "
                    + "which is the same address with one high bit set, as on TDX. An access through the alias that does not "
                    + "match the page's state causes KVM_EXIT_MEMORY_FAULT."
            ],
            play: { try $0.guest("implicit", sentences: 7) },
            afterwards: [
                "The faulting instruction has had no effect. After the conversion the vCPU enters the guest again, and the same "
                    + "instruction completes."
            ],
            question: "What happens if the monitor enters the guest again without converting?",
            answer:
                "The same fault repeats forever (hazard A34). A monitor has to detect that the guest makes no progress. "
                + "minivmm stops with status 126 and reports the page.",
            toTry: [
                ("minivmm run fault-loop; echo $?", "a guest that makes no progress"),
                (
                    "minivmm run implicit --step",
                    "type u, then shared 0x200000 1, then c: you converted the page by hand"
                ),
                ("minivmm run implicit --report aliases.html", "the run as a page that opens in a browser"),
            ], source: .guest("implicit")),
        Chapter(
            title: "Explicit and implicit",
            idea: [
                "A guest that is aware of private memory does not wait for faults. It requests conversions explicitly: the "
                    + "hypercall KVM_HC_MAP_GPA_RANGE names a range and the wanted state, and returns 0 or an errno.",
                "A request can be refused with an errno. A plain memory access has no way to receive one.",
            ],
            play: { try $0.guest("explicit", sentences: 9) },
            afterwards: [],
            question: "Why would a guest request a conversion, if an access causes one anyway?",
            answer:
                "One call covers many pages, instead of one fault per page. The request can choose what happens to the contents, "
                + "and the guest learns of a failure. Touching is what a driver that is unaware of private memory does.",
            toTry: [
                ("minivmm run explicit --trace -", "the hypercalls and their results"),
                ("minivmm run hostile", "malformed requests, and the errno of each"),
            ], source: .guest("explicit")),
        Chapter(
            title: "In place, or two copies",
            idea: [
                "Up to Linux 7.3, private and shared memory are two different memories: a guest_memfd for private pages, and "
                    + "ordinary memory for shared pages. An attribute per guest address selects one of them. A conversion "
                    + "switches to the other memory and leaves the contents behind. A monitor that needs the contents must copy "
                    + "them, and for a time there are two copies.",
                "With conversion in place there is one memory. This chapter converts 64 MiB, keeps the contents, and measures "
                    + "how much memory exists.",
            ],
            play: { try $0.measureTwoCopies() },
            afterwards: [
                "The guest sees the same bytes either way. Two copies cost memory, and time for copying."
            ],
            question:
                "Device assignment pins guest memory permanently. Why is that worse with two copies?",
            answer:
                "Pinned memory cannot be freed, so both copies remain and the guest needs twice its memory, a known problem of "
                + "other monitors. The device also keeps using the copy that the guest no longer uses.",
            toTry: [
                (
                    "lab/boot --append kvm.gmem_in_place_conversion=0 -- minivmm run forget --trace -",
                    "in the repository: a real kernel with two memories; the contents are lost, and this guest tolerates it"
                )
            ], source: .guest("forget")),
        Chapter(
            title: "Who decides what happens to the contents",
            idea: [
                "On this type of VM the kernel does not change the contents of a converted page. On other types the hardware may "
                    + "scramble or erase them. Four designs were considered for the decision. The choice fell on the request "
                    + "itself: userspace decides each time, and the request is either honoured or refused.",
                "In this chapter a guest requests each policy in both directions.",
            ],
            play: { try $0.contents() },
            afterwards: [],
            question: "A flag at the creation of the file would be simpler. Which case does it not cover?",
            answer:
                "One file needs different policies at different times. The boot image must be preserved when it becomes private; "
                + "later the same page becomes shared again and its contents do not matter. A flag for the whole file either "
                + "refuses the one or loses the other.",
            toTry: [
                (
                    "minivmm litmus --backend soft --design creation-flag litmus/four-places-a-boot-image.litmus",
                    "that design fails this test; without --design the test passes"
                ),
                (
                    "minivmm litmus --backend soft --abi rfc-v2 --abi rfc-v4 --abi 7.4 litmus",
                    "how the posted versions of the interface differ"
                ),
            ], source: .guest("contents")),
        Chapter(
            title: "In use: EAGAIN",
            idea: [
                "A page that the host still uses cannot become private: it may be in an io_uring buffer, in a pipe, or pinned "
                    + "for a device. The whole call fails with EAGAIN, changes nothing, and reports the lowest such page in "
                    + "error_offset."
            ],
            play: { try $0.guest("pinned", sentences: 12) },
            afterwards: [
                "The monitor asks known holders to release the page. It waits for unknown ones, longer each time and without "
                    + "holding a lock that they might need, and gives up when the retry policy says so. The guest then gets "
                    + "-EAGAIN and loses no data."
            ],
            question: "One page of a gigabyte is pinned. Must the whole request fail?",
            answer:
                "The call fails. But the monitor can convert the pages before error_offset, skip that page, convert the pages "
                + "behind it, and retry the page later. The option is --in-use bisect.",
            toTry: [
                ("minivmm run pinned --in-use bisect --trace -", "converts around the page in use"),
                (
                    "minivmm explain errno EAGAIN offset=0x2000 size=0x4000 error_offset=0x3000 to=private",
                    "what that answer means"
                ),
            ], source: .guest("pinned")),
        Chapter(
            title: "Races",
            idea: [
                "The kernel serializes conversions of a file with host faults, guest faults and hole punching on it. Only their "
                    + "order is left to chance. A litmus test states what several actors do at the same time. SoftKVM explores "
                    + "every order; on a real kernel the test runs many times."
            ],
            play: { try $0.race(raceTest) },
            afterwards: [
                "Three outcomes are possible. If the read comes first, it returns the byte. If it comes second, there is no page "
                    + "to read. If the reader holds its reference at the moment when the conversion checks references, the "
                    + "conversion fails with EAGAIN, although nobody holds the page for long (hazard A3). The third outcome is "
                    + "rare, so the set of outcomes is computed as well as observed."
            ],
            question: "Two threads convert the same page in opposite directions. Which call fails?",
            answer:
                "Neither. Both calls return 0, and the later one determines the state of the page (A33). No call reads the "
                + "attributes back, so the monitor must update its own map while holding the same lock as for the call.",
            toTry: [
                ("minivmm litmus litmus/race-opposite-ways.litmus", "a test of that question"),
                (
                    "minivmm litmus --report race.html litmus/race-convert-and-read.litmus",
                    "one run as a picture"
                ),
                ("minivmm run smp --report smp.html", "four vCPUs running at the same time"),
            ], source: .test(raceTest)),
        Chapter(
            title: "SNP: the guest validates",
            idea: [
                "The VMs so far are software-protected: the kernel alone enforces that memory is private. SNP and TDX use the same "
                    + "conversions, but the guest has a part in each, and contents follow encryption keys.",
                "On SNP a table of the CPU, the RMP, records the owner of each page. A page that becomes private belongs to the "
                    + "guest only after it has executed PVALIDATE. A touch before that raises #VC in the guest.",
                "The guests run on a model of SNP, made from public documents. No such hardware is involved.",
            ],
            play: { stage in
                try stage.confidential("first-touch", .snp)
                try stage.confidential("take-then-use", .snp)
            },
            afterwards: [
                "PVALIDATE does not change the bytes. The host's bytes were not encrypted with the guest's key, so the guest "
                    + "reads garbage: it must initialise the page."
            ],
            question: "The guest shares the page again without wiping it. What does the host read?",
            answer:
                "Ciphertext, and the guest's old plaintext is back if the page becomes private and nobody has written it meanwhile. "
                + "Neither is a promise: a guest wipes a page before it shares it.",
            toTry: [
                ("minivmm run leaked-secret", "the host looks at a secret in a shared page"),
                ("minivmm run discover", "how a guest finds out that it runs on SNP"),
                ("minivmm litmus --backend soft litmus/snp", "the rules, one test for each"),
            ], source: .guest("first-touch")),
        Chapter(
            title: "TDX: the guest accepts",
            idea: [
                "On TDX the shared bit is a bit of the guest's page tables, and the TDX module manages the private pages in a secure "
                    + "EPT. A page that becomes private is pending until the guest accepts it, and the module zeroes it then.",
                "The same two guests as before run, on a model of TDX.",
            ],
            play: { stage in
                try stage.confidential("first-touch", .tdx, endingWith: 126)
                try stage.confidential("take-then-use", .tdx)
            },
            afterwards: [
                "The touch of a pending page ends the TD for good: KVM_RUN is EIO. If SEPT_VE_DISABLE is clear in the TD's attributes, "
                    + "the guest gets #VE instead."
            ],
            question:
                "Which of the policies preserve, zero and unspecified can a monitor promise on TDX after the launch?",
            answer:
                "Unspecified, and zero towards shared, where the monitor writes the zeros itself. Preserve must be refused, and so must "
                + "zero towards private: the module zeroes that page, not the monitor. An errno is better than noise in the guest's "
                + "memory.",
            toTry: [
                ("minivmm run thousand --vm tdx", "1000 pages by MapGPA and ACCEPT"),
                ("minivmm run kexec --vm tdx --on-fault convert", "a monitor that obeys a stray access"),
                ("minivmm litmus --backend soft litmus/tdx", "the rules, one test for each"),
            ], source: .guest("take-then-use")),
        Chapter(
            title: "A hostile host",
            idea: [
                "Encryption does not help a guest that lets the host exchange its pages. The host gives an address another page; the "
                    + "guest's next access finds it unvalidated.",
                "The first guest validates the page again. The second remembers what it has validated.",
            ],
            play: { stage in
                try stage.confidential("double-validation", .snp, host: [.swapPages], endingWith: 2)
                try stage.confidential("record", .snp, host: [.swapPages], endingWith: 126)
            },
            afterwards: [
                "PVALIDATE succeeded the second time, because the page was new. Since then the host can show the guest either page "
                    + "(hazard V1). The guest that keeps a record asks to be terminated."
            ],
            question: "Would the same attack work on TDX?",
            answer:
                "No. The module lets the host exchange a page only after taking it away from the guest, and the guest must accept the new one, "
                + "which zeroes it. Data can be lost, but never replayed.",
            toTry: [
                ("minivmm run double-validation --vm tdx --host swap-pages", "the same attack on TDX"),
                ("minivmm explain V1", "the hazard, and its cure"),
                ("minivmm explain", "the list of topics"),
            ], source: .guest("double-validation")),
    ]
}
