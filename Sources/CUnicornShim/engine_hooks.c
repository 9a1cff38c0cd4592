// SPDX-License-Identifier: MIT
// The hooks: the only code of ours that runs while the guest runs. They record into the engine's state and the
// channel.
#include "decode.h"
#include "engine_state.h"

#include <string.h>

#define PAGE 4096u

static uint64_t linear_address(uint64_t number) {
    return number >> 47 == 0x1f ? number | UINT64_C(0xfff) << 52 : number;
}

static void stop(struct engine *engine, enum cuc_stop why) {
    if (engine->stop == 0) engine->stop = why;
    engine->library->uc_emu_stop(engine->uc);
}

static uint64_t *seen_entry(struct engine *engine, uint64_t address, uint32_t kind) {
    return &engine->seen[kind][address / PAGE % SEEN];
}

static void first_touch(struct engine *engine, uint64_t page, uint32_t kind) {
    uint64_t host = (uintptr_t)engine_bytes(engine, page * PAGE) / PAGE % FETCHED;
    uint64_t bit = UINT64_C(1) << host % 64;
    if (kind == CUC_TOUCH_FETCH) {
        engine->fetched[host / 64] |= bit;
        memset(engine->seen[CUC_TOUCH_WRITE], 0, sizeof engine->seen[CUC_TOUCH_WRITE]);
    } else if (kind == CUC_TOUCH_WRITE && engine->fetched[host / 64] & bit) {
        engine->wrote_to_code = true;
    }
    engine->touches[engine->touch_count++] = (struct cuc_touch){page * PAGE, kind};
}

static void touch(struct engine *engine, uint64_t address, uint32_t kind) {
    uint64_t page = address / PAGE, *seen = seen_entry(engine, address, kind);
    // The list never overflows: the code hook ends the run before it is full, and one instruction accesses few
    // pages.
    if (*seen == page + 1 || engine->touch_count == CUC_MAX_TOUCHES) return;
    *seen = page + 1;
    first_touch(engine, page, kind);
}

// Whether the run has to end before the instruction at `address`: the one before it has accessed watched memory, or this
// one has a breakpoint.
static bool has_reached_breakpoint(struct engine *engine, uint64_t address) {
    for (uint32_t i = 0; i < CUC_MAX_BREAKPOINTS; i++) {
        const struct cuc_breakpoint *breakpoint = &engine->breakpoints[i];
        bool is_here = breakpoint->size > 0 && breakpoint->kind == CUC_BREAK_EXECUTE && breakpoint->address == address;
        if (is_here) engine->hits |= 1u << i;
    }
    return engine->hits != 0;
}

static void note_watched(struct engine *engine, const struct cuc_access *access) {
    for (uint32_t i = 0; i < CUC_MAX_BREAKPOINTS; i++) {
        const struct cuc_breakpoint *breakpoint = &engine->breakpoints[i];
        bool overlaps = access->address - breakpoint->address < breakpoint->size
            || breakpoint->address - access->address < access->size;
        bool is_watched = breakpoint->kind == CUC_BREAK_ACCESS || (breakpoint->kind == CUC_BREAK_WRITE && access->is_write);
        if (breakpoint->size > 0 && overlaps && is_watched) engine->hits |= 1u << i;
    }
}

static void on_code(uc_engine *uc, uint64_t address, uint32_t size, void *context) {
    struct engine *engine = context;
    struct cuc_channel *channel = engine->channel;
    if (engine->stop != 0) {
        engine->library->uc_emu_stop(uc);
        return;
    }
    bool has_changed_ring = false;
    if (!engine->knows_code) {
        uint32_t ring = engine->ring;
        engine_learn_code(engine);
        has_changed_ring = engine->ring != ring;
    }
    engine->rip = address - engine->code_base;
    // A fetch is recorded even if the instruction is not executed, because the engine has translated it.
    if (address / PAGE != engine->code_page) {
        engine->code_page = address / PAGE;
        engine->code_bytes = engine_bytes(engine, address & ~(uint64_t)(PAGE - 1));
        touch(engine, address, CUC_TOUCH_FETCH);
    }
    // The regions depend on the ring.
    if (has_changed_ring && !engine->careful) return stop(engine, CUC_STOP_NOTES);
    if (engine->has_breakpoints && has_reached_breakpoint(engine, address)) return stop(engine, CUC_STOP_BREAKPOINT);
    // Finish the pending instruction even if a kick has arrived.
    if (__atomic_load_n(&channel->kick, __ATOMIC_RELAXED) && !engine->careful) return stop(engine, CUC_STOP_KICK);
    if (channel->live_executed == engine->limit) return stop(engine, CUC_STOP_LIMIT);
    if (engine->wrote_to_code || engine->touch_count > CUC_MAX_TOUCHES - 32) return stop(engine, CUC_STOP_NOTES);
    if (--engine->until_measured == 0) {
        engine->until_measured = MEASURE_EVERY;
        if (code_memory_is_full(&engine->memory)) return stop(engine, STOP_RENEW);
    }
    if (engine->is_stepping && engine->has_begun) return stop(engine, STOP_STEP);
    engine->has_begun = true;
    channel->live_rip = engine->rip;
    engine->crossing.size = 0;
    engine->inner_reads = 0;
    // The engine reports no valid size for an instruction that it does not know, such as VMCALL.
    if (size > 15) size = 15;
    uint8_t copy[15];
    const uint8_t *bytes = engine->code_bytes ? engine->code_bytes + address % PAGE : copy;
    if (engine->code_bytes == NULL || address % PAGE + size > PAGE) {
        touch(engine, address + size - 1, CUC_TOUCH_FETCH);
        uint32_t first = PAGE - address % PAGE < size ? (uint32_t)(PAGE - address % PAGE) : size;
        memset(copy, 0, sizeof copy);
        engine->library->uc_mem_read(uc, engine_address(engine, address), copy, first);
        if (first < size)
            engine->library->uc_mem_read(uc, engine_address(engine, address + first), copy + first, size - first);
        bytes = copy;
    }
    // Fast path: most instructions begin with REX or an ordinary opcode.
    uint32_t bits = engine->code_bits;
    uint8_t opcode = (bytes[0] & 0xf0) == 0x40 && size > 1 && bits == 64 ? bytes[1] : bytes[0];
    if (!cuc_needs_decoding(opcode)) {
        channel->live_executed++;
    } else if (cuc_decode(bytes, size, bits).kind != CUC_INSTRUCTION_NONE) {
        stop(engine, CUC_STOP_PRIVILEGED);
    } else {
        channel->live_executed++;
        engine->knows_code = !cuc_is_far_transfer(bytes, size, bits);
        if (cuc_is_undefined(bytes, size, bits)) {
            engine->exception = INVALID_OPCODE;
            stop(engine, CUC_STOP_EXCEPTION);
        }
    }
}

