// SPDX-License-Identifier: MIT

// The results that a guest on SNP or TDX gets, by name and by number. Sources: AMD's Architecture Programmer's Manual and
// GHCB specification, Intel's TDX module and guest-hypervisor communication interface, and KVM's source
// (docs/CONFIDENTIAL.md). A number without a name there has a descriptive one here.

extension Glossary {
    static let statuses: [Term] = [
        Term(
            "FAIL_SIZEMISMATCH", ["PVALIDATE EAX 6"], .confidential,
            "Result 6 of PVALIDATE: the guest asked for 2 MiB, but the page is one of 4 KiB in the RMP. The guest validates each page of "
                + "4 KiB instead."),
        Term(
            "FAIL_INPUT", ["PVALIDATE EAX 1"], .confidential,
            "Result 1 of PVALIDATE: the size or the address is not valid. Nothing has changed."),
        Term(
            "validated twice", ["PVALIDATE CF", "CF 1"], .confidential,
            "PVALIDATE returns 0 with the carry flag set if the page was already in the state that was asked for. A guest that expected a "
                + "new page must not use it: its contents are old.", topics: ["V1", "V2"]),
        Term(
            "#VC code 0x404", ["0x404", "PAGE_NOT_VALIDATED"], .confidential,
            "The guest touched a private page that it has not validated. CR2 is the address. The monitor never sees this exception: there "
                + "is no exit.", topics: ["V37"]),
        Term(
            "#VC code 0x400", ["0x400"], .confidential,
            "The guest touched an address without memory and should ask for emulation through the GHCB."),
        Term(
            "cur_entry", ["end_entry", "page state change entry"], .confidential,
            "The first entry of a page state change that is not done. The host may return early: while it is not after end_entry, the "
                + "guest must make the request again. Both are in a shared page, so the guest checks that cur_entry never goes back and "
                + "that end_entry is its own.", topics: ["V7"]),
        Term(
            "page state change refused", ["0x10000000000", "PSC error"], .confidential,
            "SW_EXITINFO2 with 0x100 in its upper half: the monitor refused an entry. Earlier entries stay converted. 1 in the upper half "
                + "is a malformed request: 1 its header, 2 an entry. SNP has no code for \"try again\".",
            topics: ["V15"]),
        Term(
            "malformed GHCB", ["SW_EXITINFO1 2"], .confidential,
            "SW_EXITINFO1 is 2, and SW_EXITINFO2 gives the reason: 1 the page is not registered, 2 the usage field, 3 the scratch area, 4 a "
                + "field is not marked valid, 5 a value is not valid, 6 an event is not valid."),
        Term(
            "GHCB termination", ["TERM_REQ", "GHCB MSR 0x100"], .confidential,
            "Request 0x100 of the GHCB MSR protocol: the guest asks to be terminated, with a reason. KVM_EXIT_SYSTEM_EVENT of type 6, with "
                + "the MSR's value as data.", topics: ["SYSTEM_EVENT type=6"]),
        Term(
            "TDX_PAGE_ALREADY_ACCEPTED", ["0xb0a00000000", "0xb0a00000001", "ALREADY_ACCEPTED"],
            .confidential,
            "Status of ACCEPT: the guest had accepted the page before. Bit 63 is clear, so it is a warning. The bytes are as before, not zero. "
                + "The opposite proves nothing: after the host has removed and added the page, ACCEPT returns 0 over lost data.",
            topics: ["V3"]),
        Term(
            "TDX_PAGE_SIZE_MISMATCH", ["0xc0000b0b00000001", "SIZE_MISMATCH"], .confidential,
            "Status of ACCEPT: the guest asked for 2 MiB, but the secure EPT has pages of 4 KiB there. The guest accepts each of them."
        ),
        Term(
            "TDX_OPERAND_INVALID", ["0xc000010000000000", "0xc000010000000001", "OPERAND_INVALID"],
            .confidential,
            "Status of a TDCALL: an operand is not valid. The lower half is the operand, for example 1 for RCX: reserved bits, the "
                + "shared bit or a wrong level."),
        Term(
            "TDX_OPERAND_BUSY", ["0x8000020000000001", "OPERAND_BUSY"], .confidential,
            "Status of ACCEPT: the host is changing the entry of the secure EPT. The guest calls again."),
        Term(
            "TDX_NO_VE_INFO", ["0xc000070400000000", "NO_VE_INFO"], .confidential,
            "Status of TDG.VP.VEINFO.GET: no #VE is waiting to be read. Until the guest has read the information of a #VE, a second one is "
                + "a double fault."),
        Term(
            "MapGPA RETRY", ["R10 1", "TDVMCALL_STATUS_RETRY"], .confidential,
            "R10 is 1: a part of the range is converted. The guest checks that R11 lies in its range, goes on from there, and gives up after "
                + "a few answers without progress. R11 still has the shared bit. All pages are to be accepted, not only the last ones.",
            topics: ["V12", "V13", "V14"]),
        Term(
            "MapGPA refused", ["0x8000000000000000", "TDVMCALL_STATUS_INVALID_OPERAND"], .confidential,
            "R10 of a TDX guest's request: the range is not valid, or the monitor refused it. R11 is the first page that was not "
                + "converted."),
        Term(
            "MapGPA alignment", ["0x8000000000000002", "TDVMCALL_STATUS_ALIGN_ERROR"], .confidential,
            "R10 of a TDX guest's request: the address or the size is not a multiple of 4 KiB."),
        Term(
            "MapGPA unsupported", ["0x8000000000000003", "TDVMCALL_STATUS_SUBFUNC_UNSUPPORTED"],
            .confidential,
            "R10 of a TDX guest's request: the function is unknown, or the monitor has not enabled KVM_EXIT_HYPERCALL for it."
        ),
    ]
}
