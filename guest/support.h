// SPDX-License-Identifier: MIT
// Shared code of the guests: image layout, printing, calls to the monitor, checks.
//
// A guest consists of `#define GUEST "its name"`, `#include "support.h"` and its code, which is entered at the first
// line after the include. Most guests start with `begin`, which sets
//     R15 = the boot information page, R14 = the first byte of free RAM, RSI = the index of this vCPU.
// The macros may change RAX, RBX, RCX, RDX, RSI, RDI and the flags; macros that print change only the flags. R8 to R15
// and RBP belong to the guest. Arguments of macros are these registers or immediates.
#include "guest.h"

// ---- the image --------------------------------------------------------------------------------------------
// One section holds all bytes of a guest. Its subsections, in this order: 0 the guest's code, 1 the routines
// (routines.h), 2 text and variables, 9 the end. All references within the section are relative to RIP, so the linker
// relocates nothing, and the bytes in the host's executable are the bytes that run.
    .section .rodata.guest, "aR", @progbits
    .balign 16
guest_start:
    .subsection 2
guest_name:
    .asciz  GUEST
    .subsection 9
guest_end:

// The linker concatenates the entries of all guests; guest_images.c reads them. The flag R protects the section from
// --gc-sections; w is needed because the loader relocates the addresses in an entry.
    .section guest_table, "awR", @progbits
    .balign 8
    .quad   guest_name, guest_start, guest_end, guest_source, guest_source_end

// The guest's source, which the web page shows.
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

// All vCPUs start at the same instruction at the same time. Most guests use only the first; the others wait.
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

// ---- exit ------------------------------------------------------------------------------------------------
.macro exit status
    mov     $\status, %al
    out     %al, $PORT_EXIT
    jmp     .                           // not reached: the monitor does not run the vCPU again
.endm

// ---- calls: the result is in RAX --------------------------------------------------------------------------
// A hypercall of KVM, by instruction or by port, as `setup` has chosen.
.macro hypercall number
    mov     $\number, %eax
    call    call_monitor
.endm

// A call of the monitor, always by port.
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

// ---- checks: a failed check prints the expected value and ends the guest with status 1 --------------------
.macro fail what
    text    .Lwhat\@, "\what"
    lea     .Lwhat\@(%rip), %rsi
    jmp     failed
.endm

// The last call must have returned `want`: 0, 1, or a negative errno.
.macro expect_result want, what
    text    .Lwhat\@, "\what"
    cmp     $(\want), %rax
    je      .Lok\@
    lea     .Lwhat\@(%rip), %rsi
    mov     $(\want), %rdx
    jmp     failed_result
.Lok\@:
.endm

// Two 64-bit values must be equal; `got` may be in memory.
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

// A pattern: one word every `stride` bytes, whose value is `seed` plus the distance from `address`, so that a word from
// another place is detected. Some hosts interpret ring 0 slowly; a larger stride limits the number of instructions.
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
    text    .Lwhat\@, "needs \pages pages of free RAM"
    mov     BOOT_FREE_END(%r15), %rax
    sub     BOOT_FREE_START(%r15), %rax
    shr     $12, %rax
    cmp     $\pages, %rax
    lea     .Lwhat\@(%rip), %rsi
    jb      failed
.endm

// With one alias, the page's state decides whether an access is shared or private; with two, the address decides.
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

    .subsection 0                       // the guest's code starts here
