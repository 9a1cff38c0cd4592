// SPDX-License-Identifier: MIT
// double-validation: a host that swaps pages, and a guest that keeps no record (--host swap-pages).
//
// The host gives the guest's page another host page. The guest's next access finds it unvalidated. This guest validates it again
// and is fooled: PVALIDATE reports nothing, and now the host can show either page. See the guest `record`, which notices.
// Ends with exit status 2 on SNP with --host swap-pages (the guest was fooled), with 0 with an honest host, and 126 on TDX.
#define GUEST "double-validation"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 2
    mov     $1, %r8
    mov     %r8, (%r14)
    lea     0x1000(%r14), %r12
    host_acts %r14, %r12
    say     "reading the page: "
    resume_at lost
    mov     (%r14), %r8
    movq    $0, vc_resume(%rip)
    say_hex %r8
    say     "\n"
    leave_with 0

lost:
    say     "#VC; validating it again\n"
    take    %r14, 1
    mov     $2, %r8
    mov     %r8, (%r14)
    host_acts %r14, %r14
    mov     (%r14), %r9
    say     "the guest wrote 2, and reads "
    say_hex %r9
    say     ": the host shows the old page, and nothing told the guest\n"
    leave_with 2
