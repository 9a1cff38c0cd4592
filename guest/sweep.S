// SPDX-License-Identifier: MIT
// sweep: converts free RAM page by page, to shared and back.
//
// It makes one call per page, so that the border between private and shared moves through the whole range twice. Each
// page gets its own address as contents while it is shared, and must still have it when it is private again. At most
// 768 pages are converted.
// Ends with exit status 0.
#define GUEST "sweep"
#include "support.h"

#define MOST_PAGES 768                  // 1536 conversions: about two seconds at a millisecond each

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

    // To shared, in ascending order. The last word of a page is written before the conversion, the first word after it.
    mov     %r14, %r12
2:  mov     %r12, 0xff8(%r12)
    to_shared %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to shared"
    mov     %r12, (%r12)
    add     $0x1000, %r12
    cmp     %r11, %r12
    jb      2b
    print   " all shared,"

    // The host reads the first and the last page and sees the same words.
    peek    %r14
    expect_result 0, "the host reads the first page"
    expect_value %rcx, %r14, "what the host reads in the first page"
    lea     -8(%r11), %r10
    lea     -0x1000(%r11), %r9
    peek    %r10
    expect_result 0, "the host reads the last page"
    expect_value %rcx, %r9, "what the host reads in the last page"

    // To private, in the same order. Each page is checked at once.
    mov     %r14, %r12
3:  to_private %r12, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting a page to private"
    expect_value (%r12), %r12, "the address that was written while the page was shared"
    expect_value 0xff8(%r12), %r12, "the address that was written before the page was shared"
    add     $0x1000, %r12
    cmp     %r11, %r12
    jb      3b
    print   " all private; contents correct.\n"
    exit    0
