// SPDX-License-Identifier: MIT
// sweep: all free RAM, page by page, to shared and back.
//
// It shows bulk conversion the slow way, one call a page, which is also the way that makes the most of the
// monitor's attribute map: a border wanders through the whole range, twice. Every page is given its own
// address while it is shared, and must still hold it when it is private again. On a large machine it stops
// after 768 pages.
// Ends with exit status 0.
#define GUEST "sweep"
#include "support.h"

#define MOST_PAGES 768                  // 1536 conversions: about two seconds where one takes a millisecond

    begin
    need_one_alias
    need_free 1
    mov     BOOT_FREE_END(%r15), %r13
    sub     %r14, %r13
    shr     $12, %r13                   // R13 = pages
    cmp     $MOST_PAGES, %r13
    jbe     1f
    mov     $MOST_PAGES, %r13
1:  to_private %r14, %r13
    expect_result 0, "making the whole range private"
    mov     %r13, %r11
    shl     $12, %r11
    add     %r14, %r11                  // R11 = the end
    print   "Sweeping "
    print_dec %r13
    print   " pages from "
    print_hex %r14
    print   ":"

    // To shared, from the bottom up. The word at the end of a page is written before, that at its start after.
    mov     %r14, %r12
2:  mov     %r12, 0xff8(%r12)
    to_shared %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to shared"
    mov     %r12, (%r12)
    add     $0x1000, %r12
    cmp     %r11, %r12
    jb      2b
    print   " all shared,"

    // The host sees the first, the last, and those between as the guest does.
    peek    %r14
    expect_result 0, "the host reads the first page"
    expect_value %rcx, %r14, "what the host reads in the first page"
    lea     -8(%r11), %r10
    lea     -0x1000(%r11), %r9
    peek    %r10
    expect_result 0, "the host reads the last page"
    expect_value %rcx, %r9, "what the host reads in the last page"

    // To private, in the same order, each page verified as soon as it is.
    mov     %r14, %r12
3:  to_private %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to private"
    expect_value (%r12), %r12, "the address that was written while the page was shared"
    expect_value 0xff8(%r12), %r12, "the address that was written before the page was shared"
    add     $0x1000, %r12
    cmp     %r11, %r12
    jb      3b
    print   " all private, every address in its place.\n"
    exit    0
