// SPDX-License-Identifier: MIT
import MiniVMM

/// The tour, in the order in which a newcomer should hear it.
enum Chapters {
    private static let raceTest = """
        test    "a conversion and a read"
        memory  1 pages shared
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
                "A guest's memory is a file, a guest_memfd. Each of its pages is shared or private. Shared: the host may map it "
                    + "and touch it, like any memory of its own. Private: only the guest may. The page keeps its place and its "
                    + "bytes; what changes is who gets at it.",
                "First a guest boots: all of RAM is shared while the image is written, and is then made private in place.",
            ],
            play: { try $0.hostView() },
            afterwards: [
                "To touch a private page is SIGBUS for an instruction and EFAULT for a system call. The mapping itself stays, "
                    + "and works again when the page is shared."
            ],
            question: "The host wrote \"hi, guest\" and then lost the page. Where are the bytes?",
            answer:
                "Where they were. Nothing was copied or wiped: on this kind of VM the page that comes back is the page that "
                + "went. On SNP and TDX the firmware decides about that, and chapter 5 is about who says so.",
            toTry: [
                (
                    "minivmm run hello --trace - --explain",
                    "every exit and every call, each with why it is there"
                ),
                ("minivmm run hello --step", "stop at each exit; ? says what can be done there"),
                ("minivmm explain private", "the same in a paragraph"),
            ], source: .guest("hello")),
        Chapter(
            title: "Two aliases",
            idea: [
                "A page has one state, but the guest has two ways to reach it: a private alias, and a shared one, which is the "
                    + "same address with one high bit set, as on TDX. An access through the alias that does not match the page "
                    + "leaves the guest with KVM_EXIT_MEMORY_FAULT."
            ],
            play: { try $0.guest("implicit", sentences: 7) },
            afterwards: [
                "The instruction that faulted has done nothing. After the conversion the vCPU enters again, and the same "
                    + "instruction completes."
            ],
            question: "What happens if the monitor enters the guest again without converting?",
            answer:
                "The same fault, for ever: hazard A34. A monitor has to notice that nothing moves. minivmm stops with "
                + "status 126 and says why.",
            toTry: [
                ("minivmm run fault-loop; echo $?", "a guest and a monitor that get nowhere"),
                (
                    "minivmm run implicit --step",
                    "type u, then shared 0x200000 1, then c: you have converted it by hand"
                ),
                ("minivmm run implicit --report aliases.html", "the same as a picture; open it in a browser"),
            ], source: .guest("implicit")),
        Chapter(
            title: "Explicit and implicit",
            idea: [
                "A guest that knows that it is confidential does not wait for faults: it asks. KVM_HC_MAP_GPA_RANGE names a "
                    + "range and what it shall be, and the answer is a number, 0 or an errno.",
                "A request can be refused. An access cannot: it has nobody to tell.",
            ],
            play: { try $0.guest("explicit", sentences: 9) },
            afterwards: [],
            question: "Why would a guest ask, if touching does it as well?",
            answer:
                "One call for many pages instead of a fault each; it says what shall become of the bytes; and it hears of a "
                + "failure. Touching is what a driver does that does not know better.",
            toTry: [
                ("minivmm run explicit --trace -", "the hypercalls and their answers"),
                ("minivmm run hostile", "every malformed request, and an errno for each"),
            ], source: .guest("explicit")),
        Chapter(
            title: "In place, or two copies",
            idea: [
                "Until Linux 7.3 private and shared memory are two places: the file holds what is private, ordinary memory what "
                    + "is shared, and an attribute per guest address says which one counts. A conversion changes the place, and "
                    + "what was there stays behind. Who wants the bytes carries them, and for a while there are two copies.",
                "In place there is one. Measured now: 64 MiB with its bytes kept, and the pages that exist for it.",
            ],
            play: { try $0.measureTwoCopies() },
            afterwards: [
                "The guest sees the same bytes either way. What is spent is memory, and the time to copy it."
            ],
            question:
                "Device assignment pins guest memory for good. Why does that hurt more with two copies?",
            answer:
                "What is pinned cannot be given back, so both copies stay: double memory is what users of other monitors "
                + "trip over. And the device keeps using the copy that is no longer the guest's.",
            toTry: [
                (
                    "lab/boot --append kvm.gmem_in_place_conversion=0 -- minivmm run forget --trace -",
                    "in the repository: a real kernel with two places; contents are lost, and the guest lives with it"
                )
            ], source: .guest("forget")),
        Chapter(
            title: "Contents: who decides",
            idea: [
                "What becomes of the bytes? The kernel that has the call does not touch them, on this kind of VM. Firmware on "
                    + "others may scramble or wipe. Four places for the decision were weighed, and the one that was left is the "
                    + "request itself: made by userspace, each time, honoured or refused, never left to luck.",
                "Here a guest asks for each policy in both directions.",
            ],
            play: { try $0.contents() },
            afterwards: [],
            question: "A creation flag for the file would be simpler. What could it not do?",
            answer:
                "One file needs different answers at different times: a boot image is to be kept on its way to private, and "
                + "the same page later goes back without anybody caring. A flag for all of it refuses one or loses the other.",
            toTry: [
                (
                    "minivmm litmus --backend soft --design creation-flag litmus/four-places-a-boot-image.litmus",
                    "the design that cannot, at work; leave out --design for the one that can"
                ),
                (
                    "minivmm litmus --backend soft --abi rfc-v2 --abi rfc-v4 --abi 7.4 litmus",
                    "how the interface changed its mind"
                ),
            ], source: .guest("contents")),
        Chapter(
            title: "In use: EAGAIN",
            idea: [
                "A page that somebody on the host still uses cannot become private: an io_uring buffer, a pipe, a device. The "
                    + "call fails whole, changes nothing, and names the lowest such page in error_offset."
            ],
            play: { try $0.guest("pinned", sentences: 12) },
            afterwards: [
                "Ask who is known to let go; wait for the others, longer each time and with nothing held that they could need; "
                    + "give up when the policy says so. The guest hears -EAGAIN and has lost nothing."
            ],
            question: "One page of a gigabyte is pinned. Must the whole request fail?",
            answer:
                "The call does. The monitor can convert what lies before error_offset, leave that page out, go on behind it "
                + "and come back: --in-use bisect.",
            toTry: [
                ("minivmm run pinned --in-use bisect --trace -", "around the page in use"),
                (
                    "minivmm explain errno EAGAIN offset=0x2000 size=0x4000 error_offset=0x3000 to=private",
                    "what that answer says"
                ),
            ], source: .guest("pinned")),
        Chapter(
            title: "Races",
            idea: [
                "Conversions of one file come one after the other, and with them host faults, guest faults and holes. What is "
                    + "left to chance is the order. A litmus test says who does what at once; the software kernel goes through "
                    + "all orders; a real one is run many times."
            ],
            play: { try $0.race(raceTest) },
            afterwards: [
                "Three things can come of it. Who reads first gets the byte; who comes too late gets no page; and if the reader "
                    + "has its reference while the conversion looks, that is EAGAIN though nobody holds the page for long: "
                    + "hazard A3. It is rare. That is why the set is computed and not only watched."
            ],
            question: "Two threads convert the same page in opposite directions. Who fails?",
            answer:
                "Nobody. Both calls return 0, and the last one decides what the page is (A33). There is no call that reads "
                + "attributes back, so a monitor changes its own map under the lock under which it calls.",
            toTry: [
                ("minivmm litmus litmus/race-opposite-ways.litmus", "that question, answered by a kernel"),
                (
                    "minivmm litmus --report race.html litmus/race-convert-and-read.litmus",
                    "one run as a picture"
                ),
                ("minivmm run smp --report smp.html", "four vCPUs at once"),
            ], source: .test(raceTest)),
        Chapter(
            title: "What TDX, SNP and pKVM do differently",
            idea: [
                "All that you saw is a VM whose private memory is kept private by the kernel. On hardware the idea is the same, "
                    + "and the last word is not the kernel's.",
                "TDX: the shared bit is real, in the guest's page tables, and accesses are told apart by the CPU. A private page "
                    + "belongs to the TDX module, which zeroes what it accepts; the guest accepts each page, and contents do not "
                    + "come along.",
                "SNP: a C-bit says encrypted. Each page has an owner in a table that the CPU checks (the RMP); a conversion "
                    + "changes it there, and the guest validates the page. Bytes read under the other key are noise.",
                "pKVM: no encryption. The hypervisor is small and separate from the host kernel, and takes pages out of the "
                    + "host's own tables; sharing is a hypercall of the guest's, and contents can stay.",
                "Before a launch is finished, SNP and TDX encrypt what the host has written: the boot image goes to private with "
                    + "its contents, once. After that it does not.",
            ],
            play: { $0.nothingRuns() },
            afterwards: [
                "Nothing ran in this chapter: there is no such hardware below, and nothing here pretends to be it."
            ],
            question:
                "Which of the policies preserve, zero and unspecified can a monitor promise on TDX after launch?",
            answer:
                "Unspecified, and zero by itself once the page is shared. Preserve has to be refused, which is the point of "
                + "asking for it: a refusal is better than noise.",
            toTry: [
                ("minivmm run forget --trace -", "a guest that lives with contents that do not come along"),
                ("minivmm explain", "all that can be asked about"),
            ]),
    ]
}
