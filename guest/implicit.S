// SPDX-License-Identifier: MIT
// implicit: conversions by access, without a hypercall.
//
// RAM has two aliases, as on TDX. An access through the alias that does not match the page's state is a
// KVM_EXIT_MEMORY_FAULT: the monitor converts the page, and the instruction runs again. The guest reads and writes in
// every size, across pages and across the private/shared border, modifies words in place and copies from alias to
// alias, and checks each time through the other alias that its data is there.
// Ends with exit status 0.
#define GUEST "implicit"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)

// R14 = the range through the private alias, R13 = the same through the shared one.
// Writes VALUE in one size through one alias and reads it through the other: two conversions.
.macro across suffix, value, scratch, from, to
    mov     $\value, %r8
    mov     %\scratch, 0x100(\from)
    xor     %r8d, %r8d
    mov     0x100(\to), %\scratch
    mov     $\value, %r9
    expect_value %r8, %r9, "a \suffix written through one alias and read through the other"
.endm

    begin
    need_two_aliases
    testb   $BOOT_FLAG_IMPLICIT, BOOT_FLAGS(%r15)
    jz      not_converted
    need_free PAGES
    mov     BOOT_SHARED_BIT(%r15), %r13
    or      %r14, %r13
    fill    %r14, $BYTES, $64, %r14     // a write through the private alias makes the pages private
    expect_private %r14, "page 0 after a write through the private alias"

    print   "One byte through the shared alias:"
    movb    $0x5a, 8(%r13)
    expect_shared %r14, "page 0 after a write through the shared alias"
    lea     4096(%r14), %r11
    expect_private %r11, "page 1, which was not accessed"
    lea     8(%r14), %r11
    peek    %r11
    expect_result 0, "the host reads page 0"
    movzbl  %cl, %ecx
    expect_value %rcx, $0x5a, "the byte that the host reads"
    print   " the host reads it.\n"

    print   "1, 2, 4 and 8 bytes in both directions:"
    across  byte, 0x81, r8b, %r13, %r14
    across  byte, 0x82, r8b, %r14, %r13
    across  word, 0x8283, r8w, %r13, %r14
    across  word, 0x8284, r8w, %r14, %r13
    across  doubleword, 0x84858687, r8d, %r13, %r14
    across  doubleword, 0x84858688, r8d, %r14, %r13
    across  quadword, 0x1122334455667788, r8, %r13, %r14
    across  quadword, 0x1122334455667799, r8, %r14, %r13
    print   " correct.\n"

    print   "Read-modify-write in place:"
    movq    $40, 0x200(%r14)            // private
    incq    0x200(%r13)                 // shared
    addl    $2, 0x200(%r14)             // private
    subw    $1, 0x200(%r13)             // shared
    expect_value 0x200(%r14), $42, "40 + 1 + 2 - 1, through alternating aliases"
    print   " correct.\n"

    // At every offset at which an access spans two pages. R12 = start of the access.
    print   "Across two pages:"
    lea     4096 - 7(%r14), %r12
    mov     $7, %ebp
1:  call    split_8
    inc     %r12
    dec     %ebp
    jnz     1b
    lea     4096 - 3(%r14), %r12
    mov     $3, %ebp
