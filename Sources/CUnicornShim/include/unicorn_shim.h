// SPDX-License-Identifier: MIT
// A virtual CPU on the Unicorn engine, which is opened at run time and runs in a process of its own.
//
// Unicorn is GPL-2.0 and optional, so nothing of it is needed to build: the few functions are found with
// dlsym, and their numbers are declared here from its documented interface (library version 2).
//
// The engine is a large body of C that translates code of a hostile guest, so it is given nothing to damage:
//
//     monitor ──socket──▶ launcher (forked before the first vCPU runs) ──fork──▶ one CPU process a vCPU
//        └───────────── shared memory: a channel, and the guest's RAM ─────────────┘
//
// A CPU process has no descriptors but its socket, no memory of the monitor's, and a seccomp filter that allows
// what the engine needs (confine.c). Its crash, abort, exit or hang is a reason why cuc_run came back.
#ifndef UNICORN_SHIM_H
#define UNICORN_SHIM_H

#include "instruction.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Why `cuc_run` came back. RIP is at the instruction that has not been executed.
enum cuc_stop {
    CUC_STOP_LIMIT = 1,   // as many instructions as asked for were executed
    CUC_STOP_KICK,        // *immediate_exit is set
    CUC_STOP_PRIVILEGED,  // an instruction that the caller has to do: cuc_decode says which
    CUC_STOP_MEMORY,      // no region allows `fault`
    CUC_STOP_EXCEPTION,   // the guest raised exception number `exception`
    CUC_STOP_NOTES,       // the touched pages want to be looked at: the list is full, or one held code
    CUC_STOP_ENGINE_FAILED,  // the engine could not execute the instruction at RIP; `cuc_failure` has the rest
    CUC_STOP_PROCESS_DIED,   // the CPU process is gone, in this run or an earlier one: `cuc_failure`
};

/// A data access or a fetch, as the instruction meant it.
struct cuc_access {
    uint64_t address;  // linear
    uint64_t value;    // of a write
    uint32_t size;     // bytes
    uint8_t is_write;
    uint8_t is_fetch;
};

#define CUC_TOUCH_READ 0
#define CUC_TOUCH_WRITE 1
#define CUC_TOUCH_FETCH 2
struct cuc_touch {
    uint64_t address;  // linear address of the page
    uint32_t kind;     // CUC_TOUCH_*
};

#define CUC_MAX_TOUCHES 512
#define CUC_MAX_LOG 16
#define CUC_MAX_REGIONS 64
#define CUC_MAX_CODE 15
#define CUC_MAX_FILES 64
#define CUC_SCRATCH_PAGES 8

/// Why a CPU process failed.
enum cuc_failure_kind {
    CUC_FAILURE_NONE,
    CUC_FAILURE_ENGINE,      // gave up an instruction, with uc_err `number` or CUC_ERROR_ABORTED; the process lives
    CUC_FAILURE_SIGNAL,      // ended by signal `number`
    CUC_FAILURE_EXIT,        // called exit(`number`)
    CUC_FAILURE_HANG,        // used processor time for `number` seconds without executing an instruction
    CUC_FAILURE_KICK,        // did not react to a kick
    CUC_FAILURE_ANSWER,      // answered what no engine answers
    CUC_FAILURE_START,       // called exit(`number`) before it could execute anything
    CUC_FAILURE_LAUNCH,      // never began: errno `number`
};
#define CUC_ERROR_ABORTED (-1)
struct cuc_failure {
    enum cuc_failure_kind kind;
    int32_t number;
    uint64_t rip;  // of the instruction that was begun last
    uint32_t code_size;
    uint8_t code[CUC_MAX_CODE];  // the bytes at RIP, where they are known
};

/// Longest name of a library, with its end.
#define CUC_MAX_NAME 128
/// Forks the launcher, if that has not been done in this process. It opens the library (what dlopen takes) and an engine at
/// once, while the monitor goes on. CPU processes are forked from it, so it should be early: what the monitor has open or
/// mapped by then is closed and unmapped in the launcher. Returns 0 or an errno.
int cuc_launcher_start(const char *_Nonnull library);
/// Has the launcher open a library, and starts it for that. Returns major << 16 | minor << 8 | rest; 0 if the library is
/// not there or lacks a function; a negative errno if there is no launcher to ask.
int32_t cuc_library_version(const char *_Nonnull library);

