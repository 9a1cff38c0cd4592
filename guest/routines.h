// SPDX-License-Identifier: MIT
// Subroutines and texts for the macros of support.h, the only file that includes this one.
    .subsection 1

// Checks the boot information page, and chooses how to make hypercalls.
setup:
    push    %rsi
    mov     $BOOT_MAGIC_VALUE, %rax
    cmp     %rax, BOOT_MAGIC(%r15)
    lea     what_magic(%rip), %rsi
    jne     failed
    cmpl    $1, BOOT_VERSION(%r15)
    lea     what_version(%rip), %rsi
    jne     failed
    testb   $BOOT_FLAG_VMMCALL, BOOT_FLAGS(%r15)
    jz      1f                          // by port, the initial value
    mov     $1, %al                     // do not use CPUID: some KVMs cannot emulate it in private code
    testb   $BOOT_FLAG_VMCALL, BOOT_FLAGS(%r15)
    jz      0f
    mov     $2, %al
0:  mov     %al, calls_by(%rip)
1:  pop     %rsi
    ret

wait_for_ever:
    service HC_YIELD
    jmp     wait_for_ever

// Makes a hypercall of KVM: RAX = number.
call_monitor:
    cmpb    $1, calls_by(%rip)
    je      1f
    ja      2f
    out     %eax, $PORT_HYPERCALL
    ret
1:  vmmcall
    ret
2:  vmcall
    ret

// Prints the string at RSI.
print_string:
    push    %rax
    push    %rdx
    push    %rsi
    mov     $PORT_COM1, %edx
0:  lodsb
    test    %al, %al
    jz      1f
    out     %al, %dx
    jmp     0b
1:  pop     %rsi
    pop     %rdx
    pop     %rax
    ret

// Prints RAX.
print_hexadecimal:
    push    %rsi
    lea     text_0x(%rip), %rsi
    call    print_string
    pop     %rsi
    push    %rbx
    mov     $16, %ebx
    jmp     print_radix
print_signed:
    test    %rax, %rax
    jns     print_decimal
    push    %rsi
    lea     text_minus(%rip), %rsi
    call    print_string
    pop     %rsi
    neg     %rax
print_decimal:
    push    %rbx
    mov     $10, %ebx
print_radix:                            // prints RAX in base RBX; the old RBX is on the stack
    push    %rax
    push    %rdx
    push    %rsi
    mov     %rsp, %rsi                  // the digits grow downward, below the saved registers
    sub     $72, %rsp
    dec     %rsi
    movb    $0, (%rsi)
0:  xor     %edx, %edx
    div     %rbx
    add     $'0', %dl
    cmp     $'9', %dl
    jbe     1f
    add     $'a' - '9' - 1, %dl
1:  dec     %rsi
    mov     %dl, (%rsi)
    test    %rax, %rax
    jnz     0b
    call    print_string
    add     $72, %rsp
    pop     %rsi
    pop     %rdx
    pop     %rax
    pop     %rbx
    ret

// Writes the pattern: RDI = address, RCX = bytes, RSI = stride, RDX = seed.
fill_words:
    add     %rdi, %rcx
0:  mov     %rdx, (%rdi)
    add     %rsi, %rdi
    add     %rsi, %rdx
    cmp     %rcx, %rdi
    jb      0b
    ret

// Checks the pattern: RAX = increment of the value per word, RBX = text for the error message.
verify_words:
    add     %rdi, %rcx
0:  cmp     %rdx, (%rdi)
    jne     1f
    add     %rsi, %rdi
    add     %rax, %rdx
    cmp     %rcx, %rdi
    jb      0b
    ret
1:  mov     %rbx, %rsi
    call    print_failed
    lea     text_at(%rip), %rsi
    call    print_string
    mov     (%rdi), %rbx                // the value found; RAX is needed for printing
    mov     %rdi, %rax
    call    print_hexadecimal
    mov     %rbx, %rax
    jmp     expected_value

// Failed checks: RSI = text, RDX = expected value, RAX = actual value. Each ends the guest.
failed:
    call    print_failed
    lea     text_newline(%rip), %rsi
    call    print_string
    exit    1

failed_result:
    call    print_failed
    lea     text_expected(%rip), %rsi
    call    print_string
    xchg    %rax, %rdx
    call    print_signed
    lea     text_got(%rip), %rsi
    call    print_string
    mov     %rdx, %rax
    call    print_signed
    lea     text_newline(%rip), %rsi
    call    print_string
    exit    1

failed_value:
    call    print_failed
expected_value:
    lea     text_expected(%rip), %rsi
    call    print_string
    xchg    %rax, %rdx
    call    print_hexadecimal
    lea     text_got(%rip), %rsi
    call    print_string
    mov     %rdx, %rax
    call    print_hexadecimal
    lea     text_newline(%rip), %rsi
    call    print_string
    exit    1

// Prints "NAME: FAILED: TEXT"; RSI = the text.
print_failed:
    push    %rsi
    lea     text_newline(%rip), %rsi    // end an unfinished line
    call    print_string
    lea     guest_name(%rip), %rsi
    call    print_string
    lea     text_failed(%rip), %rsi
    call    print_string
    pop     %rsi
    jmp     print_string

    .subsection 2
calls_by:
    .byte   0                           // 0 = port, 1 = VMMCALL, 2 = VMCALL
text_0x:
    .asciz  "0x"
text_minus:
    .asciz  "-"
text_newline:
    .asciz  "\n"
text_failed:
    .asciz  ": FAILED: "
text_expected:
    .asciz  ": expected "
text_got:
    .asciz  ", got "
text_at:
    .asciz  ": at "
what_magic:
    .asciz  "the boot information page has no magic number"
what_version:
    .asciz  "the boot information page has an unknown version"

what_one_alias:
    .asciz  "needs a machine whose RAM has one alias"
what_two_aliases:
    .asciz  "needs a machine whose RAM has two aliases"
