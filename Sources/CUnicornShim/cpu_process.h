// SPDX-License-Identifier: MIT
#pragma once

#include "engine.h"

// The whole life of the process of one CPU: takes over an engine that was opened before it was forked, confines itself
// and serves the channel until it is ended. `channel` and `socket` are descriptors.
_Noreturn void cuc_cpu_process(struct engine *engine, int channel, int socket);

// Exit statuses of its own, above those that an engine uses.
enum { CUC_EXIT_NO_CHANNEL = 100, CUC_EXIT_NO_ENGINE, CUC_EXIT_NOT_CONFINED };
