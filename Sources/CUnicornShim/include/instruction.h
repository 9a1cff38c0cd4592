// SPDX-License-Identifier: MIT
// Instructions that the engine must not execute. The CPU process stops before each of them and the monitor emulates
// it. The monitor decodes the guest's bytes itself and does not trust what the process reports about them.
#ifndef CUC_INSTRUCTION_H
#define CUC_INSTRUCTION_H

#include <stdbool.h>
#include <stdint.h>

/// Instructions that SoftKVM must emulate, or whose result would depend on the host's clock or random numbers.
enum cuc_instruction_kind {
    CUC_INSTRUCTION_NONE,  // the engine executes it
    CUC_INSTRUCTION_IN,
    CUC_INSTRUCTION_OUT,
    CUC_INSTRUCTION_INS,
    CUC_INSTRUCTION_OUTS,
    CUC_INSTRUCTION_HALT,
    CUC_INSTRUCTION_HYPERCALL,  // VMCALL, VMMCALL
    CUC_INSTRUCTION_READ_CONTROL,
    CUC_INSTRUCTION_WRITE_CONTROL,
    CUC_INSTRUCTION_READ_DEBUG,
    CUC_INSTRUCTION_WRITE_DEBUG,
    CUC_INSTRUCTION_WRITE_MACHINE_STATUS,  // LMSW with a register
    CUC_INSTRUCTION_READ_MSR,
    CUC_INSTRUCTION_WRITE_MSR,
    CUC_INSTRUCTION_SWAP_GS,
    CUC_INSTRUCTION_READ_TIME,                // RDTSC
    CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR,  // RDTSCP
    CUC_INSTRUCTION_CPUID,
    CUC_INSTRUCTION_INVALIDATE_PAGE,
    CUC_INSTRUCTION_VALIDATE_PAGE,         // PVALIDATE
    CUC_INSTRUCTION_ADJUST_PAGE,           // RMPADJUST
    CUC_INSTRUCTION_EXIT_TO_HYPERVISOR,    // VMGEXIT; VMMCALL on a CPU without SEV-ES
    CUC_INSTRUCTION_CALL_MODULE,           // TDCALL
    CUC_INSTRUCTION_ABSENT,  // not on this CPU: system calls, MONITOR, RDPMC, LMSW from memory, random
                             // numbers, and any of the above with LOCK
};

struct cuc_instruction {
    enum cuc_instruction_kind kind;
    uint8_t length;            // bytes, with prefixes; 0 if the instruction is incomplete
    uint8_t size;              // operand size of IN, OUT, INS, OUTS, bytes
    bool has_port;             // false: the port is in DX
    uint8_t port;
    uint8_t number, general;   // numbers of the control or debug register, and of the general register
    uint8_t segment;           // segment prefix; 0 for none, and for those without effect in 64-bit mode
    bool is_repeated;          // REP or REPNE
    uint8_t address_size;      // of SI, DI and CX in string instructions, bytes: 2, 4 or 8
};

/// Decodes the instruction at the start of `bytes`, for a code segment of 16, 32 or 64 bits.
struct cuc_instruction cuc_decode(const uint8_t *_Nonnull bytes, uint32_t size, uint32_t bits);

#endif
