// SPDX-License-Identifier: MIT
// hostile: invalid requests that the monitor must reject.
//
// Malformed requests must fail with -EINVAL, requests for memory that the host cannot access with -EFAULT, and unknown
// call numbers with -ENOSYS (from the monitor) or -1000 (from KVM itself). Ports without a device are read and
// written in every size. At the end no byte of memory and no page's state may have changed.
// Ends with exit status 0.
#define GUEST "hostile"
#include "support.h"

#define PAGES 8                         // R14: four shared pages, then four private ones
#define BYTES (PAGES * 4096)
#define UNDEFINED_PORT 0x2e4            // no PC device uses this port
#define UNKNOWN_CALL 0x4d5600ff

// A conversion of R12 pages at R11 must fail with -EINVAL in both directions.
.macro malformed what
    to_shared %r11, %r12
    expect_result -EINVAL, "to shared: \what"
    to_private %r11, %r12
    expect_result -EINVAL, "to private: \what"
.endm

// A service with RBX = address, RCX = pages or value, RDX = 0.
.macro ask number, address, argument, want, what
    mov     \address, %rbx
    mov     \argument, %rcx
    xor     %edx, %edx
    service \number
    expect_result \want, "\what"
.endm

// Converts a valid page with undefined attributes.
.macro unknown_attribute bits
    mov     %r14, %rbx
    mov     $1, %ecx
    mov     $(\bits), %rdx
    hypercall HC_MAP_GPA_RANGE
    expect_result -EINVAL, "the undefined attribute \bits"
.endm

    begin
    need_one_alias
    need_free PAGES + 2
    mov     BOOT_RAM_SIZE(%r15), %r13   // R13 = the end of RAM
    lea     4 * 4096(%r14), %r10        // R10 = the first private page
    to_shared %r14, $4, MAP_CONTENTS_UNSPECIFIED
    expect_result 0, "preparing shared pages"
    to_private %r10, $4, MAP_CONTENTS_UNSPECIFIED
    expect_result 0, "preparing private pages"
    fill    %r14, $BYTES, $8, %r14
    lea     BYTES(%r14), %r11
    call    share_what_kvm_reads

    print   "Malformed ranges:"
    mov     $1, %r12d
    lea     1(%r14), %r11
    malformed "an address one byte into a page"
    lea     0x800(%r14), %r11
    malformed "an address in the middle of a page"
    mov     %r14, %r11
    xor     %r12d, %r12d
    malformed "no pages"
    mov     $-1, %r12
    malformed "2^64 - 1 pages"
    mov     $1 << 52, %r12
    malformed "2^52 pages, whose size in bytes wraps to 0"
    mov     $(1 << 52) + 1, %r12
    malformed "2^52 + 1 pages, whose size in bytes wraps to one page"
    mov     $-4096, %r11
    mov     $2, %r12d
    malformed "a range that wraps to address 0"
    print   " EINVAL\n"

    print   "Ranges outside RAM:"
    mov     %r13, %r11
    mov     $1, %r12d
    malformed "the page after RAM"
    lea     -4096(%r13), %r11
    mov     $2, %r12d
    malformed "two pages, the second of which is after RAM"
    mov     %r14, %r11
    mov     $1 << 40, %r12
    malformed "2^40 pages"
    mov     $-4096, %r11
    mov     $1, %r12d
    malformed "the last page of the address space"
    mov     $1 << 46, %r11
    or      %r14, %r11
    malformed "an address with bit 46 set, a common shared bit"
    mov     $1 << 63, %r11
    or      %r14, %r11
    malformed "an address with bit 63 set"
    print   " EINVAL\n"

    print   "Undefined attributes:"
    unknown_attribute 0x20
    unknown_attribute 0x400
    unknown_attribute 1 << 31
    unknown_attribute 1 << 32
    unknown_attribute 1 << 63
    unknown_attribute -1
    print   " EINVAL\n"

    print   "Unknown calls:"
    service UNKNOWN_CALL
    call    expect_unknown
    mov     $-1, %rax
    out     %eax, $PORT_HYPERCALL
    call    expect_unknown
    xor     %eax, %eax
    out     %eax, $PORT_HYPERCALL
    call    expect_unknown
    hypercall UNKNOWN_CALL              // by instruction, if the machine supports it
    call    expect_unknown
    print   " ENOSYS\n"

    print   "Host accesses to memory it cannot reach:"
    ask     HC_PEEK, %r13, $0, -EINVAL, "reading after RAM"
    lea     -4(%r13), %r11
    ask     HC_PEEK, %r11, $0, -EINVAL, "reading across the end of RAM"
    ask     HC_PEEK, $-4, $0, -EINVAL, "reading eight bytes that wrap to address 0"
    ask     HC_PEEK, $-4096, $0, -EINVAL, "reading at the end of the address space"
    ask     HC_POKE, %r13, $0, -EINVAL, "writing after RAM"
    ask     HC_POKE, %r11, $0, -EINVAL, "writing across the end of RAM"
    ask     HC_POKE, $-4, $0, -EINVAL, "writing eight bytes that wrap to address 0"
    ask     HC_STATE, %r13, $0, -EINVAL, "the state of the page after RAM"
    ask     HC_STATE, $-4096, $0, -EINVAL, "the state of the last page of the address space"
    ask     HC_PEEK, %r10, $0, -EFAULT, "reading a private page"
    ask     HC_POKE, %r10, $0, -EFAULT, "writing a private page"
    lea     -4(%r10), %r11
    ask     HC_PEEK, %r11, $0, -EFAULT, "reading across a shared and a private page"
    mov     (%r11), %r9                 // the same bytes again: even a partial write would change nothing
    ask     HC_POKE, %r11, %r9, -EFAULT, "writing across a shared and a private page"
    print   " EINVAL, EFAULT\n"

    print   "Invalid holds:"
    ask     HC_HOLD, %r14, $0, -EINVAL, "holding no pages"
    lea     1(%r14), %r11
    ask     HC_HOLD, %r11, $1, -EINVAL, "holding a page at an unaligned address"
    ask     HC_HOLD, %r13, $1, -EINVAL, "holding the page after RAM"
    lea     -4096(%r13), %r11
    ask     HC_HOLD, %r11, $2, -EINVAL, "holding across the end of RAM"
    mov     $1 << 52, %r11
    ask     HC_HOLD, %r14, %r11, -EINVAL, "holding 2^52 pages"
    ask     HC_HOLD, %r14, $-1, -EINVAL, "holding 2^64 - 1 pages"
    ask     HC_HOLD, %r10, $1, -EFAULT, "holding a private page"
    service HC_RELEASE                  // nothing is held
    expect_result 0, "releasing without a hold"
    service HC_RELEASE
    expect_result 0, "releasing without a hold, again"
    print   " EINVAL, EFAULT\n"

    // Ports without a device. The values read are not checked, only that the guest continues.
    print   "Ports without a device:"
    lea     BYTES(%r14), %r11           // R11 = two pages to read to
    mov     $UNDEFINED_PORT, %edx
    call    every_size
    mov     $0xffff, %edx               // the last port: a wider access extends beyond it
    call    every_size
    xor     %edx, %edx
    call    every_size
    print   " ok\n"

    print   "Ports with a device, used the wrong way:"
    mov     $PORT_EXIT, %edx            // only read: a write would end the guest
    call    reads
    mov     $PORT_HYPERCALL, %edx
    call    reads
    mov     $UNKNOWN_CALL, %eax
    out     %al, $PORT_HYPERCALL        // too narrow for a call
    mov     $UNKNOWN_CALL, %eax
    out     %ax, $PORT_HYPERCALL
    mov     $PORT_COM1, %edx
    call    reads
    mov     $PORT_DEBUG, %edx
    call    reads
    mov     $0x20202020, %eax
    out     %ax, %dx                    // spaces: the console prints one byte or all of them
    out     %eax, %dx
    mov     $PORT_COM1, %edx
    out     %ax, %dx
    out     %eax, %dx
    print   " ok\n"

    lea     dots(%rip), %rsi            // print a string with one instruction
    mov     $PORT_COM1, %edx
    mov     $dots_end - dots, %ecx
    rep outsb
    lea     dots(%rip), %rsi
    mov     $PORT_DEBUG, %edx
    mov     $dots_end - dots, %ecx
    rep outsb
    lea     BYTES(%r14), %r11
    call    make_private_again

    expect_shared %r14, "the first shared page at the end"
    lea     -4096(%r10), %r11
    expect_shared %r11, "the last shared page at the end"
    expect_private %r10, "the first private page at the end"
    lea     BYTES - 4096(%r14), %r11
    expect_private %r11, "the last private page at the end"
    verify  %r14, $BYTES, $8, %r14, "contents at the end"
    print   "No byte and no state has changed.\n"
    exit    0

