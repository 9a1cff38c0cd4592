// SPDX-License-Identifier: MIT
// fault-loop: an access through the wrong alias, and a monitor that does not convert (hazard A34).
//
// The page is private, and the guest reads it through the shared alias. A monitor that runs the vCPU again without
// converting gets the same KVM_EXIT_MEMORY_FAULT every time: a fully loaded CPU without progress. With the policy to
// re-enter, the monitor must detect the loop and stop the guest.
// The run ends as a fault loop, status 126.
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

    fail    "the access completed, so the page was converted"
