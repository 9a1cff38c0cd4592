// SPDX-License-Identifier: MIT
// lazy-accept: a TDX guest accepts each page when it first touches it.
//
// With --ve (SEPT_VE_DISABLE is clear) the touch raises #VE. The handler reads the information of the exception, accepts the
// page and returns, and the access runs again: the program never notices. Without --ve the first touch ends the VM. An SNP
// guest must not do the same with PVALIDATE, because the host can raise #VC whenever it likes (double-validation).
// Ends with exit status 0; 126 on TDX without --ve.
#define GUEST "lazy-accept"
#include "support.h"
#include "confidential.h"

#define PAGES 64

    begin_confidential
    on_tdx  touch
    say     "an SNP guest does not validate in its handler of #VC\n"
    leave_with 0
touch:
    movb    $1, accepts_lazily(%rip)
    mov     %r14, %r8                   // R8 = page
    mov     $PAGES, %r9
1:  mov     (%r8), %rax                 // #VE, ACCEPT, and again
    test    %rax, %rax                  // an accepted page is zero
    jnz     old
    mov     %r8, (%r8)
    add     $0x1000, %r8
    dec     %r9
    jnz     1b
    // A second touch raises nothing.
    mov     (%r14), %r9
    must_be %r9, %r14, "the page does not hold what was written"
    mov     $PAGES, %eax
    say_hex %rax
    say     " pages touched, "
    mov     lazily_accepted(%rip), %rax
    say_hex %rax
    say     " accepted by the handler of #VE\n"
    leave_with 0
old:
    say     "an accepted page is not zero\n"
    leave_with 1
