#pragma once

#include <stdbool.h>
#include <stdint.h>

// Instructions whose effect is not the engine's to decide: ports, HLT, hypercalls, control registers, MSRs,
// CPUID, INVLPG, system calls, and everything that would bring the host's time or chance into the guest.
bool cuc_is_privileged(const uint8_t *bytes, uint32_t size);

// Opcodes that cuc_is_privileged knows, what may precede them, and the escape to two-byte opcodes.
// Most instructions are done with by this table.
extern const bool cuc_wants_a_look[256];
