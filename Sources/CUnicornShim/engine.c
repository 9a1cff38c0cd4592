// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "decode.h"
#include "engine_state.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

// The running engine, for the handler of SIGABRT.
static struct engine *running;

static void on_abort(int signal) {
    (void)signal;
    if (running) siglongjmp(running->escape, 1);
}

// Opens a Unicorn engine. The first call into it allocates its buffer of translations.
static bool open_uc(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    if (library->uc_open(UC_ARCH_X86, UC_MODE_64, &engine->uc) != UC_ERR_OK) return false;
    if (engine_add_hooks(engine) != UC_ERR_OK) return false;
    uint64_t registers[CUC_REGISTERS];
    engine_read_registers(engine, registers);
    code_memory_find(&engine->memory);
    return true;
}

struct engine *engine_open(const struct cuc_library *library) {
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return NULL;
    engine->library = library;
    engine->code_page = NO_PAGE;
    engine->until_measured = MEASURE_EVERY;
    code_memory_open(&engine->memory);
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = SA_NODEFER};
    bool is_open = open_uc(engine) && library->uc_context_alloc(engine->uc, &engine->saved) == UC_ERR_OK
        && library->uc_context_alloc(engine->uc, &engine->moved) == UC_ERR_OK
        && library->uc_context_alloc(engine->uc, &engine->fresh) == UC_ERR_OK
        && library->uc_context_alloc(engine->uc, &engine->state) == UC_ERR_OK
        && library->uc_context_save(engine->uc, engine->fresh) == UC_ERR_OK && sigaction(SIGABRT, &action, NULL) == 0;
    if (is_open) engine_find_segments(engine);
    return is_open ? engine : NULL;
}

void engine_adopt(struct engine *engine, struct cuc_channel *channel) {
    engine->channel = channel;
    // The open files of /proc/self belong to the process that opened the engine.
    code_memory_close(&engine->memory);
    struct code_memory memory;
    code_memory_open(&memory);
    engine->memory.statm = memory.statm;
    engine->memory.maps = memory.maps;
    code_memory_start(&engine->memory);
}

// Continues with a new engine without translations, because the old one had too many or has aborted. (Dropping them
// with UC_CTL_TB_FLUSH takes seconds in 2.0.1.)
static bool renew(struct engine *engine, bool has_aborted) {
    const struct cuc_library *library = engine->library;
    library->uc_context_save(engine->uc, engine->moved);
    if (!has_aborted) library->uc_close(engine->uc);
    code_memory_release(&engine->memory);
    if (!open_uc(engine)) return false;
    library->uc_context_restore(engine->uc, engine->moved);
    for (uint32_t i = 0; i < engine->region_count; i++) {
        const struct region *region = &engine->regions[i];
        if (library->uc_mem_map_ptr(
                engine->uc, engine_address(engine, region->linear), region->size, region->permissions, region->host))
            return false;
    }
    if (engine->is_stepping) library->uc_ctl(engine->uc, UC_CTL_WRITE_UC_USE_EXITS, 1);
    return true;
}

static uint64_t read_rip(const struct engine *engine) {
    uint64_t rip = 0;
    engine->library->uc_reg_read(engine->uc, UC_X86_REG_RIP, &rip);
    return rip;
}

// Makes blocks end after their first instruction, which has at most 15 bytes.
static void end_blocks_after(struct engine *engine, uint64_t rip) {
    uint64_t exits[CUC_MAX_CODE];
    engine_learn_code(engine);
    for (uint32_t i = 0; i < CUC_MAX_CODE; i++)
        exits[i] = engine_address(engine, engine->code_base + rip + i + 1);
    engine->library->uc_ctl(engine->uc, UC_CTL_WRITE_UC_EXITS, exits, (size_t)CUC_MAX_CODE);
}

// The bytes at RIP, as many as can be read.
static uint32_t read_code(const struct engine *engine, uint64_t rip, uint8_t *bytes) {
    for (uint32_t i = 0; i < CUC_MAX_CODE; i++) {
        const uint8_t *byte = engine_bytes(engine, engine->code_base + rip + i);
        if (byte == NULL) return i;
        bytes[i] = *byte;
    }
    return CUC_MAX_CODE;
}

// Handles an abort of the engine. Returns true if the run should be tried again, one instruction at a time.
static bool recover(struct engine *engine, struct cuc_answer *answer) {
    running = NULL;
    uint64_t rip = read_rip(engine);
    engine->channel->live_rip = rip;
    if (engine->stop != 0) return false;  // aborted while stopping: keep the reason that the hooks recorded
    if (engine->is_stepping && !engine->has_begun) {
        answer->code_size = read_code(engine, rip, answer->code);
        // The known cause of an abort: an instruction that does not exist on a processor.
        bool is_undefined = cuc_is_undefined(answer->code, answer->code_size, engine->code_bits);
        engine->stop = is_undefined ? CUC_STOP_EXCEPTION : CUC_STOP_ENGINE_FAILED;
        engine->exception = INVALID_OPCODE;
        return false;
    }
    engine->is_stepping = true;
    return renew(engine, true);
}

