// SPDX-License-Identifier: MIT
// A virtual CPU on the Unicorn engine. The engine is opened at run time and runs in a process of its own.
//
// Unicorn is GPL-2.0 and optional, so the build does not need it: its functions are found with dlsym and their
// constants are declared from its documented interface (library version 2).
//
// The engine is a large body of C code that translates hostile guest code, so it runs where it can do no damage:
//
//     monitor ──socket──▶ launcher (forked before the first vCPU runs) ──fork──▶ one CPU process per vCPU
//        └───────────── shared memory: a channel, and the guest's RAM ─────────────┘
//
// A CPU process has no descriptors except its socket and two files of /proc/self. Of the monitor's shared memory it
// has only its channel and guest RAM, and a seccomp filter allows only what the engine needs (confine.c). A crash,
// abort, exit or hang of the process only ends cuc_run.
#ifndef UNICORN_SHIM_H
#define UNICORN_SHIM_H

#include "instruction.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Why `cuc_run` returned. RIP points to the first instruction that was not executed.
enum cuc_stop {
    CUC_STOP_LIMIT = 1,   // executed `limit` instructions
    CUC_STOP_KICK,        // *immediate_exit is set
    CUC_STOP_PRIVILEGED,  // an instruction that the caller must emulate; see cuc_decode
    CUC_STOP_MEMORY,      // no region allows `fault`
    CUC_STOP_EXCEPTION,   // the guest raised exception number `exception`
    CUC_STOP_BREAKPOINT,  // breakpoints were reached; see cuc_breakpoint_hits
    CUC_STOP_NOTES,       // accessed pages must be processed: the list is full, or code was overwritten; or the ring
                          // has changed
    CUC_STOP_ENGINE_FAILED,  // the engine could not execute the instruction at RIP; see `cuc_failure`
    CUC_STOP_PROCESS_DIED,   // the CPU process has ended, in this run or an earlier one; see `cuc_failure`
};

/// A data access or a fetch of an instruction, not split at page boundaries.
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
    CUC_FAILURE_ENGINE,      // could not execute an instruction: uc_err `number` or CUC_ERROR_ABORTED; not fatal
    CUC_FAILURE_SIGNAL,      // ended by signal `number`
    CUC_FAILURE_EXIT,        // called exit(`number`)
    CUC_FAILURE_HANG,        // used processor time for `number` seconds without executing an instruction
    CUC_FAILURE_KICK,        // did not react to a kick
    CUC_FAILURE_ANSWER,      // sent an impossible answer
    CUC_FAILURE_START,       // called exit(`number`) before it could execute anything
    CUC_FAILURE_LAUNCH,      // was never started: errno `number`
};
#define CUC_ERROR_ABORTED (-1)
struct cuc_failure {
    enum cuc_failure_kind kind;
    int32_t number;
    uint64_t rip;  // of the last instruction that began
    uint32_t code_size;
    uint8_t code[CUC_MAX_CODE];  // the bytes at RIP, if known
};

/// Longest name of a library, including the terminating 0.
#define CUC_MAX_NAME 128
/// Forks the launcher, unless this process already has one. The launcher opens the library (the name is for dlopen)
/// and an engine while the monitor continues. Everything that the monitor has open or mapped at the fork must be
/// closed and unmapped in the launcher, so call this early. Returns 0 or an errno.
int cuc_launcher_start(const char *_Nonnull library);
/// Asks the launcher to open a library, and starts the launcher if necessary. Returns major << 16 | minor << 8 |
/// rest; 0 if the library does not exist or lacks a function; a negative errno if the launcher cannot be started.
int32_t cuc_library_version(const char *_Nonnull library);

/// The process of one vCPU. Not thread safe.
struct cuc_cpu;
/// Starts a CPU process. Returns NULL on failure, with the reason in `failure`.
struct cuc_cpu *_Nullable cuc_cpu_create(
    const char *_Nonnull library, struct cuc_failure *_Nonnull failure);
/// Kills the CPU process and frees `cpu`.
void cuc_cpu_destroy(struct cuc_cpu *_Nonnull cpu);

/// Executes at most `limit` instructions from the RIP that was written last. An element of a repeated string
/// instruction counts as one. A nonzero `immediate_exit` ends the run before the next instruction, within a few
/// milliseconds.
enum cuc_stop cuc_run(struct cuc_cpu *_Nonnull cpu, uint64_t limit, const uint8_t *_Nonnull immediate_exit);
/// Instructions executed by the last cuc_run.
uint64_t cuc_executed(const struct cuc_cpu *_Nonnull cpu);
/// For CUC_STOP_MEMORY: the access that failed.
struct cuc_access cuc_fault(const struct cuc_cpu *_Nonnull cpu);
/// For CUC_STOP_EXCEPTION: the vector.
uint32_t cuc_exception(const struct cuc_cpu *_Nonnull cpu);
/// For CUC_STOP_ENGINE_FAILED and CUC_STOP_PROCESS_DIED: the reason.
struct cuc_failure cuc_failure(const struct cuc_cpu *_Nonnull cpu);
/// For CUC_STOP_BREAKPOINT: the breakpoints that were reached, one bit each.
uint32_t cuc_breakpoint_hits(const struct cuc_cpu *_Nonnull cpu);
/// The identifier of the CPU process.
int32_t cuc_process(const struct cuc_cpu *_Nonnull cpu);

