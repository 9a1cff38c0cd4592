// SPDX-License-Identifier: MIT
// first-touch: a page must be taken before it is used.
//
// SNP raises #VC in the guest when it touches a page that it has not validated; TDX ends the VM (status 126), unless #VE was
// chosen (--ve). Then the guest does it right: PVALIDATE or ACCEPT, and the page is its own.
// Ends with exit status 0 on SNP, 126 on TDX, 0 there with --ve.
#define GUEST "first-touch"
#include "support.h"
#include "confidential.h"

    begin_confidential
    say     "touching a private page before taking it: "
    resume_at too_early
    mov     (%r14), %r8
    say     "nothing happened\n"
    leave_with 1

too_early:
    say     "exception, code "
    say_hex %rax
    say     " at "
    say_hex %rbx
    say     "\nafter PVALIDATE or ACCEPT: "
    take    %r14, 1
    mov     $0x1234, %r8
    mov     %r8, (%r14)
    mov     (%r14), %r9
    must_be %r9, %r8, "the page does not hold what was written"
    say     "the page is usable\n"
    leave_with 0
