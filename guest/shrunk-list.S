// SPDX-License-Identifier: MIT
// shrunk-list: a page state change is a list in shared memory, and the host may write there, too (hazard V9).
//
// With --host shrink-list the host does the first entry and lowers end_entry, so that by the list everything is done. A guest
// that believes the list uses pages that were never converted. This one keeps its own count, and asks again for the rest as
// long as the host makes progress. TDX has no such list: MapGPA answers in registers.
// Ends with exit status 0; 2 if the host makes no progress.
#define GUEST "shrunk-list"
#include "support.h"
#include "confidential.h"

#define PAGES 16

    begin_confidential
    on_tdx  no_list
    mov     %r14, %r8                   // R8 = first page that is not done
    mov     $PAGES, %r9                 // R9 = pages that are not done
    xor     %r12d, %r12d                // R12 = requests
ask:
    call    ask_shared
    inc     %r12
    test    %rax, %rax
    jnz     stuck
    mov     %rcx, %r10                  // R10 = entries done, by the host's word
    cmp     $1, %r12
    jne     1f
    mov     $COM_PAGE, %edi
    or      %r13, %rdi
    movzwl  GHCB_BUFFER + 2(%rdi), %r11d
    say     "by the list in shared memory: cur_entry "
    say_hex %r10
    say     ", end_entry "
    say_hex %r11
    say     "\n"
1:  test    %r10, %r10
    jz      stuck
    cmp     %r9, %r10                   // more than the guest has asked for
    ja      stuck
    sub     %r10, %r9
    shl     $12, %r10
    add     %r10, %r8
    test    %r9, %r9
    jnz     ask

    // The last page is shared, or this access ends the run.
    lea     (PAGES - 1) * 4096(%r14), %rax
    or      %r13, %rax
    movq    $1, (%rax)
    say     "by the guest's own count: "
    mov     $PAGES, %eax
    say_hex %rax
    say     " pages after "
    say_hex %r12
    say     " requests\n"
    leave_with 0
stuck:
    say     "no progress: the pages are left alone\n"
    leave_with 2
no_list:
    say     "MapGPA has no list\n"
    leave_with 0
