// SPDX-License-Identifier: MIT
// Macros for guests of SNP and TDX VMs, included after support.h. The same lines of a guest run on both.
//
//     R15 = the boot information page, R14 = free RAM, private and neither validated nor accepted. R13 = the mask of the shared
//     alias: an access through `(%r13, ADDRESS)` is shared. One page at COM_PAGE is shared: the GHCB, and the page for calls.
//
// The macros may change RAX, RBX, RCX, RDX, RSI, RDI and the flags; on TDX also R10, R11 and R12. A guest uses R8 and R9.

#define COM_PAGE 0x80000          // GHCB on SNP; the page after it is for calls to the monitor
#define CALL_PAGE (COM_PAGE + 0x1000)

#define MSR_GHCB 0xc0010130
#define GHCB_RAX 0x1f8
#define GHCB_EXIT_CODE 0x390
#define GHCB_EXIT_INFO1 0x398
#define GHCB_EXIT_INFO2 0x3a0
#define GHCB_SCRATCH 0x3a8
#define GHCB_VALID 0x3f0
#define GHCB_BUFFER 0x800

#define EXIT_IOIO 0x7b
#define EXIT_HLT 0x78
#define EXIT_PAGE_STATE 0x80000010

    .subsection 1
// The instructions, which some assemblers do not know.
.macro pvalidate_
    .byte 0xf2, 0x0f, 0x01, 0xff
.endm
.macro vmgexit_
    .byte 0xf3, 0x0f, 0x01, 0xd9
.endm
.macro tdcall_
    .byte 0x66, 0x0f, 0x01, 0xcc
.endm

// Jumps to LABEL on TDX.
.macro on_tdx label
    testb   $BOOT_FLAG_TDX, BOOT_FLAGS(%r15)
    jnz     \label
.endm

// Makes the communication pages shared, before anything can be printed.
confidential_setup:
    mov     BOOT_FREE_START(%r15), %r14
    mov     BOOT_SHARED_BIT(%r15), %r13
    lea     idt(%rip), %rsi
    lea     on_vc(%rip), %rax
    lea     29 * 16(%rsi), %rdi
    call    set_gate
    lea     on_ve(%rip), %rax
    lea     20 * 16(%rsi), %rdi
    call    set_gate
    mov     %rsi, idt_base(%rip)
    lidt    idt_pointer(%rip)
    on_tdx  1f
    // By the MSR, because there is no page for the GHCB yet: rescind, and ask for a shared page, twice.
    mov     $COM_PAGE, %r8
    call    share_by_msr
    mov     $CALL_PAGE, %r8
    call    share_by_msr
    mov     $(COM_PAGE | 0x012), %eax   // register the GHCB
    xor     %edx, %edx
    mov     $MSR_GHCB, %ecx
    wrmsr
    vmgexit_
    mov     $COM_PAGE, %eax
    xor     %edx, %edx
    mov     $MSR_GHCB, %ecx
    wrmsr
    call    clear_pages
    ret
1:  mov     $COM_PAGE, %r8
    mov     $2, %r9
    mov     $0x800000000000, %rax       // bit 47: to shared
    call    map_gpa
clear_pages:
    mov     $COM_PAGE, %edi
    or      %r13, %rdi
    mov     $1024, %ecx
    xor     %eax, %eax
    rep stosq
    ret

// An interrupt gate at RDI for the handler in RAX.
set_gate:
    mov     %ax, (%rdi)
    movw    $8, 2(%rdi)
    movw    $0x8e00, 4(%rdi)
    shr     $16, %rax
    mov     %ax, 6(%rdi)
    shr     $16, %rax
    mov     %eax, 8(%rdi)
    ret

// SNP: R8 = a valid page.
share_by_msr:
    mov     %r8, %rax
    xor     %ecx, %ecx
    xor     %edx, %edx
    pvalidate_
    mov     %r8d, %eax
    or      $0x014, %eax
    mov     $(2 << 20), %edx            // operation 2, in bits 55 to 52
    mov     $MSR_GHCB, %ecx
    wrmsr
    vmgexit_
    ret

