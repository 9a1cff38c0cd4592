// SPDX-License-Identifier: MIT
// spurious: asking for what is already so.
//
// It shows that conversion is idempotent: a page that has the wanted state may be asked for again, alone or
// in a range in which only some pages have to change, and the answer is 0. No byte may change; historic
// kernels scrambled memory here. Each request is made without a word about the contents, and with the wish
// to keep them.
// Ends with exit status 0.
#define GUEST "spurious"
#include "support.h"

#define PAGES 8
#define BYTES (PAGES * 4096)

// All eight pages, three times over, in the state they have.
.macro repeat convert
    mov     $3, %r12d
.Lagain\@:
    \convert %r14, $PAGES
    expect_result 0, "a whole range that is so already"
    \convert %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "a whole range that is so already, preserving"
    lea     3 * 4096(%r14), %r11
    \convert %r11, $1
    expect_result 0, "one page that is so already"
    dec     %r12d
    jnz     .Lagain\@
.endm

    begin
    need_one_alias
    need_free PAGES
    to_private %r14, $PAGES
    expect_result 0, "making the range private"
    fill    %r14, $BYTES, $8, %r14      // every word of every page this time

    print   "Private, asked to be private:"
    repeat  to_private
    verify  %r14, $BYTES, $8, %r14, "contents after asking private pages to be private"
    print   " nothing changed.\n"

    print   "Shared, asked to be shared:"
    to_shared %r14, $PAGES, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"
    repeat  to_shared
    expect_shared %r14, "the first page after all this"
    verify  %r14, $BYTES, $8, %r14, "contents after asking shared pages to be shared"
    print   " nothing changed.\n"

    // Pages 2, 3 and 6 private, the others shared.
    print   "Mixed, asked to be shared:"
    call    mix
    to_shared %r14, $PAGES
    expect_result 0, "a mixed range to shared"
    lea     6 * 4096(%r14), %r11
    expect_shared %r11, "page 6 of the mixed range"
    verify  %r14, $BYTES, $64, %r14, "contents after a mixed range was made shared"
    print   " contents in place.\n"

    print   "Mixed, asked to be private:"
    call    mix
    to_private %r14, $PAGES
    expect_result 0, "a mixed range to private"
    expect_private %r14, "page 0 of the mixed range"
    verify  %r14, $BYTES, $8, %r14, "contents after a mixed range was made private"
    print   " contents in place.\n"
    exit    0

mix:
    lea     2 * 4096(%r14), %r11
    to_private %r11, $2, MAP_CONTENTS_PRESERVE
    expect_result 0, "pages 2 and 3 to private"
    lea     6 * 4096(%r14), %r11
    to_private %r11, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "page 6 to private"
    ret
