// SPDX-License-Identifier: MIT
// Shared by the parts of the engine: engine_hooks.c runs while the guest runs, engine.c starts and ends a run,
// engine_state.c has the mapped memory and the registers.
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
// Why the hooks stopped the engine, beside what they tell the monitor: to go on at once.
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
    uc_context *saved;  // before a careful run
    uc_context *moved;  // from one engine to the next
    uc_context *fresh;  // as it was opened
    struct cuc_channel *channel;

    uint64_t limit;
    enum cuc_stop stop;  // 0 while running
    struct cuc_access fault;
    uint32_t exception;

    // The access of the current instruction that crosses a page, and what was in memory before it: the engine
    // does it in pieces, and reports a refused piece only.
    struct cuc_access crossing;
    uint8_t before[2][8];
    uint32_t before_size[2];

    bool careful;
    uint32_t inner_reads;  // pieces of a crossing read still to come
    uint32_t log_count;
    struct cuc_access log[CUC_MAX_LOG];

    // Pages whose touch was noted, by kind: page number + 1, direct mapped.
    uint64_t seen[3][SEEN];
    uint32_t touch_count;
    struct cuc_touch touches[CUC_MAX_TOUCHES];

    // Host pages that were fetched from, as a filter: a first write to one of them ends the run, for the caller to
    // see whether translated code became stale. The engine itself sees only writes through the code's own address.
    uint64_t fetched[FETCHED / 64];
    bool wrote_to_code;

    // Code that the engine cannot translate makes it abort. From then on it is given one instruction at a time
    // (`is_stepping`), which tells the one at fault: the abort that happens before any instruction was begun.
    sigjmp_buf escape;
    bool is_stepping;
    bool has_begun;  // an instruction, since the engine was last started

    struct code_memory memory;  // what the engine's translations take
    uint32_t until_measured;    // instructions until it is looked at again

    uint64_t code_page;         // the linear page that the last instruction came from
    const uint8_t *code_bytes;  // its bytes
    uint32_t region_count;
    struct region regions[CUC_MAX_REGIONS];
};

// From 2.1 on, an engine without paging numbers the upper half of the address space with 52 bits.
static inline uint64_t engine_address(const struct engine *engine, uint64_t linear) {
    return engine->library->version >= 0x20100 ? linear & ((UINT64_C(1) << 52) - 1) : linear;
}

static inline const uint8_t *engine_bytes(const struct engine *engine, uint64_t address) {
    for (uint32_t i = 0; i < engine->region_count; i++)
        if (address - engine->regions[i].linear < engine->regions[i].size)
            return engine->regions[i].host + (address - engine->regions[i].linear);
    return NULL;
}

// Has the engine call the hooks. Returns 0, or an error of the engine's.
int engine_add_hooks(struct engine *engine);
// Puts back what the crossing write of an instruction changed that was not done.
void engine_put_back(struct engine *engine);

#endif