// SNP: RAX = code, RBX = information 1, RCX = RAX of the GHCB. Afterwards RAX = information 2, RCX = RAX.
ghcb_exit:
    mov     $COM_PAGE, %edx
    or      %r13, %rdx
    mov     %rax, GHCB_EXIT_CODE(%rdx)
    mov     %rbx, GHCB_EXIT_INFO1(%rdx)
    movq    $0, GHCB_EXIT_INFO2(%rdx)
    mov     %rcx, GHCB_RAX(%rdx)
    mov     $(COM_PAGE + GHCB_BUFFER), %eax
    mov     %rax, GHCB_SCRATCH(%rdx)
    movq    $-1, GHCB_VALID(%rdx)
    movq    $-1, GHCB_VALID + 8(%rdx)
    movl    $0, 0xffc(%rdx)
    vmgexit_
    mov     GHCB_EXIT_INFO2(%rdx), %rax
    mov     GHCB_RAX(%rdx), %rcx
    ret

// TDX: R12 to R15 are arguments, R11 is the request. The caller saves R13 to R15.
td_request:
    xor     %eax, %eax
    xor     %r10d, %r10d
    mov     $0xfc00, %ecx
    tdcall_
    ret

// Writes AL to the port in EDX.
out_byte:
    push    %rbx
    push    %rcx
    push    %rdx
    movzx   %al, %ecx
    call    out_value
    pop     %rdx
    pop     %rcx
    pop     %rbx
    ret

// Writes ECX to the port in EDX: one byte, or 4, or RBX bytes.
out_value:
    mov     $1, %ebx
    jmp     out_sized
out_word:                               // 4 bytes
    mov     $4, %ebx
out_sized:                              // RBX = bytes, ECX = value, EDX = port
    push    %rax
    testb   $BOOT_FLAG_TDX, BOOT_FLAGS(%r15)
    jnz     1f
    shl     $4, %ebx                    // the size in bits 6 to 4, the port in 31 to 16, OUT
    shl     $16, %edx
    or      %rdx, %rbx
    mov     $EXIT_IOIO, %eax
    call    ghcb_exit
    pop     %rax
    ret
1:  push    %r10
    push    %r11
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rbx, %r12
    mov     $1, %r13d
    mov     %rdx, %r14
    mov     %rcx, %r15
    mov     $30, %r11d
    call    td_request
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %r11
    pop     %r10
    pop     %rax
    ret

// Prints the string at RSI.
say_string:
    push    %rax
    push    %rdx
    push    %rsi
0:  mov     (%rsi), %al
    inc     %rsi
    test    %al, %al
    jz      1f
    mov     $PORT_COM1, %edx
    call    out_byte
    jmp     0b
1:  pop     %rsi
    pop     %rdx
    pop     %rax
    ret

// Prints RAX in hexadecimal.
say_number:
    push    %rax
    push    %rbx
    push    %rcx
    push    %rdx
    push    %rsi
    mov     %rax, %rbx
    lea     say_0x(%rip), %rsi
    call    say_string
    mov     $60, %ecx
0:  test    %ecx, %ecx                  // leading zeros are left out
    jz      1f
    mov     %rbx, %rax
    shr     %cl, %rax
    jnz     1f
    sub     $4, %ecx
    jmp     0b
1:  mov     %rbx, %rax
    shr     %cl, %rax
    and     $0xf, %eax
    add     $'0', %al
    cmp     $'9', %al
    jbe     2f
    add     $'a' - '9' - 1, %al
2:  push    %rcx
    mov     $PORT_COM1, %edx
    call    out_byte
    pop     %rcx
    sub     $4, %ecx
    jns     1b
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rbx
    pop     %rax
    ret

// A page state change or MapGPA: R8 = address, R9 = pages, RAX = 1 to private, 2 to shared (SNP), or the shared bit (TDX).
// Afterwards RAX = 0, or why it failed; RCX = pages done on SNP, the address to go on from on TDX.
map_gpa:
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %r8, %r12
    or      %rax, %r12
    mov     %r9, %r13
    shl     $12, %r13
    mov     $0x10001, %r11d
    call    td_request
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    mov     %r10, %rax
    mov     %r11, %rcx
    ret
page_state_change:
    mov     $COM_PAGE, %edi
    or      %r13, %rdi
    lea     GHCB_BUFFER(%rdi), %rdi
    mov     %r9, %rcx
    dec     %rcx
    shl     $16, %rcx                   // cur_entry 0, end_entry = pages - 1
    mov     %rcx, (%rdi)
    shl     $52, %rax
    or      %r8, %rax
    mov     %r9, %rcx
