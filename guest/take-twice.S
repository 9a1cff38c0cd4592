// SPDX-License-Identifier: MIT
// take-twice: validating or accepting a page a second time.
//
// PVALIDATE sets CF, and ACCEPT returns the warning 0xb0a: the page was the guest's before, and its bytes are old ones. A guest that
// ignores this takes them for new memory.
// Ends with exit status 0.
#define GUEST "take-twice"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 1
    mov     $0x4242, %r8
    mov     %r8, (%r14)
    take    %r14, 1
    push    %rdx
    push    %rax
    say     "second time: answer "
    pop     %rax
    say_hex %rax
    say     ", carry "
    pop     %rdx
    say_hex %rdx
    say     "; the page still holds "
    mov     (%r14), %r9
    say_hex %r9
    say     "\n"
    must_be %r9, $0x4242, "the page was changed"
    leave_with 0
