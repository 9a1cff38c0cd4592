// SPDX-License-Identifier: MIT
// contents: what becomes of the bytes, request by request.
//
// It shows that the decision is the guest's: each conversion says whether its bytes shall be preserved, be
// zeroed, or are of no interest, in both directions, and the monitor does it or refuses. It may refuse with
// -EOPNOTSUPP and nothing else, and then neither a byte nor the state of a page may have changed. The table
// says what was honoured; bytes are checked from inside, and by the host (HC_PEEK) where the pages are
// shared.
// Ends with exit status 0, whatever was refused.
#define GUEST "contents"
#include "support.h"

#define PAGES 4
#define BYTES (PAGES * 4096)

// R12 = how many requests were refused. One line of the table: four pages with a pattern are converted.
.macro conversion direction, before, after, contents, title
    print   "\title"
    call    begin_\before
    to_\direction %r14, $PAGES, \contents
    cmp     $-EOPNOTSUPP, %rax
    je      .Lrefused\@
    expect_result 0, "\title"
    expect_\after %r14, "\title"
    .if     (\contents) == MAP_CONTENTS_PRESERVE
    verify  %r14, $BYTES, $64, %r14, "\title"
    .endif
    .if     (\contents) == MAP_CONTENTS_ZERO
    verify_zero %r14, $BYTES, $64, "\title"
    .endif
    .ifc    \after, shared
    peek    %r14
    expect_result 0, "\title: the host reads"
    expect_value %rcx, (%r14), "\title: what the host reads, against what the guest reads"
    .else
    peek    %r14
    expect_result -EFAULT, "\title: the host reads"
    .endif
    call    print_fate
    jmp     .Ldone\@
.Lrefused\@:
    inc     %r12
    expect_\before %r14, "\title: the state of a refused conversion"
    verify  %r14, $BYTES, $64, %r14, "\title: contents of a refused conversion"
    print   "refused with EOPNOTSUPP, nothing changed\n"
.Ldone\@:
.endm

    begin
    need_one_alias
    need_free PAGES
    xor     %r12d, %r12d
    conversion shared,  private, shared,  MAP_CONTENTS_PRESERVE,    "to shared,  preserve:    "
    conversion private, shared,  private, MAP_CONTENTS_PRESERVE,    "to private, preserve:    "
    conversion shared,  private, shared,  MAP_CONTENTS_ZERO,        "to shared,  zero:        "
    conversion private, shared,  private, MAP_CONTENTS_ZERO,        "to private, zero:        "
    conversion shared,  private, shared,  MAP_CONTENTS_UNSPECIFIED, "to shared,  unspecified: "
    conversion private, shared,  private, MAP_CONTENTS_UNSPECIFIED, "to private, unspecified: "
    conversion shared,  private, shared,  MAP_CONTENTS_DEFAULT,     "to shared,  default:     "
    conversion private, shared,  private, MAP_CONTENTS_DEFAULT,     "to private, default:     "
    print_dec %r12
    print   " of 8 refused.\n"
    exit    0

// What a glance at the pages says. Where the request left it open, this is how it went, not what it must
// be.
print_fate:
    cmp     %r14, (%r14)
    jne     1f
    print   "honoured, the bytes are still there\n"
    ret
1:  cmpq    $0, (%r14)
    jne     2f
    print   "honoured, zeros\n"
    ret
2:  print   "honoured, other bytes\n"
    ret

// The pages before a conversion: in this state, with the pattern. How they get there is of no interest.
begin_private:
    to_private %r14, $PAGES, MAP_CONTENTS_UNSPECIFIED
    jmp     3f
begin_shared:
    to_shared %r14, $PAGES, MAP_CONTENTS_UNSPECIFIED
3:  expect_result 0, "preparing the pages"
    fill    %r14, $BYTES, $64, %r14
    ret
