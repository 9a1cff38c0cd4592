// SPDX-License-Identifier: MIT
// kexec: a new kernel that knows nothing of the pages that the old one has shared.
//
// The old kernel leaves a page shared; the new one touches it as private memory. A careful monitor ends the guest (status 126). The
// right way is to make every page private before the new kernel starts.
// Ends with exit status 126.
#define GUEST "kexec"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 1
    share   %r14, 1
    say     "the new kernel touches a page that is still shared\n"
    mov     (%r14), %r8
    say     "it got memory, and must take it first\n"
    leave_with 1
