// SPDX-License-Identifier: MIT
// forget: conversions that zero the contents.
//
// The RAM has two aliases, and the monitor zeroes every page that it converts (--contents zero), as on a kernel that
// keeps private and shared memory in two places. Data written through one alias must never be readable through the
// other: with accesses of every size, in both directions, with accesses across two pages of which only one has to be
// converted, and after conversions by hypercall. The neighbouring page must keep all its bytes. The host checks the
// pages, too (HC_PEEK).
// Ends with exit status 0.
#define GUEST "forget"
#include "support.h"

#define PAGES 16
#define BYTES (PAGES * 4096)

// R14 = the range through the private alias, R13 = the same through the shared one.
// Writes a word of ones through one alias and reads part of it, in one size, through the other into R8, which was all
// ones. LEFT is the value that R8 must then have.
.macro forgotten suffix, register, left, from, to
    mov     $-1, %r8
    mov     %r8, 0x100(\from)
    mov     0x100(\to), %\register
    expect_value %r8, $\left, "a \suffix written through one alias and read through the other"
.endm

.macro forgotten_sizes from, to
    fill    \from, $4096, $8, $-1
    forgotten byte, r8b, -0x100, \from, \to
    fill    \from, $4096, $8, $-1
    forgotten word, r8w, -0x10000, \from, \to
    fill    \from, $4096, $8, $-1
    forgotten doubleword, r8d, 0, \from, \to
    fill    \from, $4096, $8, $-1
    forgotten quadword, r8, 0, \from, \to
    verify_zero \to, $4096, $8, "the rest of the page, after an access of each size"
.endm

// Checks that all pages after the first PAGES still have the pattern from the beginning.
.macro others_kept pages, what
    lea     \pages * 4096(%r14), %r11
    expect_private %r11, "\what"
    verify  %r11, $(BYTES - \pages * 4096), $64, %r11, "\what"
