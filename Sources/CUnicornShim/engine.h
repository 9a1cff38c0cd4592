// SPDX-License-Identifier: MIT
// A virtual CPU on the Unicorn engine. Runs in a process of its own (cpu_process.c).
//
// The engine runs with its own paging off. Its address space is the guest's *linear* address space, and a region
// mapped into it acts as a TLB entry: it contains only what the guest's tables and KVM's second stage allow. An
// access that needs anything else hits no region and stops the run. The hooks are the only code of ours that runs
// while the guest runs; they only record and never call the monitor.
#ifndef ENGINE_H
#define ENGINE_H

#include "channel.h"
#include "unicorn_library.h"

struct engine;
/// NULL if the engine cannot be opened.
struct engine *engine_open(const struct cuc_library *library);
/// Binds an engine that was opened before a fork to this process and to a channel, whose kick flag and live fields
/// are used while the engine runs.
void engine_adopt(struct engine *engine, struct cuc_channel *channel);

/// Executes at most `limit` instructions from RIP and stores the result in `answer`, except for the registers. An
/// element of a repeated string instruction counts as one. A careful run records every data access and saves the
/// state for `engine_restore`.
void engine_run(struct engine *engine, uint64_t limit, bool careful, struct cuc_answer *answer);
/// Restores the state before the last careful run: all registers, and the memory changed by the last write that
/// crossed a page boundary.
void engine_restore(struct engine *engine);

bool engine_map(
    struct engine *engine, uint64_t linear, uint64_t size, bool writable, bool executable, uint8_t *host);
void engine_unmap(struct engine *engine, uint64_t linear, uint64_t size);
void engine_forget_code(struct engine *engine, uint64_t linear, uint64_t size);
void engine_forget_touches(struct engine *engine);

void engine_read_registers(struct engine *engine, uint64_t *values);
void engine_write_registers(struct engine *engine, const uint64_t *values);
void engine_read_system(struct engine *engine, struct cuc_system_registers *registers);
/// Returns false if the engine cannot have this state.
bool engine_write_system(struct engine *engine, const struct cuc_system_registers *registers);
/// Sets the segments of a CPU in 64-bit mode, if the guest has changed any. General and system registers must be
/// written afterwards.
void engine_reset_segments(struct engine *engine);

#endif
