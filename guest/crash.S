// SPDX-License-Identifier: MIT
// crash: an undefined instruction.
//
// There is no IDT, so the CPU can deliver neither the exception nor the double fault that follows. That is a triple
// fault, and KVM_RUN returns KVM_EXIT_SHUTDOWN.
// The run ends as a crash, status 126.
#define GUEST "crash"
#include "support.h"

    ud2