.endm

    begin
    need_two_aliases
    testb   $BOOT_FLAG_IMPLICIT, BOOT_FLAGS(%r15)
    jz      not_converted
    need_free PAGES
    mov     BOOT_SHARED_BIT(%r15), %r13
    or      %r14, %r13
    lea     0xff8(%r14), %r10           // R10 = the last word of page 0

    print   "Private to shared:"
    fill    %r14, $BYTES, $8, %r14      // a write through the private alias makes the pages private
    verify  %r14, $BYTES, $8, %r14, "the pattern just written through the private alias"
    expect_value 8(%r13), $0, "a private page, read through the shared alias"
    expect_shared %r14, "page 0 after a read through the shared alias"
    verify_zero %r13, $4096, $8, "a private page, read through the shared alias"
    peek    %r14
    expect_result 0, "the host reads the first word of page 0"
    expect_value %rcx, $0, "what the host reads in the first word of page 0"
    peek    %r10
    expect_result 0, "the host reads the last word of page 0"
    expect_value %rcx, $0, "what the host reads in the last word of page 0"
    others_kept 1, "the pages after page 0"
    print   " all zero, also for the host.\n"

    print   "Shared to private:"
    fill    %r13, $4096, $8, %r13
    verify  %r13, $4096, $8, %r13, "the pattern just written through the shared alias"
    peek    %r14
    expect_result 0, "the host reads the shared page"
    expect_value %rcx, %r13, "the value that the host reads from the shared page"
    expect_value 8(%r14), $0, "a shared page, read through the private alias"
    expect_private %r14, "page 0 after a read through the private alias"
    verify_zero %r14, $4096, $8, "a shared page, read through the private alias"
    peek    %r10
    expect_result -EFAULT, "the host reads page 0, which is private"
    others_kept 1, "the pages after page 0"
    print   " all zero.\n"

    print   "1, 2, 4 and 8 bytes in both directions:"
    forgotten_sizes %r13, %r14
    forgotten_sizes %r14, %r13
    print   " all zero.\n"

    // After the conversion by a write, the page has that write and zeros.
    print   "Writes and read-modify-writes:"
    fill    %r14, $4096, $8, $-1
    movb    $0x5a, 0x123(%r13)
    expect_value 0x120(%r13), $0x5a000000, "the word around a byte written through the shared alias"
    movb    $0, 0x123(%r13)
    verify_zero %r13, $4096, $8, "the rest of a page of which one byte was written through the shared alias"
    fill    %r13, $4096, $8, $-1
    movb    $0x5a, 0x123(%r14)
    expect_value 0x120(%r14), $0x5a000000, "the word around a byte written through the private alias"
    movb    $0, 0x123(%r14)
    verify_zero %r14, $4096, $8, "the rest of a page of which one byte was written through the private alias"
    movq    $41, 0x200(%r14)
    incq    0x200(%r13)
    expect_value 0x200(%r13), $1, "41, incremented through the shared alias"
    addl    $2, 0x200(%r14)
    expect_value 0x200(%r14), $2, "1, and 2 added through the private alias"
    print   " applied to zeros.\n"

    print   "Across two pages:"
    lea     4096 - 3(%r14), %r12        // R12, R11 = start of the access, private and shared alias
    lea     4096 - 3(%r13), %r11
    fill    %r14, $(2 * 4096), $8, $-1
    mov     $-1, %r8
    mov     %r8, (%r12)
    expect_value (%r11), $0, "two private pages, read through the shared alias"
    verify_zero %r13, $(2 * 4096), $8, "two private pages, read through the shared alias"
    fill    %r13, $(2 * 4096), $8, $-1
    mov     $-1, %r8
    mov     %r8, (%r11)
    expect_value (%r12), $0, "two shared pages, read through the private alias"
    verify_zero %r14, $(2 * 4096), $8, "two shared pages, read through the private alias"
    // Only one of the two pages has to be converted: the other keeps all its bytes.
    mov     $0x1122334455667788, %r8
    mov     %r8, 0xff8(%r13)            // page 0 is shared now, page 1 private
    mov     %r8, 0x1000(%r14)
    expect_value (%r11), $0x112233, "a shared page and a private one, read through the shared alias"
    mov     %r8, 0x1000(%r14)           // page 0 still shared, page 1 private again
    mov     $0x4455667788000000, %r9
    expect_value (%r12), %r9, "a shared page and a private one, read through the private alias"
    others_kept 2, "the pages after page 1"
    print   " converted page zero, other page unchanged.\n"

    print   "By hypercall, pages:"
    lea     sizes(%rip), %r12
next_size:
    mov     (%r12), %r9                 // R9 = pages, R8 = bytes
    add     $8, %r12
    test    %r9, %r9
    jz      done
    mov     %r9, %r8
    shl     $12, %r8
    lea     -8(%r14, %r8), %r10         // R10 = the last word
    fill    %r14, %r8, $64, $-1
    mov     %r8, (%r10)
    to_shared %r14, %r9
    expect_result 0, "converting to shared with the default policy"
    expect_shared %r10, "the last page after converting to shared"
    verify_zero %r13, %r8, $64, "contents after converting to shared"
    peek    %r10
    expect_result 0, "the host reads the last word"
    expect_value %rcx, $0, "what the host reads in the last word"
    poke    %r10, $-1
    expect_result 0, "the host writes the last word"
    to_private %r14, %r9, MAP_CONTENTS_ZERO
    expect_result 0, "converting to private, zero"
    expect_private %r10, "the last page after converting to private"
    expect_value (%r10), $0, "the word that the host wrote, after converting to private"
    verify_zero %r14, %r8, $64, "contents after converting to private"
    peek    %r10
    expect_result -EFAULT, "the host reads a private page"
    print   " "
    print_dec %r9
    jmp     next_size

done:
    print   "; all zero.\n"
    exit    0

not_converted:
    fail    "needs a monitor that converts on a memory fault"

    .subsection 2
    .balign 8
sizes:
    .quad   1, 4, PAGES, 0
