// SPDX-License-Identifier: MIT
// ping-pong: converts one page to shared and back, 1000 times.
//
// It measures the cost of a conversion. Each round trip increments a word of the page once while the page is shared and
// once while it is private, so that a conversion which loses or restores old contents shows in the sum.
// Ends with exit status 0.
#define GUEST "ping-pong"
#include "support.h"

#define ROUND_TRIPS 1000

    begin
    need_one_alias
    need_free 1
    to_private %r14, $1
    expect_result 0, "making the page private"
    movq    $0, (%r14)
    mov     $ROUND_TRIPS, %r12

again:
    to_shared %r14, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to shared"
    incq    (%r14)
    to_private %r14, $1, MAP_CONTENTS_PRESERVE
    expect_result 0, "converting to private"
    incq    (%r14)
    dec     %r12
    jnz     again

    expect_value (%r14), $(2 * ROUND_TRIPS), "the word that was incremented after each conversion"
    print   "Converted one page to shared and back "
    print_dec $ROUND_TRIPS
    print   " times; its counter is correct.\n"
    exit    0
