// SPDX-License-Identifier: MIT
// explicit: conversions that the guest requests by hypercall.
//
// KVM_HC_MAP_GPA_RANGE names a range and the state that it shall have. The guest shares one page, then 16, then
// 2 MiB. Each time the host reads a message there and writes an answer. After the pages are private again, the
// host must not be able to access them, and no byte may have changed.
// Ends with exit status 0.
#define GUEST "explicit"
#include "support.h"

#define MESSAGE 0x3f74736f68206968      // "hi host?", little endian
#define ANSWER 0x2174736575672069       // "i guest!"

    begin
    need_one_alias
    print   "Converting free RAM at "
    print_hex %r14
    print   ".\n"
    lea     sizes(%rip), %r12

next_size:
    mov     (%r12), %r13                // R13 = pages
    add     $8, %r12
    test    %r13, %r13
    jz      done
    print   "  "
    print_dec %r13
    print   " x 4 KiB: "

    mov     %r13, %r11
    shl     $12, %r11                   // R11 = bytes
    mov     BOOT_FREE_END(%r15), %rax
    sub     %r14, %rax
    cmp     %r11, %rax
    jae     fits
    print   "skipped, not enough free RAM\n"
    jmp     next_size

fits:
    // Make the range private and write a pattern, eight words per page. Host and guest exchange two words between
    // those of the pattern: the second word of the first page, and the last word of the last page.
    to_private %r14, %r13, MAP_CONTENTS_PRESERVE
    expect_result 0, "making the range private"
    fill    %r14, %r11, $512, %r14
    lea     8(%r14), %r9
    lea     -8(%r14, %r11), %r10
    mov     $MESSAGE, %rax
    mov     %rax, (%r9)

    to_shared %r14, %r13, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"
    expect_shared %r14, "the first page after converting to shared"
    expect_shared %r10, "the last page after converting to shared"
    verify  %r14, %r11, $512, %r14, "contents after converting to shared"
    mov     $MESSAGE, %rax
    mov     %rax, (%r10)

    // The host reads the message and writes an answer.
    peek    %r9
    expect_result 0, "the host reads the first page (HC_PEEK)"
    mov     $MESSAGE, %r8
    expect_value %rcx, %r8, "what the host reads in the first page"
    peek    %r10
    expect_result 0, "the host reads the last page (HC_PEEK)"
    expect_value %rcx, %r8, "what the host reads in the last page"
    mov     $ANSWER, %r8
    poke    %r9, %r8
    expect_result 0, "the host writes the first page (HC_POKE)"
    poke    %r10, %r8
    expect_result 0, "the host writes the last page (HC_POKE)"
    expect_value (%r9), %r8, "what the guest reads in the first page after the host wrote"
    expect_value (%r10), %r8, "what the guest reads in the last page after the host wrote"

    // Convert back. The host can neither read nor write the pages now.
    to_private %r14, %r13, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting back to private"
    expect_private %r14, "the first page after converting back"
    expect_private %r10, "the last page after converting back"
    peek    %r9
    expect_result -EFAULT, "the host reads a private page (HC_PEEK)"
    poke    %r10, $0
    expect_result -EFAULT, "the host writes a private page (HC_POKE)"
    expect_value (%r9), %r8, "the answer in the first page, private again"
    expect_value (%r10), %r8, "the answer in the last page, private again"
    verify  %r14, %r11, $512, %r14, "contents after converting back to private"
    print   "host read and wrote it; private again: EFAULT; contents unchanged\n"
    jmp     next_size

done:
    exit    0

    .subsection 2
    .balign 8
sizes:
    .quad   1, 16, 512, 0
