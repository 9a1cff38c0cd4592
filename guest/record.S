// SPDX-License-Identifier: MIT
// record: a guest that remembers which pages it has validated (--host swap-pages).
//
// A page in the record that is no longer valid can only mean that the host has changed something. The guest does not validate it
// again; it asks to be terminated.
// Ends with exit status 126 with --host swap-pages, and with 0 with an honest host.
#define GUEST "record"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 2
    movb    $1, validated(%rip)
    mov     $1, %r8
    mov     %r8, (%r14)
    lea     0x1000(%r14), %r12
    host_acts %r14, %r12
    resume_at lost
    mov     (%r14), %r8
    movq    $0, vc_resume(%rip)
    say     "the page is still there\n"
    leave_with 0

lost:
    cmpb    $0, validated(%rip)
    je      0f
    say     "a page that was validated is not valid: terminating\n"
    mov     $0x100, %eax                // by the MSR: terminate
    xor     %edx, %edx
    mov     $MSR_GHCB, %ecx
    wrmsr
    vmgexit_
0:  leave_with 1

    .subsection 2
validated:
    .byte   0
