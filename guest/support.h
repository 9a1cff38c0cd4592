// SPDX-License-Identifier: MIT
// What the guests have in common: how an image is laid out, printing, calling the monitor, checking.
//
// A guest is `#define GUEST "its name"`, `#include "support.h"`, and code, which is entered at the first
// line after the include. Nearly all of them go on with `begin`, which leaves
//     R15 = the boot information page, R14 = the first byte of free RAM, RSI = the index of this vCPU.
// The macros may change RAX, RBX, RCX, RDX, RSI, RDI and the flags; those that print change the flags only.
// R8 to R15 and RBP are the guest's own. Arguments are registers of its own or immediates.
#include "guest.h"

// ---- the image --------------------------------------------------------------------------------------------
// One section holds all bytes of a guest. Its subsections, in this order: 0 the guest's code, 1 the
// routines (routines.h), 2 text and variables, 9 nothing but the end. Within the section
// everything is reached relative to RIP, so the linker has nothing to fill in, and the bytes in the host's
// executable are the bytes that run.
    .section .rodata.guest, "aR", @progbits
    .balign 16
guest_start:
    .subsection 2
guest_name:
    .asciz  GUEST
    .subsection 9
guest_end:

// The linker puts these entries of all guests one after the other; guest_images.c reads them. R keeps a
// section from --gc-sections; w is there because an entry holds addresses, which the loader of the
// executable relocates.
    .section guest_table, "awR", @progbits
    .balign 8
    .quad   guest_name, guest_start, guest_end, guest_source, guest_source_end

// The text that a reader is shown: the guest's own file.
    .section .rodata.guest_source, "aR", @progbits
guest_source:
    .incbin __BASE_FILE__
guest_source_end:

    .section .note.GNU-stack, "", @progbits
    .section .rodata.guest, "aR", @progbits

.macro begin_every_vcpu
    mov     %rdi, %r15
    mov     BOOT_FREE_START(%r15), %r14
    call    setup
.endm

// Every vCPU starts at the same place at the same time. Most guests need only one: the others wait for its
// end.
.macro begin
    begin_every_vcpu
    test    %esi, %esi
    jnz     wait_for_ever
.endm

// `text LABEL, "..."`: a string of the image.
.macro text label, string
    .subsection 2
\label:
    .asciz "\string"
    .subsection 0
.endm

// ---- printing, to COM1 ------------------------------------------------------------------------------------
.macro print string
    text    .Ltext\@, "\string"
    push    %rsi
    lea     .Ltext\@(%rip), %rsi
    call    print_string
    pop     %rsi
.endm

.macro print_dec value
    push    %rax
    mov     \value, %rax
    call    print_decimal
    pop     %rax
.endm

.macro print_hex value
    push    %rax
    mov     \value, %rax
    call    print_hexadecimal
    pop     %rax
.endm

// ---- the end ----------------------------------------------------------------------------------------------
.macro exit status
    mov     $\status, %al
    out     %al, $PORT_EXIT
    jmp     .                           // not reached: the monitor does not come back from this
.endm

// ---- calls: the result is in RAX --------------------------------------------------------------------------
// A call of KVM's, by instruction or by port, whichever `setup` found.
.macro hypercall number
    mov     $\number, %eax
    call    call_monitor
.endm

// A call that only the monitor knows, always by port.
.macro service number
    mov     $\number, %eax
    out     %eax, $PORT_HYPERCALL
.endm

.macro to_shared address, pages, contents=MAP_CONTENTS_DEFAULT
    mov     \address, %rbx
    mov     \pages, %rcx
    mov     $(\contents), %edx
    hypercall HC_MAP_GPA_RANGE
.endm

.macro to_private address, pages, contents=MAP_CONTENTS_DEFAULT
    mov     \address, %rbx
    mov     \pages, %rcx
    mov     $(\contents | MAP_PRIVATE), %edx
    hypercall HC_MAP_GPA_RANGE
.endm

// The host reads eight bytes into RCX.
.macro peek address
    mov     \address, %rbx
    service HC_PEEK
.endm

.macro poke address, value
    mov     \address, %rbx
    mov     \value, %rcx
    service HC_POKE
.endm

.macro hold address, pages, stubborn
    mov     \address, %rbx
    mov     \pages, %rcx
    mov     $\stubborn, %edx
    service HC_HOLD
.endm

.macro state address
    mov     \address, %rbx
    service HC_STATE
.endm

// ---- checks: one that does not hold ends the guest with status 1 and says what was expected ---------------
.macro fail what
    text    .Lwhat\@, "\what"
    lea     .Lwhat\@(%rip), %rsi
    jmp     failed
.endm

// The call that was just made must have returned `want`: 0, 1, or a negative errno.
.macro expect_result want, what
    text    .Lwhat\@, "\what"
    cmp     $(\want), %rax
    je      .Lok\@
    lea     .Lwhat\@(%rip), %rsi
    mov     $(\want), %rdx
    jmp     failed_result
.Lok\@:
.endm

// Two 64-bit values must be the same; `got` may be in memory.
.macro expect_value got, want, what
    text    .Lwhat\@, "\what"
    push    \got
    push    \want
    pop     %rdx
    pop     %rax
    cmp     %rdx, %rax
    je      .Lok\@
    lea     .Lwhat\@(%rip), %rsi
    jmp     failed_value
.Lok\@:
.endm

.macro expect_shared address, what
    state   \address
    expect_result 0, "\what (HC_STATE: 0 = shared)"
.endm

.macro expect_private address, what
    state   \address
    expect_result 1, "\what (HC_STATE: 1 = private)"
.endm

// A pattern: one word every `stride` bytes, its value `seed` plus the distance from `address`, so that a
// word that comes back from elsewhere is noticed. The interpreted ring 0 of some hosts makes five
// instructions a word dear; hence the stride.
.macro fill address, bytes, stride, seed
    mov     \address, %rdi
    mov     \bytes, %rcx
    mov     \stride, %rsi
    mov     \seed, %rdx
    call    fill_words
.endm

.macro verify address, bytes, stride, seed, what
    text    .Lwhat\@, "\what"
    mov     \address, %rdi
    mov     \bytes, %rcx
    mov     \stride, %rsi
    mov     \seed, %rdx
    mov     %rsi, %rax
    lea     .Lwhat\@(%rip), %rbx
    call    verify_words
.endm

.macro verify_zero address, bytes, stride, what
    text    .Lwhat\@, "\what"
    mov     \address, %rdi
    mov     \bytes, %rcx
    mov     \stride, %rsi
    xor     %edx, %edx
    xor     %eax, %eax
    lea     .Lwhat\@(%rip), %rbx
    call    verify_words
.endm

.macro need_free pages
    text    .Lwhat\@, "wants \pages pages of free RAM"
    mov     BOOT_FREE_END(%r15), %rax
    sub     BOOT_FREE_START(%r15), %rax
    shr     $12, %rax
    cmp     $\pages, %rax
    lea     .Lwhat\@(%rip), %rsi
    jb      failed
.endm

// With one alias an access is shared or private as its page is; with two it is so by its address.
.macro need_one_alias
    cmpq    $0, BOOT_SHARED_BIT(%r15)
    lea     what_one_alias(%rip), %rsi
    jne     failed
.endm

.macro need_two_aliases
    cmpq    $0, BOOT_SHARED_BIT(%r15)
    lea     what_two_aliases(%rip), %rsi
    je      failed
.endm

#include "routines.h"

    .subsection 0                       // here the guest begins