0:  add     $8, %rdi
    mov     %rax, (%rdi)
    add     $0x1000, %rax
    dec     %rcx
    jnz     0b
    mov     $EXIT_PAGE_STATE, %eax
    xor     %ebx, %ebx
    xor     %ecx, %ecx
    call    ghcb_exit
    mov     $COM_PAGE, %edi
    or      %r13, %rdi
    movzwl  GHCB_BUFFER(%rdi), %ecx
    ret

// Asks for a state of R9 pages (at most 253) at R8: the shared bit of support.h decides which protocol.
ask_private:
    on_tdx  1f
    mov     $1, %eax
    jmp     page_state_change
1:  xor     %eax, %eax
    jmp     map_gpa
ask_shared:
    on_tdx  1f
    mov     $2, %eax
    jmp     page_state_change
1:  mov     $0x800000000000, %rax
    jmp     map_gpa

// PVALIDATE or ACCEPT of R9 pages at R8, until one answer is not 0. Afterwards RAX = the answer, with CF of PVALIDATE in
// RDX; R10 = the page after the last one that was taken.
take_pages:
    mov     %r8, %r10
    mov     %r9, %rdi
0:  test    %rdi, %rdi
    jz      3f
    on_tdx  1f
    mov     %r10, %rax
    xor     %ecx, %ecx
    mov     $1, %edx
    pvalidate_
    setc    %dl
    movzx   %dl, %edx
    jmp     2f
1:  mov     $6, %eax
    mov     %r10, %rcx
    push    %r10
    tdcall_
    pop     %r10
    xor     %edx, %edx
2:  test    %rax, %rax
    jnz     4f
    test    %edx, %edx
    jnz     4f
    add     $0x1000, %r10
    dec     %rdi
    jmp     0b
3:  xor     %eax, %eax
    xor     %edx, %edx
4:  ret

// SNP: rescinds R9 pages at R8. On TDX the host takes the pages by itself.
rescind_pages:
    on_tdx  1f
    mov     %r8, %rsi
    mov     %r9, %rdi
0:  mov     %rsi, %rax
    xor     %ecx, %ecx
    xor     %edx, %edx
    pvalidate_
    add     $0x1000, %rsi
    dec     %rdi
    jnz     0b
1:  ret

// A call of the monitor: RAX = number, RBX and RCX = arguments. Afterwards RAX = result, RCX = word.
call_by_page:
    push    %rdx
    mov     $CALL_PAGE, %edx
    or      %r13, %rdx
    mov     %rax, CALL_NUMBER(%rdx)
    mov     %rbx, CALL_RBX(%rdx)
    mov     %rcx, CALL_RCX(%rdx)
    movq    $0, CALL_RDX(%rdx)
    mov     $(CALL_PAGE >> 12), %ecx
    mov     $PORT_CALL_PAGE, %edx
    call    out_word
    mov     $CALL_PAGE, %edx
    or      %r13, %rdx
    mov     CALL_RESULT(%rdx), %rax
    mov     CALL_WORD(%rdx), %rcx
    pop     %rdx
    ret

// Ends the guest with the status in AL.
leave:
    mov     $PORT_EXIT, %edx
    call    out_byte
    jmp     .

// #VC: the error code is on the stack. A guest that expects one has set `vc_resume`; it goes on there with RAX = the code and
// RBX = CR2.
on_vc:
    pop     %rax
    mov     %cr2, %rbx
    cmpq    $0, vc_resume(%rip)
    je      0f
    mov     vc_resume(%rip), %rcx
    movq    $0, vc_resume(%rip)
    mov     %rcx, (%rsp)
    iretq
0:  lea     say_vc(%rip), %rsi
    call    say_string
    call    say_number
    lea     say_newline(%rip), %rsi
    call    say_string
    mov     $3, %al
    jmp     leave

