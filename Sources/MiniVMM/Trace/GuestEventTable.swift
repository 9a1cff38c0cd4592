// SPDX-License-Identifier: MIT
/// Events of a guest's run.
extension EventSchema {
    static let machine: [EventSchema] = [
        EventSchema(
            .boot, .machine,
            "The monitor has written the guest's image into its memory and is about to convert it to private.",
            "starts the machine: {vcpus} vCPU{vcpus=1!s}, {ram_bytes} of RAM, all of it shared, with the image written through the host mapping",
            [
                Field(.image, "start of the image"),
                Field(.imageBytes, "size of the image in whole pages"),
                Field(.entry, "address of the first instruction"),
                Field(.vcpus, "number of vCPUs"),
                Field(.ramBytes, "size of RAM, which starts at 0; all of it is shared at this point"),
                Field(
                    .sharedBit, "the address bit of the shared alias; absent with one memslot", optional: true
                ),
            ]),
        EventSchema(
            .imageLeftShared, .machine,
            "This backend does not preserve contents in a conversion, so the image stays shared.",
            "leaves RAM up to {end} shared: this backend does not preserve contents",
            [Field(.end, "one past the last byte that stays shared")]),
        EventSchema(
            .launch, .machine,
            "SNP and TDX: private pages became the guest's, measured and with the contents that the monitor wrote. No later conversion "
                + "preserves contents.",
            "measures {pages} into the guest",
            [Field(.gpa, "start of the range"), Field(.size, "size of the range")]),
        EventSchema(
            .guestPages, .machine,
            "SNP and TDX: how far the guest has taken private pages, as SoftKVM knows it; hardware tells no monitor. A run writes the "
                + "changes at the next exit, those of neighbouring pages as one.",
            "{pages}: {state}",
            [
                Field(.gpa, "start of the range"), Field(.size, "size of the range"),
                Field(
                    .state,
                    "`taken`; `unassigned`, no host page yet; SNP: `unvalidated` (guest-invalid); TDX: `pending` or `blocked`"
                ),
            ]),
        EventSchema(
            .exitStatus, .machine, "The guest wrote its exit status to port 0xf4.",
            "ends with status {status}",
            [Field(.status, "0 to 255")]),
        EventSchema(
            .stop, .machine, "The machine has stopped.", "stops the machine: {why}",
            [
                Field(.why, "how the run ended, in words"),
                Field(.status, "the exit status of `run`; absent in older traces", optional: true),
            ]),
    ]

    static let exits: [EventSchema] = [
        EventSchema(
            .out, .exits, "The guest wrote to a port: KVM_EXIT_IO, one event per transfer.",
            "writes {value} to port {port}",
            [
                Field(.port, "the port"), Field(.bytes, "1, 2 or 4"),
                Field(.value, "the value written"),
            ]),
        EventSchema(
            .in, .exits, "The guest read a port: KVM_EXIT_IO, one event per transfer.",
            "reads {value} from port {port}",
            [
                Field(.port, "the port"), Field(.bytes, "1, 2 or 4"),
                Field(.value, "the value returned by the monitor"),
            ]),
        EventSchema(
            .mmio, .exits,
            "The guest accessed an address with neither a memslot nor a device: KVM_EXIT_MMIO.",
            "{write?writes}{write!reads} {bytes} at {gpa}, where there is neither RAM nor a device",
            [
                Field(.gpa, "the address"), Field(.bytes, "the size of the access"),
                Field(.write, "whether it was a write"),
            ]),
        EventSchema(
            .memoryFault, .exits,
            "KVM_RUN returned with exit 39, KVM_EXIT_MEMORY_FAULT: the page was not in the state that the access needs.",
            "accesses page {page} as {wants}: KVM_EXIT_MEMORY_FAULT{errno+ ({errno})}"
                + "{verdict=convert?, the monitor converts it}{verdict=race?, a race with a conversion, retried}"
                + "{verdict=reenter?, the monitor does not convert it}{verdict=fatal?, which ends the machine}",
            [
                Field(.gpa, "the page"), Field(.bytes, "the size that KVM reports"),
                Field(.flags, "8 is `KVM_MEMORY_EXIT_FLAG_PRIVATE`"),
                Field(.wants, "`private` or `shared`: the kind of access"),
                Field(.errno, "of `KVM_RUN`: 14 `EFAULT` or 133 `EHWPOISON`"),
                Field(
                    .verdict,
                    "`convert`; `race`, already in that state; `reenter`, the policy is not to convert; `fatal`"
                ),
            ]),
        EventSchema(
            .resume, .exits,
            "The vCPU re-enters the guest after a memory fault and executes the faulting instruction again.",
            "re-enters the guest and retries the access to page {page}",
            [Field(.gpa, "the address of the fault")]),
        EventSchema(
            .hypercall, .exits,
            "The guest called the monitor. Written when the call returns, after the events that it caused.",
            "calls by {by}: {number}{pages? for {pages}}{number=12?{a2&16? to private}{a2&16! to shared}} → {result}",
            [
                Field(.number, "RAX: 12 is `KVM_HC_MAP_GPA_RANGE`"), Field(.a0, "RBX"), Field(.a1, "RCX"),
                Field(.a2, "RDX"), Field(.by, "`instruction` or `port`"),
                Field(.result, "RAX afterwards: 0 or more, or a negative errno"),
            ]),
        EventSchema(
            .stepOver, .exits,
            "KVM could not read the guest's call instruction and so could not step over it; the monitor advanced RIP.",
            "is advanced past the call at {rip}", [Field(.rip, "of the VMMCALL or VMCALL")]),
        EventSchema(
            .exception, .exits,
            "The guest raised an exception that it does not handle. The monitor's handlers in the guest reported it, and the machine stops.",
            "raises exception {vector}{error_code+, error code {error_code}}{address+, at {address}}, RIP {rip}: the guest has no handler for it",
            [
                Field(.vector, "0 to 31; 14 is a page fault"),
                Field(.errorCode, "as the CPU pushed it; absent for a vector without one", optional: true),
                Field(.address, "CR2 of a page fault; absent for others", optional: true),
                Field(.rip, "the instruction that raised it"),
            ]),
        EventSchema(
            .halt, .exits,
            "The vCPU executed HLT (KVM_EXIT_HLT). There are no interrupts, so nothing can wake it.",
            "halts: nothing can wake it"),
        EventSchema(
            .kick, .exits,
            "The vCPU was kicked because the machine stops: KVM_RUN returned EINTR.",
            "is kicked out of the guest"),
    ]

