// SPDX-License-Identifier: MIT
// spurious: repeats conversions that are already done.
//
// Conversion is idempotent: a request for pages that already have the requested state succeeds, for single pages and for
// mixed ranges, and no byte may change. RFC v3 to v5 of the kernel series overwrote memory here. Each request is made
// with the default content policy and with preserve.
// Ends with exit status 0.
#define GUEST "spurious"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)

// Repeats a conversion of all eight pages three times.
.macro repeat convert
    mov     $3, %r12d
.Lagain\@:
    \convert %r14, $PAGES
    expect_result 0, "a whole range again"
    \convert %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "a whole range again, preserving contents"
    lea     3 * 4096(%r14), %r11
    \convert %r11, $1
    expect_result 0, "one page again"
    dec     %r12d
    jnz     .Lagain\@
.endm

    begin
    need_one_alias
    need_free PAGES
    to_private %r14, $PAGES
    expect_result 0, "making the range private"
    fill    %r14, $BYTES, $8, %r14      // every word of every page this time

    print   "Private to private:"
    repeat  to_private
    verify  %r14, $BYTES, $8, %r14, "contents after converting private pages to private"
    print   " nothing changed.\n"

    print   "Shared to shared:"
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"
    repeat  to_shared
    expect_shared %r14, "the first page after the repetitions"
    verify  %r14, $BYTES, $8, %r14, "contents after converting shared pages to shared"
    print   " nothing changed.\n"

    // Pages 2, 3 and 6 private, the others shared.
    print   "Mixed range to shared:"
    call    mix
    to_shared %r14, $PAGES
    expect_result 0, "a mixed range to shared"
    lea     6 * 4096(%r14), %r11
    expect_shared %r11, "page 6 of the mixed range"
    verify  %r14, $BYTES, $64, %r14, "contents after a mixed range was made shared"
    print   " contents unchanged.\n"

    print   "Mixed range to private:"
    call    mix
    to_private %r14, $PAGES
    expect_result 0, "a mixed range to private"
    expect_private %r14, "page 0 of the mixed range"
    verify  %r14, $BYTES, $8, %r14, "contents after a mixed range was made private"
    print   " contents unchanged.\n"
    exit    0

mix:
    lea     2 * 4096(%r14), %r11
    to_private %r11, $2, MAP_CONTENTS_PRESERVE
    expect_result 0, "pages 2 and 3 to private"
    lea     6 * 4096(%r14), %r11
    to_private %r11, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "page 6 to private"
    ret
