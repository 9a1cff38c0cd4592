// SPDX-License-Identifier: MIT
// hang: an endless loop without exits.
//
// The vCPU never exits by itself, so only a kick from outside ends KVM_RUN.
// The run ends at the time limit, status 124.
#define GUEST "hang"
#include "support.h"

    jmp     .