// A stopped engine has the linear address of the instruction in RIP, which is wrong if CS has a base. Only a failed fetch
// leaves RIP as it should be.
static void correct_rip(struct engine *engine) {
    if (engine->code_base == 0 || engine->stop == 0 || engine->fault.is_fetch) return;
    engine->library->uc_reg_write(engine->uc, UC_X86_REG_RIP, &engine->rip);
}

// Runs until a hook stops the engine or the engine stops by itself.
static int start(struct engine *engine, struct cuc_answer *answer) {
    for (;;) {
        uint64_t rip = read_rip(engine);
        engine->has_begun = false;
        if (engine->is_stepping) end_blocks_after(engine, rip);
        int error = UC_ERR_OK;
        if (sigsetjmp(engine->escape, 1) == 0) {
            running = engine;
            error = engine->library->uc_emu_start(engine->uc, rip, UINT64_MAX, 0, 0);
            running = NULL;
        } else if (!recover(engine, answer)) {
            return CUC_ERROR_ABORTED;
        } else {
            continue;
        }
        correct_rip(engine);
        if (engine->stop == STOP_RENEW && !renew(engine, false)) {
            engine->stop = 0;
            return CUC_ERROR_ABORTED;
        }
        // The end of a shortened block, which calls no hook.
        bool is_cut = engine->stop == 0 && engine->is_stepping && read_rip(engine) - rip - 1 < CUC_MAX_CODE;
        bool goes_on = engine->stop == STOP_RENEW || engine->stop == STOP_STEP || is_cut;
        if (error != UC_ERR_OK || !goes_on) return error;
        engine->stop = 0;
    }
}

void engine_run(struct engine *engine, uint64_t limit, bool careful, struct cuc_answer *answer) {
    struct cuc_channel *channel = engine->channel;
    channel->live_executed = 0;
    channel->live_rip = read_rip(engine);
    engine_learn_code(engine);
    engine->limit = limit;
    engine->careful = careful;
    engine->stop = 0;
    engine->hits = 0;
    memcpy(engine->breakpoints, channel->breakpoints, sizeof engine->breakpoints);
    engine->has_breakpoints = false;
    for (uint32_t i = 0; i < CUC_MAX_BREAKPOINTS; i++)
        engine->has_breakpoints |= engine->breakpoints[i].size > 0 && !careful;
    engine->fault = (struct cuc_access){0};
    engine->crossing.size = 0;
    engine->log_count = 0;
    answer->code_size = 0;
    if (careful) engine->library->uc_context_save(engine->uc, engine->saved);
    answer->error = start(engine, answer);
    if (engine->stop == 0 && answer->error == UC_ERR_OK && engine->has_begun) {
        // The engine reports no error for a triple fault. It also takes an exception for a triple fault if an
        // earlier one was left to the monitor.
        engine->stop = CUC_STOP_EXCEPTION;
        engine->exception = DOUBLE_FAULT;
    }
    if (engine->stop == 0) {
        engine->stop = CUC_STOP_ENGINE_FAILED;
        answer->code_size = read_code(engine, read_rip(engine), answer->code);
    } else if (engine->stop == CUC_STOP_MEMORY || engine->stop == CUC_STOP_EXCEPTION) {
        // The instruction was counted but not executed.
        bool was_counted = engine->stop == CUC_STOP_EXCEPTION || !engine->fault.is_fetch;
        if (was_counted && channel->live_executed > 0) channel->live_executed--;
        if (engine->stop == CUC_STOP_MEMORY) engine_undo_crossing_write(engine);
        // Some exceptions are reported with RIP after the instruction.
        if (engine->stop == CUC_STOP_EXCEPTION)
            engine->library->uc_reg_write(engine->uc, UC_X86_REG_RIP, &channel->live_rip);
    }
    answer->stop = engine->stop;
    answer->exception = engine->exception;
    answer->breakpoint_hits = engine->hits;
    answer->fault = engine->fault;
    answer->executed = channel->live_executed;
    answer->log_count = engine->log_count;
    memcpy(answer->log, engine->log, sizeof answer->log);
    answer->touch_count = engine->touch_count;
    memcpy(answer->touches, engine->touches, engine->touch_count * sizeof *answer->touches);
    engine->touch_count = 0;
    engine->wrote_to_code = false;
}

void engine_restore(struct engine *engine) {
    engine->library->uc_context_restore(engine->uc, engine->saved);
    engine_undo_crossing_write(engine);
}
