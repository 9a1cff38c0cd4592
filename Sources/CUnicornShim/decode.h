// SPDX-License-Identifier: MIT
// Classifies an instruction by its bytes before the engine executes it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Instructions whose effect is not the engine's to decide: ports, HLT, hypercalls, control and debug registers, MSRs,
// CPUID, INVLPG, SWAPGS, system calls, and everything that would bring the host's time or chance into the guest.
bool cuc_is_privileged(const uint8_t *bytes, uint32_t size);

// Instructions that raise #UD on a processor (Intel SDM volume 2; AMD64 volume 3), where the engine aborts or takes no
// notice: far calls and jumps through a register, and LOCK where it is not allowed.
bool cuc_is_undefined(const uint8_t *bytes, uint32_t size);

// Opcodes that cuc_is_privileged knows, what may precede them, and the escape to two-byte opcodes.
// Most instructions are done with by this table.
extern const bool cuc_wants_a_look[256];
