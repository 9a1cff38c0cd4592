// SPDX-License-Identifier: MIT
// A virtual CPU on the Unicorn engine: runs in a process of its own (cpu_process.c).
//
// The engine runs with its own paging off. Its address space is the guest's *linear* one, and a region mapped
// into it plays the part of a TLB entry: what the guest's tables and KVM's second stage allow, and nothing
// else. So an access that needs anyone's attention finds no region, and leaves. The hooks are the only code that
// runs while the guest runs; they take notes and never call back.
#ifndef ENGINE_H
#define ENGINE_H

#include "channel.h"
#include "unicorn_library.h"

struct engine;
/// NULL if the engine cannot be opened.
struct engine *engine_open(const struct cuc_library *library);
/// Gives an engine that was opened before a fork to this process, and to a channel, whose kick flag and live fields are
/// used while it runs.
void engine_adopt(struct engine *engine, struct cuc_channel *channel);

/// Executes at most `limit` instructions from RIP and says in `answer` how that ended, but not the registers. An
/// element of a repeated string instruction counts as one. A careful run writes down every data access and saves what
/// `engine_restore` brings back.
void engine_run(struct engine *engine, uint64_t limit, bool careful, struct cuc_answer *answer);
/// Brings back all registers, and the memory that the last straddling write changed, as of before the last careful run.
void engine_restore(struct engine *engine);

bool engine_map(
    struct engine *engine, uint64_t linear, uint64_t size, bool writable, bool executable, uint8_t *host);
void engine_unmap(struct engine *engine, uint64_t linear, uint64_t size);
void engine_forget_code(struct engine *engine, uint64_t linear, uint64_t size);
void engine_forget_touches(struct engine *engine);

void engine_read_registers(struct engine *engine, uint64_t *values);
void engine_write_registers(struct engine *engine, const uint64_t *values);
void engine_read_system(struct engine *engine, struct cuc_system_registers *registers);
void engine_write_system(struct engine *engine, const struct cuc_system_registers *registers);
/// Segments as a CPU in 64-bit mode has them, if the guest has changed any. General and system registers are to be
/// written after it.
void engine_reset_segments(struct engine *engine);

#endif