// KVM emulates string instructions and refuses malformed hypercalls itself. For both it reads the instruction, the page
// tables and the data through the host's mapping. On Linux 7.4 it cannot read private pages there, so the image, the
// memory below it and the two pages at R11 are shared during these steps. Where contents cannot be preserved, the image
// is shared from the start.
share_what_kvm_reads:
    mov     BOOT_IMAGE_END(%r15), %r9
    shr     $12, %r9
    to_shared $0, %r9, MAP_CONTENTS_PRESERVE
    cmp     $-EOPNOTSUPP, %rax
    je      1f
    expect_result 0, "sharing the image"
1:  to_shared %r11, $2, MAP_CONTENTS_UNSPECIFIED
    expect_result 0, "sharing the pages to read to"
    ret
make_private_again:
    mov     BOOT_IMAGE_END(%r15), %r9
    shr     $12, %r9
    to_private $0, %r9, MAP_CONTENTS_PRESERVE
    cmp     $-EOPNOTSUPP, %rax
    je      2f
    expect_result 0, "making the image private again"
2:  to_private %r11, $2, MAP_CONTENTS_UNSPECIFIED
    expect_result 0, "making the pages private again"
    ret

expect_unknown:
    cmp     $-ENOSYS, %rax
    je      1f
    expect_result -KVM_ENOSYS, "an unknown call"
1:  ret

// Accesses port DX in every size and form, with the page at R11 as the buffer.
every_size:
    out     %al, %dx
    out     %ax, %dx
    out     %eax, %dx
    mov     %r11, %rsi
    mov     $200, %ecx
    rep outsb
    mov     $3, %ecx
    rep outsw
    mov     $3, %ecx
    rep outsl
    xor     %ecx, %ecx
    rep outsb                           // zero repetitions
reads:
    in      %dx, %al
    in      %dx, %ax
    in      %dx, %eax
    mov     %r11, %rdi
    mov     $4096, %ecx
    rep insb                            // more than fits into the page in which KVM passes the data
    mov     %r11, %rdi
    mov     $7, %ecx
    rep insw
    mov     $1021, %ecx
    rep insl
    ret

    .subsection 2
dots:
    .ascii  "................................................................\n"
dots_end:
