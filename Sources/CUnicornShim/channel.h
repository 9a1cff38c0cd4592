// SPDX-License-Identifier: MIT
// The memory that the monitor shares with the process of one vCPU's engine (the CPU process).
//
// Only one side uses it at a time: the one that `turn` names. The monitor trusts nothing in it: it copies an answer
// once and checks the copy.
#ifndef CHANNEL_H
#define CHANNEL_H

#include "messages.h"
#include "unicorn_shim.h"

enum cuc_command { CUC_COMMAND_NOTHING, CUC_COMMAND_RUN, CUC_COMMAND_RESTORE };

enum cuc_operation_kind {
    CUC_OPERATION_MAP,  // `size` bytes at `offset` of file number `file`, or of the scratch pages
    CUC_OPERATION_UNMAP,
    CUC_OPERATION_FORGET_CODE,
    CUC_OPERATION_FORGET_TOUCHES,
    CUC_OPERATION_WRITE_SYSTEM,  // the fields of `system`
    CUC_OPERATION_RESET_SEGMENTS,
    CUC_OPERATION_OPEN_FILE,     // the next descriptor on the socket is file number `file`, of `size` bytes
    CUC_OPERATION_CLOSE_FILES,
};
struct cuc_operation {
    enum cuc_operation_kind kind;
    uint32_t file;
    uint64_t linear, size, offset;
    bool writable, executable;
};
#define CUC_MAX_OPERATIONS 128

struct cuc_answer {
    enum cuc_stop stop;
    uint32_t exception;
    uint32_t breakpoint_hits;  // CUC_STOP_BREAKPOINT: one bit each
    int32_t error;  // CUC_STOP_ENGINE_FAILED: the engine's (uc_err), or CUC_ERROR_ABORTED
    struct cuc_access fault;
    uint64_t executed;
    uint64_t registers[CUC_REGISTERS];
    struct cuc_system_registers system;
    uint8_t code[CUC_MAX_CODE];  // CUC_STOP_ENGINE_FAILED: the bytes at RIP
    uint32_t code_size;
    uint32_t log_count, touch_count;
    struct cuc_access log[CUC_MAX_LOG];
    struct cuc_touch touches[CUC_MAX_TOUCHES];  // last, because usually only a few are used
};

struct cuc_channel {
    struct cuc_turn turn;
    uint32_t is_ready;  // the CPU process has opened its engine
    uint8_t kick;       // checked before every instruction

    // Instructions executed in this run, and the last RIP. The monitor uses them to see progress, and the location
    // of a crash.
    uint64_t live_executed, live_rip;

    enum cuc_command command;
    bool careful;
    uint64_t limit;
    struct cuc_breakpoint breakpoints[CUC_MAX_BREAKPOINTS];
    uint64_t registers[CUC_REGISTERS];
    struct cuc_system_registers system;
    uint32_t operation_count;
    struct cuc_operation operations[CUC_MAX_OPERATIONS];

    struct cuc_answer answer;

    // Pages that are not guest RAM: they contain answers to MMIO.
    _Alignas(4096) uint8_t scratch[CUC_SCRATCH_PAGES * 4096];
};

// The file number of the scratch pages.
#define CUC_FILE_SCRATCH UINT32_MAX

#endif
