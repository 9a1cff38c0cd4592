// SPDX-License-Identifier: MIT
// hang: a guest that is never done, and never leaves.
//
// It shows that the monitor is in charge: the vCPU makes no exit of its own, so only a kick from outside
// ends KVM_RUN.
// Ends with the verdict that its time was up, status 124.
#define GUEST "hang"
#include "support.h"

    jmp     .
