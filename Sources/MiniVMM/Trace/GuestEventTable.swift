// SPDX-License-Identifier: MIT
/// The events that the run of a guest can have.
extension EventSchema {
    static let machine: [EventSchema] = [
        EventSchema(
            .boot, .machine,
            "The monitor has written the guest's image into its memory and is about to make it private.",
            "starts the machine: {vcpus} vCPU{vcpus=1!s}, {ram_bytes} of RAM, all of it shared; the image is written through the mapping",
            [
                Field(.image, "where the image is"),
                Field(.imageBytes, "its size in whole pages"),
                Field(.entry, "the first instruction"),
                Field(.vcpus, "how many"),
                Field(.ramBytes, "RAM, from address 0; all of it is shared at this moment"),
                Field(
                    .sharedBit, "the address bit of the shared alias; absent with one memslot", optional: true
                ),
            ]),
        EventSchema(
            .imageLeftShared, .machine,
            "This kernel does not preserve contents in a conversion, so the image stays shared.",
            "leaves RAM up to {end} shared: this kernel does not preserve contents",
            [Field(.end, "RAM up to here stays shared")]),
        EventSchema(
            .exitStatus, .machine, "The guest wrote its exit status to port 0xf4.",
            "ends with status {status}",
            [Field(.status, "0 to 255")]),
        EventSchema(
            .stop, .machine, "The machine has stopped.", "stops the machine: {why}",
            [
                Field(.why, "how the run ended, in words"),
                Field(.status, "the exit status of `run` for it; absent in older traces", optional: true),
            ]),
    ]

    static let exits: [EventSchema] = [
        EventSchema(
            .out, .exits, "The guest wrote to a port: KVM_EXIT_IO, one transfer an event.",
            "writes {value} to port {port}",
            [
                Field(.port, "the port"), Field(.bytes, "1, 2 or 4"),
                Field(.value, "what the guest wrote"),
            ]),
        EventSchema(
            .in, .exits, "The guest read a port: KVM_EXIT_IO, one transfer an event.",
            "reads {value} from port {port}",
            [
                Field(.port, "the port"), Field(.bytes, "1, 2 or 4"),
                Field(.value, "what the monitor returned"),
            ]),
        EventSchema(
            .mmio, .exits,
            "The guest touched an address that has neither a memslot nor a device: KVM_EXIT_MMIO.",
            "{write?writes}{write!reads} {bytes} at {gpa}, where there is neither RAM nor a device",
            [
                Field(.gpa, "the address"), Field(.bytes, "the size of the access"),
                Field(.write, "whether it was a write"),
            ]),
        EventSchema(
            .memoryFault, .exits,
            "KVM_RUN returned with exit 39, KVM_EXIT_MEMORY_FAULT: the access did not find the page as it wanted it.",
            "touches page {page} as {wants}: KVM_EXIT_MEMORY_FAULT ({errno}){verdict=convert?, the monitor converts it}"
                + "{verdict=race?, it is so already: a race, tried again}"
                + "{verdict=reenter?, the monitor does nothing about it}{verdict=fatal?, and that is the end}",
            [
                Field(.gpa, "the page"), Field(.bytes, "the size that KVM gives"),
                Field(.flags, "8 is `KVM_MEMORY_EXIT_FLAG_PRIVATE`"),
                Field(.wants, "`private` or `shared`: what the access was"),
                Field(.errno, "of `KVM_RUN`: 14 `EFAULT` or 133 `EHWPOISON`"),
                Field(
                    .verdict, "`convert`; `race`, it is so already; `reenter`, told not to convert; `fatal`"),
            ]),
        EventSchema(
            .resume, .exits,
            "The vCPU enters the guest again after a memory fault, and the instruction that faulted is executed once more.",
            "goes on in the guest: the access to page {page} is made again",
            [Field(.gpa, "the fault's")]),
        EventSchema(
            .hypercall, .exits,
            "The guest called the monitor. Written when the call returns, after what it did.",
            "asks by {by}: {number}{pages? for {pages}}{number=12?{a2&16? to private}{a2&16! to shared}} → {result}",
            [
                Field(.number, "RAX: 12 is `KVM_HC_MAP_GPA_RANGE`"), Field(.a0, "RBX"), Field(.a1, "RCX"),
                Field(.a2, "RDX"), Field(.by, "`instruction` or `port`"),
                Field(.result, "RAX afterwards: 0 or more, or a negative errno"),
            ]),
        EventSchema(
            .stepOver, .exits,
            "KVM could not read the guest's call instruction and so could not step over it; the monitor moved RIP on.",
            "is moved past the call at {rip}", [Field(.rip, "of the VMMCALL")]),
        EventSchema(
            .halt, .exits,
            "The vCPU executed HLT (KVM_EXIT_HLT). There are no interrupts, so nothing wakes it.",
            "halts: nothing can wake it"),
        EventSchema(
            .kick, .exits,
            "The vCPU was taken out of the guest because the machine stops: KVM_RUN returned EINTR.",
            "is taken out of the guest"),
    ]

