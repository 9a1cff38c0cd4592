// SPDX-License-Identifier: MIT
// Classifies an instruction by its bytes before the engine executes it. instruction.h has what the monitor needs too.
#pragma once

#include "instruction.h"

// Instructions that raise #UD on a processor (Intel SDM volume 2; AMD64 volume 3), where the engine aborts or takes no
// notice: far calls and jumps through a register, and LOCK where it is not allowed.
bool cuc_is_undefined(const uint8_t *bytes, uint32_t size);

// By first byte; 0 is an instruction that the engine executes.
extern const uint8_t cuc_opcodes[256];
// Whether an instruction may be another than the engine's. Most are not, and this is all that is looked at.
static inline bool cuc_wants_a_look(uint8_t opcode) { return cuc_opcodes[opcode] != 0; }
