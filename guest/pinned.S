// SPDX-License-Identifier: MIT
// pinned: a page in use cannot become private (hazard A4).
//
// The host holds one of eight shared pages, as for DMA. Meanwhile the page cannot become private: KVM returns EAGAIN and
// names the page. A holder that releases the page on request costs one retry. A holder that keeps the page makes the
// request fail with -EAGAIN: no byte may have changed and the page is still shared. After the holder has released the
// page, the same request succeeds.
// Ends with exit status 0.
#define GUEST "pinned"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)
#define PINNED 5                        // index of the page that the host holds

    begin
    need_one_alias
    need_free PAGES
    lea     PINNED * 4096(%r14), %r13   // R13 = the held page
    to_private %r14, $PAGES
    expect_result 0, "making the range private"
    fill    %r14, $BYTES, $64, %r14
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"

    print   "Holder releases the page on request:"
    hold    %r13, $1, 0
    expect_result 0, "holding page 5 (HC_HOLD)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to private while a holder would release its page"
    expect_private %r13, "the page that was held"
    verify  %r14, $BYTES, $64, %r14, "contents after the holder released the page"
    print   " private; contents unchanged.\n"

    print   "Holder keeps the page:"
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared again"
    hold    %r13, $1, 1
    expect_result 0, "holding page 5 until HC_RELEASE (HC_HOLD)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result -EAGAIN, "converting to private while a holder keeps its page"
    expect_shared %r13, "the page that is held"
    verify  %r14, $BYTES, $64, %r14, "contents after the monitor gave up"
    peek    %r13
    expect_result 0, "the host reads the page it holds"
    expect_value %rcx, (%r13), "what the host reads in the page it holds"

    // Depending on --in-use, the monitor has converted the other pages or none. Both are allowed.
    print   " EAGAIN; contents unchanged; "
    xor     %r12d, %r12d                // R12 = pages still shared
    mov     %r14, %r10
    lea     BYTES(%r14), %r11
1:  state   %r10
    test    %eax, %eax
    jnz     2f
    inc     %r12
2:  add     $4096, %r10
    cmp     %r11, %r10
    jb      1b
    cmp     $PAGES, %r12
    jne     3f
    print   "all 8 pages still shared.\n"
    jmp     4f
3:  print_dec %r12
    print   " of 8 pages still shared.\n"

4:  print   "Holder has released the page:"
    service HC_RELEASE
    expect_result 0, "releasing the page (HC_RELEASE)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to private after the release"
    expect_private %r13, "the page that the holder kept"
    verify  %r14, $BYTES, $64, %r14, "contents at the end"
    peek    %r13
    expect_result -EFAULT, "the host reads the page it held"
    print   " private; contents unchanged.\n"
    exit    0
