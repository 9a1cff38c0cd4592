// SPDX-License-Identifier: MIT
// fault-loop: the wrong alias, and a monitor that does nothing about it.
//
// It shows hazard A34. The page is private and the guest reads it through the shared alias. A monitor that
// re-enters without converting gets the same KVM_EXIT_MEMORY_FAULT again, for ever: 100 % of a CPU and no
// progress. Run with the policy to re-enter, the monitor must notice, and say so instead of looping along.
// Ends with the verdict that the guest is in a fault loop, status 126.
#define GUEST "fault-loop"
#include "support.h"

    begin
    need_two_aliases
    need_free 1
    to_private %r14, $1, MAP_CONTENTS_UNSPECIFIED
    expect_result 0, "making the page private"
    mov     BOOT_SHARED_BIT(%r15), %r12
    or      %r14, %r12
    print   "Reading the private page at "
    print_hex %r14
    print   " through its shared alias.\n"
    mov     (%r12), %rax                // never completes

    fail    "the access came through: somebody converted the page"