    static let conversions: [EventSchema] = [
        EventSchema(
            .convert, .conversions,
            "Somebody asked for a range to change its state; the kernel has not been called yet.",
            "converts {pages} to {target}, contents: {contents}",
            request + [
                Field(
                    .before,
                    "the first 8 bytes of the range as the host sees them, 16 hex digits in the order of memory; "
                        + "absent where the page is private", optional: true)
            ]),
        EventSchema(
            .setMemoryAttributes2, .conversions,
            "One call of the kernel, KVM_SET_MEMORY_ATTRIBUTES2, and its answer. Written when it has returned.",
            "KVM_SET_MEMORY_ATTRIBUTES2 {pages} to {target} → "
                + "{errno!0}{errno?{errno}{error_offset+, error_offset {error_offset}}; nothing has changed}",
            [
                Field(.offset, "in the file"), Field(.size, "of the range"),
                Field(.target, "`private` or `shared`"),
                Field(.errno, "0 if it worked; else nothing has changed"),
                Field(.error, "the errno's symbol; absent if it worked", optional: true),
                Field(
                    .errorOffset, "the page named, an offset in the file; absent if it worked", optional: true
                ),
                Field(
                    .gpa,
                    "what is at `offset`; absent in older traces, and then `offset` is taken for it",
                    optional: true),
                Field(
                    .ns,
                    "how long the call took: it began `ns` before `t`, or a little earlier; absent in older traces",
                    optional: true),
            ]),
        EventSchema(
            .askHolders, .conversions,
            "The monitor asked those who are known to hold the page to release it.",
            "asks who holds {pages} to release it: {released} did, {refused} did not",
            [
                Field(.gpa, "the page"), Field(.released, "how many did"),
                Field(.refused, "how many did not"),
            ]),
        EventSchema(
            .wait, .conversions,
            "The page is in use; the monitor waits before it calls again, longer each time.",
            "waits {ns} for page {page}, attempt {attempt}",
            [
                Field(.gpa, "the page"), Field(.ns, "for how long; it begins at `t`"),
                Field(.attempt, "attempts so far"),
            ]),
        EventSchema(
            .converted, .conversions, "The whole request is done.",
            "has converted {pages} to {target}{busy?, after {calls} calls and {busy} EAGAIN}; contents {contents} ({means})",
            request + [
                Field(.means, "by what the contents policy was honoured"),
                Field(.calls, "calls made"), Field(.busy, "how many of them returned `EAGAIN`"),
                Field(.waitedNs, "spent waiting between them"),
                Field(
                    .after, "the first 8 bytes afterwards, as `before`; absent where the page is private",
                    optional: true),
            ]),
        EventSchema(
            .notConverted, .conversions, "The request was refused or given up.",
            "has not converted {pages} to {target}: {errno} after {calls} call{calls=1!s}",
            request + [
                Field(.errno, "what the guest gets for it"),
                Field(.convertedBytes, "changed all the same; `set-memory-attributes2` says which"),
                Field(.calls, "calls made"), Field(.why, "in words"),
            ]),
    ]

    private static let request = [
        Field(.gpa, "of the range"), Field(.size, "of the range"), Field(.target, "`private` or `shared`"),
        Field(.contents, "`preserve`, `zero` or `unspecified`"),
    ]
}
