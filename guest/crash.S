// SPDX-License-Identifier: MIT
// crash: an instruction that no processor has.
//
// It shows what becomes of a guest that goes wrong: there is no interrupt table, so the exception finds no
// handler, the failure to find it finds none either, and the processor gives up. KVM_EXIT_SHUTDOWN.
// Ends with the verdict that the guest crashed, status 126.
#define GUEST "crash"
#include "support.h"

    ud2
