// A virtual CPU on the Unicorn engine, opened at run time.
//
// Unicorn is GPL-2.0 and optional, so nothing of it is needed to build: the few functions are found with
// dlsym, and their numbers are declared here from its documented interface (library version 2).
//
// The engine runs with its own paging off. Its address space is the guest's *linear* one, and a region mapped
// into it plays the part of a TLB entry: what the guest's tables and KVM's second stage allow, and nothing
// else. So an access that needs anyone's attention finds no region, and leaves. The hooks below are the only
// code that runs while the guest runs; they take notes and never call back.
#ifndef UNICORN_SHIM_H
#define UNICORN_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The library and its functions.
struct cuc_library;
/// dlopen. NULL if the library is not there or lacks a function. `version` gets major << 16 | minor << 8 | rest.
/// Never closed.
const struct cuc_library *_Nullable cuc_library_open(const char *_Nonnull name, uint32_t *_Nonnull version);

/// Why `cuc_run` came back. RIP is at the instruction that has not been executed.
enum cuc_stop {
    CUC_STOP_LIMIT = 1,   // as many instructions as asked for were executed
    CUC_STOP_KICK,        // *immediate_exit is set
    CUC_STOP_PRIVILEGED,  // an instruction that the caller has to do
    CUC_STOP_MEMORY,      // no region allows `fault`
    CUC_STOP_EXCEPTION,   // the guest raised exception number `exception`
    CUC_STOP_NOTES,       // the touched pages want to be looked at: the list is full, or one held code
    CUC_STOP_ERROR,       // the engine failed: `error` is its number
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

/// One vCPU's engine. Not safe to share: one thread at a time.
struct cuc_cpu;
/// NULL if the engine cannot be opened. `immediate_exit` is looked at before every instruction.
struct cuc_cpu *_Nullable cuc_cpu_create(
    const struct cuc_library *_Nonnull library, const uint8_t *_Nonnull immediate_exit);
void cuc_cpu_destroy(struct cuc_cpu *_Nonnull cpu);

/// Executes at most `limit` instructions from `rip`. An element of a repeated string instruction counts as one.
enum cuc_stop cuc_run(struct cuc_cpu *_Nonnull cpu, uint64_t rip, uint64_t limit);
/// Instructions executed by the last cuc_run.
uint64_t cuc_executed(const struct cuc_cpu *_Nonnull cpu);
/// CUC_STOP_MEMORY: what was refused.
struct cuc_access cuc_fault(const struct cuc_cpu *_Nonnull cpu);
/// CUC_STOP_EXCEPTION, CUC_STOP_ERROR.
uint32_t cuc_exception(const struct cuc_cpu *_Nonnull cpu);
uint32_t cuc_error(const struct cuc_cpu *_Nonnull cpu);

/// Lets the guest touch `size` bytes at `linear`, which are `host`. False if the engine or the table is full.
bool cuc_map(
    struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size, bool writable, bool executable,
    void *_Nonnull host);
/// Undoes one cuc_map. Code that was translated from it must have been forgotten.
void cuc_unmap(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);
/// Drops what was translated from these bytes, which must be mapped.
void cuc_forget_code(struct cuc_cpu *_Nonnull cpu, uint64_t linear, uint64_t size);

/// Pages touched since the last call to cuc_forget_touches, each kind once; the last call of cuc_take_touches
/// emptied the list.
uint32_t cuc_take_touches(struct cuc_cpu *_Nonnull cpu, struct cuc_touch *_Nonnull to);
void cuc_forget_touches(struct cuc_cpu *_Nonnull cpu);

/// While on, cuc_run writes down every data access, so that one instruction can be checked and undone.
void cuc_set_careful(struct cuc_cpu *_Nonnull cpu, bool careful);
/// The accesses of the last careful run; more than CUC_MAX_LOG means that some are missing.
uint32_t cuc_log_count(const struct cuc_cpu *_Nonnull cpu);
struct cuc_access cuc_log(const struct cuc_cpu *_Nonnull cpu, uint32_t index);
/// Saves all registers, or brings them back together with the memory that the last straddling write changed.
bool cuc_save(struct cuc_cpu *_Nonnull cpu);
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

#endif
