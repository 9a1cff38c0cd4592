// SPDX-License-Identifier: MIT
// take-then-use: what a new private page contains, and who decides.
//
// The host writes a word into a shared page, which then becomes private. SNP shows garbage: the host's bytes, decrypted with the
// guest's key. TDX shows zero: ACCEPT has cleared the page.
// Ends with exit status 0.
#define GUEST "take-then-use"
#include "support.h"
#include "confidential.h"

    begin_confidential
    share   %r14, 1
    mov     $0x4141414141414141, %r8
    push    %r8
    host_writes %r14, %r8
    pop     %r8
    say     "the host wrote 0x4141414141414141 into a shared page; the guest reads "
    mov     (%r13, %r14), %r9
    say_hex %r9
    make_own %r14, 1
    mov     (%r14), %r9
    say     "\nprivate, and taken: the guest reads "
    say_hex %r9
    mov     $0x4141414141414141, %r8
    cmp     %r8, %r9
    jne     0f
    say     ", which no hardware shows\n"
    leave_with 2
0:  say     "\n"
    leave_with 0