static void save_memory_before_write(struct engine *engine, uint64_t address, uint32_t size) {
    uint32_t first = PAGE - (uint32_t)(address % PAGE);
    uint32_t sizes[2] = {first, size - first};
    for (int part = 0; part < 2; part++) {
        uint64_t start = engine_address(engine, address + (part ? first : 0));
        bool there = sizes[part] <= 8
            && engine->library->uc_mem_read(engine->uc, start, engine->before[part], sizes[part]) == UC_ERR_OK;
        engine->before_size[part] = there ? sizes[part] : 0;
    }
}

void engine_undo_crossing_write(struct engine *engine) {
    if (engine->crossing.size == 0 || !engine->crossing.is_write) return;
    uint64_t second = (engine->crossing.address | (PAGE - 1)) + 1;
    if (engine->before_size[0])
        engine->library->uc_mem_write(
            engine->uc, engine_address(engine, engine->crossing.address), engine->before[0], engine->before_size[0]);
    if (engine->before_size[1])
        engine->library->uc_mem_write(
            engine->uc, engine_address(engine, second), engine->before[1], engine->before_size[1]);
    engine->crossing.size = 0;
}

static void on_memory(uc_engine *uc, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop != 0) return;
    struct cuc_access access = {
        linear_address(number), (uint64_t)value, (uint32_t)size, type == UC_MEM_WRITE, 0};
    touch(engine, access.address, access.is_write);
    if (engine->has_breakpoints) note_watched(engine, &access);
    bool inner = !access.is_write && engine->inner_reads > 0;
    if (inner) engine->inner_reads--;
    if (access.address % PAGE + access.size > PAGE) {
        touch(engine, access.address + access.size - 1, access.is_write);
        engine->crossing = access;
        if (access.is_write) save_memory_before_write(engine, access.address, access.size);
        else engine->inner_reads = 2;
    }
    if (engine->careful && !inner) {
        if (engine->log_count < CUC_MAX_LOG) engine->log[engine->log_count] = access;
        engine->log_count++;
    }
}

static bool on_refused(uc_engine *uc, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop != 0) return false;
    engine->stop = CUC_STOP_MEMORY;
    engine->fault = (struct cuc_access){
        linear_address(number), (uint64_t)value, (uint32_t)size,
        type == UC_MEM_WRITE_UNMAPPED || type == UC_MEM_WRITE_PROT,
        type == UC_MEM_FETCH_UNMAPPED || type == UC_MEM_FETCH_PROT};
    // The second piece of an access that crosses a page: report the whole access of the instruction.
    struct cuc_access *crossing = &engine->crossing;
    if (crossing->size != 0 && !engine->fault.is_fetch && crossing->is_write == engine->fault.is_write
        && engine->fault.address / PAGE == (crossing->address + crossing->size - 1) / PAGE)
        engine->fault = *crossing;
    // The memory hook may have recorded the access before the engine found it unmapped. Undo that.
    if (!engine->fault.is_fetch) {
        *seen_entry(engine, engine->fault.address, engine->fault.is_write) = 0;
        *seen_entry(engine, engine->fault.address + engine->fault.size - 1, engine->fault.is_write) = 0;
    }
    return false;
}

static void on_exception(uc_engine *uc, uint32_t number, void *context) {
    (void)uc;
    struct engine *engine = context;
    engine->exception = number;
    stop(engine, CUC_STOP_EXCEPTION);
}

static bool on_invalid_instruction(uc_engine *uc, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop == 0) {
        engine->stop = CUC_STOP_EXCEPTION;
        engine->exception = INVALID_OPCODE;
    }
    return false;
}

int engine_add_hooks(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    size_t hook;
    int failed = 0;
#define HOOK(type, function) failed |= library->uc_hook_add(engine->uc, &hook, type, (void *)function, engine, 1, 0)
    HOOK(UC_HOOK_CODE, on_code);
    HOOK(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, on_memory);
    HOOK(UC_HOOK_MEM_INVALID, on_refused);
    HOOK(UC_HOOK_INTR, on_exception);
    HOOK(UC_HOOK_INSN_INVALID, on_invalid_instruction);
#undef HOOK
    return failed;
}
