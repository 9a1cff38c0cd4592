// SPDX-License-Identifier: MIT
// Shared by the parts of the engine: engine_hooks.c runs while the guest runs, engine.c starts and ends a run,
// engine_state.c manages the mapped memory and the registers.
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "code_memory.h"
#include "engine.h"

#include <setjmp.h>

#define SEEN 1024u
#define FETCHED 4096u
#define MEASURE_EVERY 16384u
#define NO_PAGE UINT64_MAX
#define INVALID_OPCODE 6  // #UD
#define DOUBLE_FAULT 8
// Further reasons for the hooks to stop the engine, after which it continues immediately. The monitor does not see
// them.
#define STOP_RENEW ((enum cuc_stop)100)
#define STOP_STEP ((enum cuc_stop)101)

struct region {
    uint64_t linear, size;
    uint32_t permissions;  // UC_PROT_*
    uint8_t *host;
};
struct engine {
    const struct cuc_library *library;
    uc_engine *uc;
    uc_context *saved;  // state before a careful run
    uc_context *moved;  // state moved from an old engine to a new one
    uc_context *fresh;  // state of a new engine
    uc_context *state;  // the current state, to read and write the hidden parts of segment registers
    size_t segments_at;  // their offset in a context (engine_segments.c), or 0 if it is unknown
    struct cuc_channel *channel;

    uint64_t limit;
    enum cuc_stop stop;  // 0 while running
    struct cuc_access fault;
    uint32_t exception;

    struct cuc_breakpoint breakpoints[CUC_MAX_BREAKPOINTS];
    bool has_breakpoints;
    uint32_t hits;  // breakpoints that the current instruction has reached, one bit each

    // The access of the current instruction that crosses a page boundary, and the memory before it. The engine
    // splits such an access and reports only the piece that failed.
    struct cuc_access crossing;
    uint8_t before[2][8];
    uint32_t before_size[2];

    bool careful;
    uint32_t inner_reads;  // remaining pieces of a crossing read
    uint32_t log_count;
    struct cuc_access log[CUC_MAX_LOG];

    // Pages whose access was recorded, by kind: page number + 1, direct mapped.
    uint64_t seen[3][SEEN];
    uint32_t touch_count;
    struct cuc_touch touches[CUC_MAX_TOUCHES];

    // Host pages from which code was fetched, as a filter with false positives. The first write to one of them ends
    // the run, so that the monitor can drop translated code that became stale. The engine itself only notices
    // writes through the address of the code.
    uint64_t fetched[FETCHED / 64];
    bool wrote_to_code;

    // The engine aborts on code that it cannot translate. From then on it executes one instruction at a time
    // (`is_stepping`), to find the one at fault: the abort that occurs before any instruction has begun.
    sigjmp_buf escape;
    bool is_stepping;
    bool has_begun;  // whether an instruction has begun since the engine was last started

    struct code_memory memory;  // memory of the engine's translations
    uint32_t until_measured;    // instructions until it is measured again

    // The size of code, the base of CS and the ring. Known until an instruction may load CS.
    bool knows_code;
    uint32_t code_bits;
    uint64_t code_base;
    uint32_t ring;
    uint64_t rip;  // of the last instruction that the code hook has seen

    uint64_t code_page;         // linear page number of the last instruction
    const uint8_t *code_bytes;  // its bytes
    uint32_t region_count;
    struct region regions[CUC_MAX_REGIONS];
};

// From 2.1 on, an engine without paging uses 52-bit addresses for the upper half of the address space.
static inline uint64_t engine_address(const struct engine *engine, uint64_t linear) {
    return engine->library->version >= 0x20100 ? linear & ((UINT64_C(1) << 52) - 1) : linear;
}

static inline const uint8_t *engine_bytes(const struct engine *engine, uint64_t address) {
    for (uint32_t i = 0; i < engine->region_count; i++)
        if (address - engine->regions[i].linear < engine->regions[i].size)
            return engine->regions[i].host + (address - engine->regions[i].linear);
    return NULL;
}

// Finds the segment registers in the engine's state (engine_segments.c). Without them the engine has only the
// segments of 64-bit mode.
void engine_find_segments(struct engine *engine);
void engine_read_segments(struct engine *engine, struct cuc_system_registers *registers);
// Returns false if the engine has only 64-bit mode and this is another.
bool engine_write_segments(struct engine *engine, const struct cuc_system_registers *registers);
// Updates `code_bits`, `code_base` and `ring`.
void engine_learn_code(struct engine *engine);

// Registers the hooks. Returns 0 or an error of the engine.
int engine_add_hooks(struct engine *engine);
// Undoes the page-crossing write of an instruction that did not complete.
void engine_undo_crossing_write(struct engine *engine);

#endif
