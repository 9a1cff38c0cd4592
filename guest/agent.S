// SPDX-License-Identifier: MIT
// agent: performs the vCPU steps of litmus tests. It is not in the catalogue and cannot be run by itself.
//
// In an endless loop it reads an order, makes one access or hypercall, and reports the result to a port. It needs no stack and
// no boot information page; its addresses are below 4 GiB. An order is four words at RBP, which the monitor writes before it
// enters the guest:
//   1. an address
//   2. a number of bytes, or of pages for a hypercall
//   3. the operation (ORDER_*) in bits 8 to 15, and a byte in bits 0 to 7
//   4. the attributes, for a hypercall only
// An order by ports would be an exit for each word, and an exit takes longer than most accesses.
#define GUEST "agent"
#include "support.h"

#define PORT_BYTE 0xf4    // OUT AL: the byte that was read
#define PORT_ANSWER 0xf6  // OUT EAX: 0, a negated errno, or for CHECK the address after the first byte that differs

#define ORDER_READ 0
#define ORDER_WRITE 1
#define ORDER_FILL 2
#define ORDER_CHECK 3
#define ORDER_CALL_BY_PORT 4
#define ORDER_VMMCALL 5
#define ORDER_VMCALL 6

next:
    mov     (%rbp), %edi
    mov     4(%rbp), %ecx
    mov     8(%rbp), %eax
    cmp     $ORDER_READ, %ah
    je      read
    cmp     $ORDER_WRITE, %ah
    je      write
    cmp     $ORDER_FILL, %ah
    je      fill
    cmp     $ORDER_CHECK, %ah
    je      check

    mov     %edi, %ebx
    mov     12(%rbp), %edx
    cmp     $ORDER_VMMCALL, %ah
    mov     $HC_MAP_GPA_RANGE, %eax
    je      vmmcall
    ja      vmcall
    out     %eax, $PORT_HYPERCALL
    jmp     report
vmmcall:
    vmmcall
    jmp     report
vmcall:
    vmcall
    jmp     report

read:
    mov     (%rdi), %al
    out     %al, $PORT_BYTE
    jmp     next
write:
    mov     %al, (%rdi)
    jmp     done
fill:
    rep stosb
done:
    xor     %eax, %eax
    jmp     report
check:
    repe scasb
    mov     $0, %eax
    je      report
    mov     %edi, %eax
report:
    out     %eax, $PORT_ANSWER
    jmp     next