/// A breakpoint of the debug registers. A run ends before the instruction at an address with CUC_BREAK_EXECUTE, even if it
/// is the first, and after an instruction that accesses one of `size` bytes otherwise.
struct cuc_breakpoint {
    uint64_t address;  // linear
    uint32_t size;     // bytes; 0 if it is not in use
    uint32_t kind;     // CUC_BREAK_*
};
#define CUC_MAX_BREAKPOINTS 4
#define CUC_BREAK_EXECUTE 0
#define CUC_BREAK_WRITE 1
#define CUC_BREAK_ACCESS 3
/// Sets the breakpoints of the following runs. Careful runs ignore them.
void cuc_set_breakpoints(
    struct cuc_cpu *_Nonnull cpu, const struct cuc_breakpoint breakpoints[_Nonnull CUC_MAX_BREAKPOINTS]);

/// Opens a file of guest memory in the CPU process. Returns its number for cuc_map, or -1 if there are
/// CUC_MAX_FILES already or the process has ended.
int32_t cuc_open_file(struct cuc_cpu *_Nonnull cpu, int descriptor, uint64_t size);
/// Closes all files in the CPU process. Nothing may be mapped from them.
void cuc_close_files(struct cuc_cpu *_Nonnull cpu);

/// Maps `size` bytes of a file from `offset` at the guest's linear address `linear`. At most CUC_MAX_REGIONS
/// regions can be mapped. A failure is reported as CUC_STOP_ENGINE_FAILED by the next run.
void cuc_map(
    struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size, bool writable, bool executable, int32_t file,
    uint64_t offset);
/// Like cuc_map, for one of the CUC_SCRATCH_PAGES, which are not guest RAM. cuc_scratch returns its address in the
/// monitor.
void cuc_map_scratch(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint32_t number);
uint8_t *_Nonnull cuc_scratch(struct cuc_cpu *_Nonnull cpu, uint32_t number);
/// Undoes one cuc_map. Code that was translated from the region must have been dropped before.
void cuc_unmap(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);
/// Drops code that was translated from these bytes, which must be mapped.
void cuc_forget_code(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);

/// Returns the pages accessed in the last run and empties the list. A page is listed once for each kind of access
/// since the last call to cuc_forget_touches.
uint32_t cuc_take_touches(struct cuc_cpu *_Nonnull cpu, struct cuc_touch *_Nonnull to);
void cuc_forget_touches(struct cuc_cpu *_Nonnull cpu);

/// In careful mode, cuc_run records every data access and first saves all registers, so that one instruction can be
/// checked and undone. A kick does not stop it.
void cuc_set_careful(struct cuc_cpu *_Nonnull cpu, bool careful);
/// Number of accesses of the last careful run. If it is more than CUC_MAX_LOG, only the first CUC_MAX_LOG were
/// recorded.
uint32_t cuc_log_count(const struct cuc_cpu *_Nonnull cpu);
struct cuc_access cuc_log(const struct cuc_cpu *_Nonnull cpu, uint32_t index);
/// Undoes the last careful run: restores all registers, and the memory changed by the last write that crossed a
/// page boundary.
void cuc_restore(struct cuc_cpu *_Nonnull cpu);

/// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15, RIP, RFLAGS, in the order of struct kvm_regs.
#define CUC_REGISTERS 18
void cuc_read_registers(struct cuc_cpu *_Nonnull cpu, uint64_t *_Nonnull values);
void cuc_write_registers(struct cuc_cpu *_Nonnull cpu, const uint64_t *_Nonnull values);

/// A segment register with its hidden part.
struct cuc_segment {
    uint64_t base;
    uint32_t limit;   // bytes - 1
    uint32_t access;  // as in the second half of a descriptor: type, S, DPL, P, L (bit 21), D/B (22), G
    uint16_t selector;
};
#define CUC_SEGMENTS 6
enum { CUC_ES, CUC_CS, CUC_SS, CUC_DS, CUC_FS, CUC_GS };

/// Registers that affect the execution of instructions, without bits that the engine must not see (paging).
struct cuc_system_registers {
    uint64_t cr0, cr4;
    uint64_t gdt_base, idt_base, tr_base;
    uint32_t gdt_limit, idt_limit, tr_limit;
    uint16_t tr_selector;
    struct cuc_segment segments[CUC_SEGMENTS];
    bool is_long;  // EFER.LMA
    // Whether the engine has these segments. If not, only bases of FS and GS, and it is always in 64-bit mode.
    bool has_segments;
};
void cuc_read_system(struct cuc_cpu *_Nonnull cpu, struct cuc_system_registers *_Nonnull registers);
void cuc_write_system(struct cuc_cpu *_Nonnull cpu, const struct cuc_system_registers *_Nonnull registers);
/// Sets the segments of a CPU in 64-bit mode, whatever the guest has loaded. General and system registers must be
/// written afterwards.
void cuc_reset_segments(struct cuc_cpu *_Nonnull cpu);

#endif
