// SPDX-License-Identifier: MIT
// resume: a conversion that stops half-way, and how the guest goes on.
//
// The host keeps one of eight shared pages in use, so the call fails with -EAGAIN. RCX in the reply is the first page
// that was not converted: each page before it is private, and it is still shared. When the host has released its page,
// the guest repeats the call from there, not from the start. With --in-use bisect five pages were converted, otherwise
// none. On SNP the GHCB says where a request stopped (cur_entry), and on TDX R11 does (`partial`, `thousand`).
// Ends with exit status 0.
#define GUEST "resume"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)
#define PINNED 5                        // index of the page that the host holds

    begin
    need_one_alias
    need_free PAGES
    lea     BYTES(%r14), %r15    // R15 = end of the range
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"
    fill    %r14, $BYTES, $64, %r14
    lea     PINNED * 4096(%r14), %r13
    hold    %r13, $1, 1
    expect_result 0, "holding page 5 until HC_RELEASE (HC_HOLD)"

    mov     %r14, %rbx
    mov     $PAGES, %ecx
    mov     $(MAP_PRIVATE | MAP_CONTENTS_PRESERVE), %edx
    service HC_MAP_GPA_RANGE            // by port, since RCX is in the reply
    mov     %rcx, %r13                  // R13 = first page not converted
    expect_result -EAGAIN, "converting to private while the host keeps a page"
    expect_shared %r13, "the first page not converted (RCX)"
    mov     %r14, %r12
1:  cmp     %r13, %r12
    je      2f
    expect_private %r12, "a page before the first page not converted"
    add     $4096, %r12
    jmp     1b

2:  mov     %r13, %rax
    sub     %r14, %rax
    shr     $12, %rax
    print_dec %rax
    print   " pages converted before the call stopped\n"
    service HC_RELEASE
    expect_result 0, "releasing the page (HC_RELEASE)"
    mov     %r15, %rcx
    sub     %r13, %rcx
    shr     $12, %rcx
    mov     %rcx, %r12
    to_private %r13, %r12, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting the rest"
    mov     %r14, %r12
3:  expect_private %r12, "a page at the end"
    add     $4096, %r12
    cmp     %r15, %r12
    jne     3b
    verify  %r14, $BYTES, $64, %r14, "contents at the end"
    print   "the rest is private, too; contents unchanged\n"
    exit    0
