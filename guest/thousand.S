// SPDX-License-Identifier: MIT
// thousand: 1000 pages to shared and back, taken and written again.
//
// By page state changes of 250 entries, or by MapGPA. It shows the cost of a conversion in which the guest has a part.
// Ends with exit status 0.
#define GUEST "thousand"
#include "support.h"
#include "confidential.h"

    begin_confidential
    mov     %r14, %r12
    mov     $4, %ecx
next:
    push    %rcx
    push    %r12
    mov     %r12, %r8
    mov     $250, %r9
    call    take_pages
    must_be %rax, $0, "taking the pages"
    mov     (%rsp), %r12
    share   %r12, 250
    must_be %rax, $0, "sharing the pages"
    mov     (%rsp), %r12
    make_own %r12, 250
    must_be %rax, $0, "taking the pages again"
    mov     (%rsp), %rdi
    mov     $250, %ecx
0:  movq    $1, (%rdi)
    add     $0x1000, %rdi
    dec     %ecx
    jnz     0b
    pop     %r12
    add     $(250 * 0x1000), %r12
    pop     %rcx
    dec     %ecx
    jnz     next
    say     "1000 pages shared, made private again, taken and written\n"
    leave_with 0