2:  call    split_4
    inc     %r12
    dec     %ebp
    jnz     2b
    lea     4096 - 1(%r14), %r12
    call    split_2
    print   " correct.\n"

    // If one of the two pages already has the right state, only the other may be converted.
    print   "Across the private/shared border:"
    lea     4096 - 3(%r14), %r12
    mov     BOOT_SHARED_BIT(%r15), %r11
    or      %r12, %r11                  // R11 = R12 through the shared alias
    mov     $0x0123456789abcdef, %r8
    mov     %r8, (%r12)                 // both private
    mov     (%r13), %al                 // page 0 shared
    expect_value (%r11), %r8, "read across a shared and a private page through the shared alias"
    call    expect_both_shared
    mov     4096(%r14), %al             // page 1 private
    expect_value (%r12), %r8, "read across a shared and a private page through the private alias"
    call    expect_both_private
    mov     4096(%r13), %al             // page 1 shared
    not     %r8
    mov     %r8, (%r11)
    call    expect_both_shared
    mov     (%r14), %al                 // page 0 private
    not     %r8
    mov     %r8, (%r12)
    call    expect_both_private
    expect_value (%r12), %r8, "the word written across the border"
    print   " only the other page was converted.\n"

    // Copies from alias to alias: bytes and quadwords of pages 2 and 3 to pages 4 and 5, back, and on to page 6, with
    // unaligned ends. The conversions occur in the middle of one instruction, which must continue where it stopped.
    print   "Copied from alias to alias:"
    fill    %r14, $BYTES, $64, %r14
    lea     2 * 4096 + 0xf80(%r14), %r12
    fill    %r12, $0x200, $8, %r14      // the bytes that are copied
    mov     %r12, %rsi
    lea     4 * 4096 + 0xf03(%r13), %rdi
    mov     $0x200, %ecx
    rep movsb                           // private to shared
    lea     4 * 4096 + 0xf03(%r13), %r11
    verify  %r11, $0x200, $8, %r14, "bytes copied from the private alias to the shared one"
    lea     5 * 4096(%r14), %r11
    expect_shared %r11, "page 5, where the copy ended"
    mov     %r12, %rdi
    mov     $0x200 / 8, %ecx
    xor     %eax, %eax
    rep stosq                           // erase the original
    lea     4 * 4096 + 0xf03(%r13), %rsi
    mov     %r12, %rdi
    mov     $0x200 / 8, %ecx
    rep movsq                           // shared to private
    verify  %r12, $0x200, $8, %r14, "quadwords copied from the shared alias to the private one"
    lea     2 * 4096 + 0xf81(%r13), %rsi
    lea     6 * 4096(%r14), %rdi
    mov     $0x1ff, %ecx
    rep movsb                           // the private source, now through the shared alias
    lea     6 * 4096 + 7(%r14), %r11
    lea     8(%r14), %r10
    verify  %r11, $0x1f8, $8, %r10, "bytes copied in the other direction"
    print   " correct.\n"

    // Page 7 and the rest of page 1 were not written.
    lea     7 * 4096(%r14), %r11
    verify  %r11, $4096, $64, %r11, "page 7, which was not accessed"
    expect_private %r11, "page 7, which was not accessed"
    lea     4096 + 64(%r14), %r11
    verify  %r11, $(4096 - 64), $64, %r11, "the part of page 1 that was not accessed"
    exit    0

not_converted:
    fail    "needs a monitor that converts on a memory fault"

// Writes at R12 through the shared alias and reads through the private alias, then the other way round. Each access
// converts two pages.
.macro split name, register, got, value
\name:
    mov     BOOT_SHARED_BIT(%r15), %r11
    or      %r12, %r11
    mov     $\value, %r8
    mov     \register, (%r11)
    call    expect_both_shared
    xor     %r9d, %r9d
    mov     (%r12), \got
    call    expect_both_private
    expect_value %r9, %r8, "written across two pages through the shared alias, read through the private one"
    add     $1, %r8
    mov     \register, (%r12)
    xor     %r9d, %r9d
    mov     (%r11), \got
    expect_value %r9, %r8, "written across two pages through the private alias, read through the shared one"
    ret
.endm
    split   split_8, %r8, %r9, 0x1122334455667788
    split   split_4, %r8d, %r9d, 0xa1b2c3d4
    split   split_2, %r8w, %r9w, 0xe5f6

// Pages 0 and 1.
expect_both_shared:
    lea     4096(%r14), %r10
    expect_shared %r14, "page 0 of an access across two, through the shared alias"
    expect_shared %r10, "page 1 of an access across two, through the shared alias"
    ret
expect_both_private:
    lea     4096(%r14), %r10
    expect_private %r14, "page 0 of an access across two, through the private alias"
    expect_private %r10, "page 1 of an access across two, through the private alias"
    ret
