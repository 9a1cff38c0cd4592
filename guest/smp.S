// SPDX-License-Identifier: MIT
// smp: every vCPU converts pages of its own, between those of the others.
//
// It shows conversions in parallel. One range is dealt out like cards: of n vCPUs number i owns the pages
// i, i + n, i + 2n ..., so that each page has neighbours which other vCPUs convert at the same moment. In
// every round each vCPU makes its pages shared, counts that in them, makes them private, counts again, and
// looks each time at the next page, a neighbour's, whose first word never changes. After a round the vCPUs
// meet at a counter in private memory.
// Ends with exit status 0, by vCPU 0 when all are done. Takes 1 to 16 vCPUs.
#define GUEST "smp"
#include "support.h"

#define ROUNDS 4
#define PAGES_EACH 8                    // 16 vCPUs make 1024 conversions

    .subsection 2
    .balign 8
arrivals:
    .quad   0                           // how often a vCPU has come to `meet`, all of them together
    .subsection 0

    begin_every_vcpu
    mov     %esi, %ebp                  // RBP = which vCPU this is
    need_one_alias
    mov     BOOT_VCPUS(%r15), %r13d     // R13 = how many there are
    mov     %r13, %r10
    shl     $12, %r10                   // R10 = bytes from a page to the next of the same owner
    imul    $PAGES_EACH, %r10, %r11
    add     %r14, %r11                  // R11 = the end of the range
    cmp     BOOT_FREE_END(%r15), %r11
    ja      too_small
    mov     %rbp, %r9
    shl     $12, %r9
    add     %r14, %r9                   // R9 = the first page of its own
    xor     %r8d, %r8d                  // R8 = the arrivals to wait for, n more each time

    // Word 0 of a page is its address, for good. Word 1 counts the conversions.
    mov     %r9, %r12
1:  to_private %r12, $1
    expect_result 0, "making a page private"
    mov     %r12, (%r12)
    movq    $0, 8(%r12)
    add     %r10, %r12
    cmp     %r11, %r12
    jb      1b
    call    meet

    push    $ROUNDS
next_round:
    mov     %r9, %r12
2:  to_shared %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to shared"
    incq    8(%r12)
    call    look_at_neighbour
    to_private %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to private"
    incq    8(%r12)
    call    look_at_neighbour
    add     %r10, %r12
    cmp     %r11, %r12
    jb      2b
    call    meet
    decq    (%rsp)
    jnz     next_round

    // Everyone has come to the last meeting: nothing changes any more.
    test    %ebp, %ebp
    jnz     wait_for_ever
    mov     %r14, %r12
3:  expect_private %r12, "a page after the last round"
    expect_value (%r12), %r12, "the first word of a page after the last round"
    expect_value 8(%r12), $(2 * ROUNDS), "the conversions counted in a page"
    add     $4096, %r12
    cmp     %r11, %r12
    jb      3b
    print   "vCPUs: "
    print_dec %r13
    print   ", conversions of interleaved pages: "
    imul    $PAGES_EACH * 2 * ROUNDS, %r13, %r12
    print_dec %r12
    print   ", no neighbour disturbed.\n"
    exit    0

too_small:
    fail    "wants 8 pages of free RAM for each vCPU"

// The page after R12, or the first one after the last, must have its first word in place.
look_at_neighbour:
    lea     4096(%r12), %rdi
    cmp     %r11, %rdi
    jb      4f
    mov     %r14, %rdi
4:  expect_value (%rdi), %rdi, "the first word of a neighbour's page"
    ret

// Waits until all vCPUs are here. One that only spun would keep the others from running where they share a
// thread.
meet:
    add     %r13, %r8
    lock incq arrivals(%rip)
5:  cmp     %r8, arrivals(%rip)
    jae     6f
    pause
    service HC_YIELD
    jmp     5b
6:  ret
