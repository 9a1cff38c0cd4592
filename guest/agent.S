// SPDX-License-Identifier: MIT
// agent: does the steps of the vCPUs of litmus tests. No guest of the catalogue, and none that can be run by itself.
//
// It asks for its orders by port, makes one access or one call, and tells what came of it, for ever. It needs no stack and no
// boot information page; its addresses are below 4 GiB. Orders are words, read from PORT_ORDER:
//   1. an address
//   2. a number of bytes, or of pages for a call
//   3. what to do, in bits 8 to 15, with a byte in bits 0 to 7: ORDER_*
//   4. for a call: its attributes
#define GUEST "agent"
#include "support.h"

#define PORT_ORDER 0xf5   // IN EAX: the next word
#define PORT_BYTE 0xf4    // OUT AL: the byte that was read
#define PORT_ANSWER 0xf6  // OUT EAX: 0, an errno negated, or for CHECK one past the first byte that differs

#define ORDER_READ 0
#define ORDER_WRITE 1
#define ORDER_FILL 2
#define ORDER_CHECK 3
#define ORDER_CALL_BY_PORT 4
#define ORDER_VMMCALL 5
#define ORDER_VMCALL 6

next:
    in      $PORT_ORDER, %eax
    mov     %eax, %edi
    in      $PORT_ORDER, %eax
    mov     %eax, %ecx
    in      $PORT_ORDER, %eax
    cmp     $ORDER_READ, %ah
    je      read
    cmp     $ORDER_WRITE, %ah
    je      write
    cmp     $ORDER_FILL, %ah
    je      fill
    cmp     $ORDER_CHECK, %ah
    je      check

    mov     %edi, %ebx
    mov     %ah, %dl
    in      $PORT_ORDER, %eax
    xchg    %eax, %edx
    cmp     $ORDER_VMMCALL, %al
    mov     $HC_MAP_GPA_RANGE, %eax
    je      vmmcall
    ja      vmcall
    out     %eax, $PORT_HYPERCALL
    jmp     tell
vmmcall:
    vmmcall
    jmp     tell
vmcall:
    vmcall
    jmp     tell

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
    jmp     tell
check:
    repe scasb
    mov     $0, %eax
    je      tell
    mov     %edi, %eax
tell:
    out     %eax, $PORT_ANSWER
    jmp     next
