// SPDX-License-Identifier: MIT
// Instructions that are not the engine's to execute. The CPU process stops before each of them. The monitor does what they
// ask for; it decodes the guest's bytes again, and believes nothing that the process says of them.
#ifndef CUC_INSTRUCTION_H
#define CUC_INSTRUCTION_H

#include <stdbool.h>
#include <stdint.h>

/// Instructions that the kernel has to emulate, or whose result would depend on the host's clock or random numbers.
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
    CUC_INSTRUCTION_READ_MSR,
    CUC_INSTRUCTION_WRITE_MSR,
    CUC_INSTRUCTION_SWAP_GS,
    CUC_INSTRUCTION_READ_TIME,                // RDTSC
    CUC_INSTRUCTION_READ_TIME_AND_PROCESSOR,  // RDTSCP
    CUC_INSTRUCTION_CPUID,
    CUC_INSTRUCTION_INVALIDATE_PAGE,
    CUC_INSTRUCTION_ABSENT,  // this CPU does not have it: system calls, MONITOR, RDPMC, LMSW, random numbers,
                             // and any of the above behind LOCK
};

struct cuc_instruction {
    enum cuc_instruction_kind kind;
    uint8_t length;            // bytes, with prefixes; 0 where not all of them are there
    uint8_t size;              // of IN, OUT, INS, OUTS, bytes
    bool has_port;             // else DX says it
    uint8_t port;
    uint8_t number, general;   // of a control or debug register, and of the general register
    uint8_t segment;           // the prefix of FS or GS, 0x64 or 0x65; 0 for none
    bool is_repeated;          // REP or REPNE
    bool has_short_addresses;  // ESI, EDI, ECX
};

/// Decodes the instruction that the bytes begin with.
struct cuc_instruction cuc_decode(const uint8_t *_Nonnull bytes, uint32_t size);

#endif
