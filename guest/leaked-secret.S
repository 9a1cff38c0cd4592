// SPDX-License-Identifier: MIT
// leaked-secret: a page is shared with a secret in it.
//
// The guest forgets to wipe the page. On SNP the host finds ciphertext and on TDX zeros, but no specification promises either; a
// software-protected VM and pKVM show the secret.
// Ends with exit status 0.
#define GUEST "leaked-secret"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 1
    mov     $0x5ec7e75ec7e7, %r8
    mov     %r8, (%r14)
    share   %r14, 1
    host_reads %r14
    push    %rcx
    say     "secret 0x5ec7e75ec7e7; the host reads "
    pop     %rcx
    mov     %rcx, %r9
    say_hex %r9
    mov     $0x5ec7e75ec7e7, %r8
    cmp     %r8, %r9
    je      0f
    say     "\n"
    leave_with 0
0:  say     ", the secret\n"
    leave_with 2
