// SPDX-License-Identifier: MIT
#pragma once

#include "engine.h"

// The main function of a CPU process: takes over an engine that was opened before the fork, confines itself and
// serves the channel until it is killed. `channel` and `socket` are descriptors.
_Noreturn void cuc_cpu_process(struct engine *engine, int channel, int socket);

// Exit statuses of a CPU process, above those that an engine uses.
enum { CUC_EXIT_NO_CHANNEL = 100, CUC_EXIT_NO_ENGINE, CUC_EXIT_NOT_CONFINED };
