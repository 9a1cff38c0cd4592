// SPDX-License-Identifier: MIT
// smp: all vCPUs convert interleaved pages in parallel.
//
// Of n vCPUs, number i owns the pages i, i + n, i + 2n ... of one range, so that the neighbours of each page are
// converted by other vCPUs at the same time. In every round each vCPU makes its pages shared, increments a counter in
// them, makes them private, increments the counter again, and checks each time that the first word of the next page,
// which belongs to another vCPU, is unchanged. After each round the vCPUs wait for each other at a barrier.
// vCPU 0 ends the run with exit status 0 when all have finished. Supports 1 to 16 vCPUs.
#define GUEST "smp"
#include "support.h"

#define ROUNDS 4
#define PAGES_EACH 8                    // 16 vCPUs make 1024 conversions

    .subsection 2
    .balign 8
arrivals:
    .quad   0                           // arrivals at the barrier, of all vCPUs together
    .subsection 0

    begin_every_vcpu
    mov     %esi, %ebp                  // RBP = index of this vCPU
    need_one_alias
    mov     BOOT_VCPUS(%r15), %r13d     // R13 = number of vCPUs
    mov     %r13, %r10
    shl     $12, %r10                   // R10 = distance between two pages of one vCPU
    imul    $PAGES_EACH, %r10, %r11
    add     %r14, %r11                  // R11 = the end of the range
    cmp     BOOT_FREE_END(%r15), %r11
    ja      too_small
    mov     %rbp, %r9
    shl     $12, %r9
    add     %r14, %r9                   // R9 = the first page of this vCPU
    xor     %r8d, %r8d                  // R8 = arrivals to wait for, n more each time

    // Word 0 of a page is its address and never changes. Word 1 counts the conversions.
    mov     %r9, %r12
1:  to_private %r12, $1
    expect_result 0, "making a page private"
    mov     %r12, (%r12)
    movq    $0, 8(%r12)
    add     %r10, %r12
    cmp     %r11, %r12
    jb      1b
    call    barrier

    push    $ROUNDS
next_round:
    mov     %r9, %r12
2:  to_shared %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to shared"
    incq    8(%r12)
    call    check_neighbour
    to_private %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to private"
    incq    8(%r12)
    call    check_neighbour
    add     %r10, %r12
    cmp     %r11, %r12
    jb      2b
    call    barrier
    decq    (%rsp)
    jnz     next_round

    // All vCPUs have passed the last barrier, so the pages no longer change.
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
    print   "; no other page changed.\n"
    exit    0

too_small:
    fail    "needs 8 pages of free RAM per vCPU"

// Checks the first word of the page after R12; the first page follows the last.
check_neighbour:
    lea     4096(%r12), %rdi
    cmp     %r11, %rdi
    jb      4f
    mov     %r14, %rdi
4:  expect_value (%rdi), %rdi, "the first word of the next page"
    ret

// Waits until all vCPUs have arrived. HC_YIELD is needed where the vCPUs share one thread.
barrier:
    add     %r13, %r8
    lock incq arrivals(%rip)
5:  cmp     %r8, arrivals(%rip)
    jae     6f
    pause
    service HC_YIELD
    jmp     5b
6:  ret
