// SPDX-License-Identifier: MIT
// Classifies an instruction by its bytes before the engine executes it. The monitor uses instruction.h, too.
#pragma once

#include "instruction.h"

// Instructions that raise #UD on a processor (Intel SDM volume 2; AMD64 volume 3) but make the engine abort, or
// that it executes: far calls and jumps through a register, and LOCK where it is not allowed.
bool cuc_is_undefined(const uint8_t *bytes, uint32_t size, uint32_t bits);

// Whether an instruction may load CS, and so change the size of code: far jumps, calls and returns, and IRET.
bool cuc_is_far_transfer(const uint8_t *bytes, uint32_t size, uint32_t bits);

// Classes by first byte. 0 is an instruction that the engine executes.
extern const uint8_t cuc_opcodes[256];
// Whether an instruction needs to be decoded because it may not be for the engine. A fast check that rules out most
// instructions.
static inline bool cuc_needs_decoding(uint8_t opcode) { return cuc_opcodes[opcode] != 0; }
