// SPDX-License-Identifier: MIT
// wrong-alias: a write through the shared alias of a private page.
//
// The access is a memory fault whose kind is that of the access. A careful monitor ends the guest (status 126). One that obeys
// (--on-fault convert) makes the page shared, and its contents are lost.
// Ends with exit status 126.
#define GUEST "wrong-alias"
#include "support.h"
#include "confidential.h"

    begin_confidential
    take    %r14, 1
    mov     $0x1234, %r8
    mov     %r8, (%r14)
    say     "writing to a private page through the shared alias\n"
    movb    $1, (%r13, %r14)
    say     "the monitor has converted the page: the guest's data is gone\n"
    leave_with 1
