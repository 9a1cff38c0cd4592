// SPDX-License-Identifier: MIT
// shared-buffer: a page that both sides use, through the right alias.
//
// The guest shares a page and writes through the shared alias; the host reads it and writes an answer. A private page beside it
// is out of the host's reach.
// Ends with exit status 0.
#define GUEST "shared-buffer"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 1
    mov     $0x5ec7e7, %r8
    mov     %r8, (%r14)
    lea     0x1000(%r14), %r12
    share   %r12, 1
    must_be %rax, $0, "the page was not shared"
    lea     0x1000(%r14), %r12
    mov     $0x74736f6820216968, %r8
    mov     %r8, (%r13, %r12)
    host_reads %r12
    mov     $0x74736f6820216968, %r8
    must_be %rcx, %r8, "the host reads something else in the shared page"
    say     "the host reads the message in the shared page\n"
    lea     0x1000(%r14), %r12
    host_writes %r12, $0x2a
    lea     0x1000(%r14), %r12
    mov     (%r13, %r12), %r9
    must_be %r9, $0x2a, "the answer of the host"
    say     "the guest reads the answer of the host\n"
    host_reads %r14
    must_be %rax, $-EFAULT, "the host can read the private page"
    say     "the host cannot read the private page: EFAULT\n"
    leave_with 0