/// One vCPU's process. Not safe to share: one thread at a time.
struct cuc_cpu;
/// Starts a CPU process. NULL if it cannot be, with the reason in `failure`.
struct cuc_cpu *_Nullable cuc_cpu_create(
    const char *_Nonnull library, struct cuc_failure *_Nonnull failure);
/// Ends the process.
void cuc_cpu_destroy(struct cuc_cpu *_Nonnull cpu);

/// Executes at most `limit` instructions from the RIP that was written. An element of a repeated string instruction
/// counts as one. `immediate_exit` ends it before any instruction, within a few milliseconds.
enum cuc_stop cuc_run(struct cuc_cpu *_Nonnull cpu, uint64_t limit, const uint8_t *_Nonnull immediate_exit);
/// Instructions executed by the last cuc_run.
uint64_t cuc_executed(const struct cuc_cpu *_Nonnull cpu);
/// CUC_STOP_MEMORY: what was refused.
struct cuc_access cuc_fault(const struct cuc_cpu *_Nonnull cpu);
/// CUC_STOP_EXCEPTION: its vector.
uint32_t cuc_exception(const struct cuc_cpu *_Nonnull cpu);
/// CUC_STOP_ENGINE_FAILED, CUC_STOP_PROCESS_DIED.
struct cuc_failure cuc_failure(const struct cuc_cpu *_Nonnull cpu);
/// The identifier of the CPU process.
int32_t cuc_process(const struct cuc_cpu *_Nonnull cpu);

/// Gives the CPU a file of guest memory. Returns its number for cuc_map, or -1 if there are CUC_MAX_FILES.
int32_t cuc_open_file(struct cuc_cpu *_Nonnull cpu, int descriptor, uint64_t size);
/// Takes all files away. Nothing may be mapped from them.
void cuc_close_files(struct cuc_cpu *_Nonnull cpu);

/// Lets the guest touch `size` bytes at `linear`, which are those of a file at `offset`. A refusal of the engine is
/// CUC_STOP_ENGINE_FAILED in the next run; it takes CUC_MAX_REGIONS.
void cuc_map(
    struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size, bool writable, bool executable, int32_t file,
    uint64_t offset);
/// The same with one of the CUC_SCRATCH_PAGES, which are nobody's RAM; cuc_scratch is where the monitor has it.
void cuc_map_scratch(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint32_t number);
uint8_t *_Nonnull cuc_scratch(struct cuc_cpu *_Nonnull cpu, uint32_t number);
/// Undoes one cuc_map. Code that was translated from it must have been forgotten.
void cuc_unmap(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);
/// Drops what was translated from these bytes, which must be mapped.
void cuc_forget_code(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);

/// Pages touched in the last run, each kind once since the last call to cuc_forget_touches. Empties the list.
uint32_t cuc_take_touches(struct cuc_cpu *_Nonnull cpu, struct cuc_touch *_Nonnull to);
void cuc_forget_touches(struct cuc_cpu *_Nonnull cpu);

/// While on, cuc_run writes down every data access and first saves all registers, so that one instruction can be
/// checked and undone. It is not kicked.
void cuc_set_careful(struct cuc_cpu *_Nonnull cpu, bool careful);
/// The accesses of the last careful run; more than CUC_MAX_LOG means that some are missing.
uint32_t cuc_log_count(const struct cuc_cpu *_Nonnull cpu);
struct cuc_access cuc_log(const struct cuc_cpu *_Nonnull cpu, uint32_t index);
/// Undoes the last careful run: all registers, and the memory that the last straddling write changed.
void cuc_restore(struct cuc_cpu *_Nonnull cpu);

/// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15, RIP, RFLAGS: the order of struct kvm_regs.
#define CUC_REGISTERS 18
void cuc_read_registers(struct cuc_cpu *_Nonnull cpu, uint64_t *_Nonnull values);
void cuc_write_registers(struct cuc_cpu *_Nonnull cpu, const uint64_t *_Nonnull values);

/// Registers that change what instructions do, without those that the engine must not see (paging).
struct cuc_system_registers {
    uint64_t cr0, cr4;
    uint64_t fs_base, gs_base;
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
};
void cuc_read_system(struct cuc_cpu *_Nonnull cpu, struct cuc_system_registers *_Nonnull registers);
void cuc_write_system(struct cuc_cpu *_Nonnull cpu, const struct cuc_system_registers *_Nonnull registers);
/// Segments as a CPU in 64-bit mode has them, whatever the guest has loaded. General and system registers are to be
/// written after it.
void cuc_reset_segments(struct cuc_cpu *_Nonnull cpu);

#endif
