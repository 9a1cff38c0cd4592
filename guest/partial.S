// SPDX-License-Identifier: MIT
// partial: a request that the host refuses (--host refuse), and how the guest learns how far it came.
//
// A page state change reports cur_entry, the first entry that was not done. MapGPA answers with a code and the address to go on from.
// The guest must not use the pages that were not converted.
// Ends with exit status 0.
#define GUEST "partial"
#include "support.h"
#include "confidential.h"

    begin_confidential
    mov     %r14, %r8
    mov     $16, %r9
    call    ask_shared
    test    %rax, %rax
    jz      done
    push    %rcx
    say     "answer "
    say_hex %rax
    say     ", to go on from "
    pop     %rcx
    say_hex %rcx
    say     "; the pages are left alone\n"
    leave_with 0
done:
    say     "everything is done\n"
    leave_with 0