// #VE: the information is read first of all. RAX = the reason, RBX = the guest-physical address.
on_ve:
    push    %rax
    push    %rcx
    push    %rdx
    push    %r8
    push    %r9
    push    %r10
    mov     $3, %eax
    tdcall_
    mov     %rcx, ve_reason(%rip)
    mov     %r9, ve_gpa(%rip)
    cmpq    $0, vc_resume(%rip)
    jne     0f
    cmpb    $0, accepts_lazily(%rip)
    je      0f
    // Lazy acceptance: the page is accepted, and the access runs again.
    mov     $6, %eax
    mov     ve_gpa(%rip), %rcx
    and     $-4096, %rcx
    tdcall_
    incq    lazily_accepted(%rip)
0:  pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdx
    pop     %rcx
    pop     %rax
    cmpq    $0, vc_resume(%rip)
    jne     0f
    cmpb    $0, accepts_lazily(%rip)
    je      1f
    iretq
0:  push    vc_resume(%rip)
    movq    $0, vc_resume(%rip)
    pop     (%rsp)
    mov     ve_reason(%rip), %rax
    mov     ve_gpa(%rip), %rbx
    iretq
1:  lea     say_ve(%rip), %rsi
    call    say_string
    mov     ve_reason(%rip), %rax
    call    say_number
    lea     say_newline(%rip), %rsi
    call    say_string
    mov     $3, %al
    jmp     leave

    .subsection 2
    .balign 16
idt:
    .fill   64, 8, 0
    .fill   64, 8, 0
idt_pointer:
    .word   1023
idt_base:
    .quad   0
vc_resume:
    .quad   0
ve_reason:
    .quad   0
ve_gpa:
    .quad   0
lazily_accepted:
    .quad   0
accepts_lazily:
    .byte   0
say_0x:
    .asciz  "0x"
say_newline:
    .asciz  "\n"
say_vc:
    .asciz  "unexpected #VC, error code "
say_ve:
    .asciz  "unexpected #VE, reason "
    .subsection 0

// ---- macros of the guests ---------------------------------------------------------------------------------
.macro begin_confidential
    mov     %rdi, %r15
    testb   $(BOOT_FLAG_SNP | BOOT_FLAG_TDX), BOOT_FLAGS(%r15)
    jz      not_confidential
    test    %esi, %esi
    jnz     .                           // one vCPU is enough
    call    confidential_setup
.endm

.macro say string
    text    .Lsay\@, "\string"
    push    %rsi
    lea     .Lsay\@(%rip), %rsi
    call    say_string
    pop     %rsi
.endm

.macro say_hex value
    push    %rax
    mov     \value, %rax
    call    say_number
    pop     %rax
.endm

.macro leave_with status
    mov     $\status, %al
    jmp     leave
.endm

// Makes `pages` pages at `address` private and the guest's own: asks, and takes them.
.macro make_own address, pages
    mov     \address, %r8
    mov     $\pages, %r9
    call    ask_private
    call    take_pages
.endm

.macro share address, pages
    mov     \address, %r8
    mov     $\pages, %r9
    call    rescind_pages
    mov     \address, %r8
    mov     $\pages, %r9
    call    ask_shared
.endm

.macro take address, pages
    mov     \address, %r8
    mov     $\pages, %r9
    call    take_pages
.endm

// The host reads eight bytes into RCX; RAX = 0 or -EFAULT.
.macro host_reads address
    mov     $HC_PEEK, %eax
    mov     \address, %rbx
    call    call_by_page
.endm

.macro host_writes address, value
    mov     $HC_POKE, %eax
    mov     \address, %rbx
    mov     \value, %rcx
    call    call_by_page
.endm

.macro host_acts address, other
    mov     $HC_HOST_ACTS, %eax
    mov     \address, %rbx
    mov     \other, %rcx
    call    call_by_page
.endm

// The next #VC or #VE goes on at `label`.
.macro resume_at label
    push    %rax
    lea     \label(%rip), %rax
    mov     %rax, vc_resume(%rip)
    pop     %rax
.endm

// Prints the string, and ends with status 2 if the values differ.
.macro must_be got, want, what
    text    .Lwhat\@, "FAILED: \what\n"
    cmp     \want, \got
    je      .Lok\@
    lea     .Lwhat\@(%rip), %rsi
    call    say_string
    leave_with 2
.Lok\@:
.endm

    text    what_type, "This guest needs an SNP or TDX VM: add --vm snp or --vm tdx.\n"
    .subsection 1
not_confidential:
    call    setup
    lea     what_type(%rip), %rsi
    call    print_string
    exit    4
    .subsection 0
