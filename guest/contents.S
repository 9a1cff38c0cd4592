// SPDX-License-Identifier: MIT
// contents: the content policies preserve, zero and unspecified, one request at a time.
//
// Each request to convert names the policy for its contents, in both directions, and the monitor honours it or
// refuses. The only errno for a refusal is -EOPNOTSUPP, and after a refusal no byte and no page's state may have
// changed. The guest prints which requests were honoured. It checks the bytes itself, and has the host read them
// (HC_PEEK) where the pages are shared.
// Ends with exit status 0, also if requests were refused.
#define GUEST "contents"
#include "support.h"

#define PAGES 4
#define BYTES (PAGES * 4096)

// Prints one line of the table: converts four pages that hold a pattern. R12 counts the refused requests.
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
    call    print_contents
    jmp     .Ldone\@
.Lrefused\@:
    inc     %r12
    expect_\before %r14, "\title: the state of a refused conversion"
    verify  %r14, $BYTES, $64, %r14, "\title: contents of a refused conversion"
    print   "refused with EOPNOTSUPP; nothing changed\n"
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

// Prints what the first word shows. For an unspecified policy any result is correct.
print_contents:
    cmp     %r14, (%r14)
    jne     1f
    print   "honoured; bytes preserved\n"
    ret
1:  cmpq    $0, (%r14)
    jne     2f
    print   "honoured; bytes are zero\n"
    ret
2:  print   "honoured; bytes changed\n"
    ret

// Puts the pages into the state before the conversion, and writes the pattern.
begin_private:
    to_private %r14, $PAGES, MAP_CONTENTS_UNSPECIFIED
    jmp     3f
begin_shared:
    to_shared %r14, $PAGES, MAP_CONTENTS_UNSPECIFIED
3:  expect_result 0, "preparing the pages"
    fill    %r14, $BYTES, $64, %r14
    ret