    static let conversions: [EventSchema] = [
        EventSchema(
            .convert, .conversions,
            "A conversion of a range was requested; the kernel has not been called yet.",
            "converts {pages} to {target}{contents+, contents: {contents}}",
            request + [
                Field(
                    .before,
                    "the first 8 bytes of the range as the host reads them, 16 hex digits in memory order; "
                        + "absent if the page is private", optional: true)
            ]),
        EventSchema(
            .setMemoryAttributes2, .conversions,
            "One KVM_SET_MEMORY_ATTRIBUTES2 call and its result. Written after it has returned.",
            "KVM_SET_MEMORY_ATTRIBUTES2 {pages} to {target} → "
                + "{errno!0}{errno?{errno}{error_offset+, error_offset {error_offset}}; no page has changed}",
            [
                Field(.offset, "start of the range in the file"), Field(.size, "size of the range"),
                Field(.target, "`private` or `shared`"),
                Field(.errno, "0 on success; otherwise no page has changed"),
                Field(.error, "the errno's symbol; absent on success", optional: true),
                Field(
                    .errorOffset, "the reported page, as an offset in the file; absent on success",
                    optional: true
                ),
                Field(
                    .gpa,
                    "the address at `offset`; absent in older traces, where it equals `offset`",
                    optional: true),
                Field(
                    .ns,
                    "how long the call took: it began `ns` before `t`, or a little earlier; absent in older traces",
                    optional: true),
            ]),
        EventSchema(
            .askHolders, .conversions,
            "The monitor asked the registered holders of the page to release it.",
            "asks the holders of {pages} to release it: {released} did, {refused} refused",
            [
                Field(.gpa, "the page"), Field(.released, "holders that released it"),
                Field(.refused, "holders that refused"),
            ]),
        EventSchema(
            .wait, .conversions,
            "The page is in use; the monitor waits before the next call, longer each time.",
            "waits {ns} for page {page}, attempt {attempt}",
            [
                Field(.gpa, "the page"), Field(.ns, "duration of the wait, which begins at `t`"),
                Field(.attempt, "attempts so far"),
            ]),
        EventSchema(
            .converted, .conversions, "The whole request has been done.",
            "has converted {pages} to {target}{busy?, after {calls} calls and {busy} EAGAIN}{contents+; contents {contents}}{means+ ({means})}",
            request + [
                Field(.means, "how the content policy was honoured"),
                Field(.calls, "calls made"), Field(.busy, "how many of them returned `EAGAIN`"),
                Field(.waitedNs, "time spent waiting between them"),
                Field(
                    .after, "the first 8 bytes afterwards, like `before`; absent if the page is private",
                    optional: true),
            ]),
        EventSchema(
            .notConverted, .conversions, "The request was refused or given up.",
            "has not converted {pages} to {target}: {errno} after {calls} call{calls=1!s}",
            request + [
                Field(.errno, "the errno that the guest gets"),
                Field(
                    .convertedBytes,
                    "bytes that changed nevertheless; `set-memory-attributes2` events show which"),
                Field(.calls, "calls made"), Field(.why, "the reason in words"),
            ]),
    ]

    private static let request = [
        Field(.gpa, "start of the range"), Field(.size, "size of the range"),
        Field(.target, "`private` or `shared`"),
        Field(.contents, "`preserve`, `zero` or `unspecified`"),
    ]
}
