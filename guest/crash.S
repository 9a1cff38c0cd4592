// SPDX-License-Identifier: MIT
// crash: an undefined instruction.
//
// The guest loads no IDT, so the exception enters the monitor's handler in the guest, which reports it.
// The run ends as a crash, status 126.
#define GUEST "crash"
#include "support.h"

    ud2
