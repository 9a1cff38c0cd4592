// SPDX-License-Identifier: MIT
// pinned: a page that the host does not let go of.
//
// It shows hazard A4 and its cure. Of eight shared pages the host holds one, as a device that does DMA
// would, and while it does the page cannot become private: KVM answers EAGAIN and names it. A holder that
// lets go when it is asked costs nothing but a retry. One that does not makes the request fail, with
// -EAGAIN: the guest must have lost no byte, the page is still shared, and when the holder is gone the same
// request succeeds.
// Ends with exit status 0.
#define GUEST "pinned"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)
#define PINNED 5                        // which of them the host holds

    begin
    need_one_alias
    need_free PAGES
    lea     PINNED * 4096(%r14), %r13   // R13 = the held page
    to_private %r14, $PAGES
    expect_result 0, "making the range private"
    fill    %r14, $BYTES, $64, %r14
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"

    print   "A holder that lets go when asked:"
    hold    %r13, $1, 0
    expect_result 0, "holding page 5 (HC_HOLD)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to private while a page is held by someone who lets go"
    expect_private %r13, "the page that was held"
    verify  %r14, $BYTES, $64, %r14, "contents after the holder let go"
    print   " private, contents in place.\n"

    print   "A stubborn holder:"
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared again"
    hold    %r13, $1, 1
    expect_result 0, "holding page 5 for good (HC_HOLD)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result -EAGAIN, "converting to private while a page is held for good"
    expect_shared %r13, "the page that is held"
    verify  %r14, $BYTES, $64, %r14, "contents after the conversion was given up"
    peek    %r13
    expect_result 0, "the host reads the page it holds"
    expect_value %rcx, (%r13), "what the host reads in the page it holds"

    // The monitor may have converted the others, or left all as they were. Either is honest; say which.
    print   " EAGAIN, contents in place, pages now "
    mov     %r14, %r12
    lea     BYTES(%r14), %r11
1:  state   %r12
    test    %eax, %eax
    jz      2f
    print   "p"
    jmp     3f
2:  print   "s"
3:  add     $4096, %r12
    cmp     %r11, %r12
    jb      1b

    print   ".\nThe same after it let go:"
    service HC_RELEASE
    expect_result 0, "letting go (HC_RELEASE)"
    to_private %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to private after the holder let go"
    expect_private %r13, "the page that was held for good"
    verify  %r14, $BYTES, $64, %r14, "contents after all"
    peek    %r13
    expect_result -EFAULT, "the host reads the page it held"
    print   " private, contents in place.\n"
    exit    0
