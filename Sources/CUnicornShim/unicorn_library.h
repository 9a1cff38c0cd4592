// SPDX-License-Identifier: MIT
// The part of Unicorn's interface that engine*.c use, declared from its documentation.
#ifndef UNICORN_LIBRARY_H
#define UNICORN_LIBRARY_H

#include "unicorn_shim.h"

enum { UC_ARCH_X86 = 4, UC_MODE_64 = 8, UC_ERR_OK = 0 };
enum { UC_PROT_READ = 1, UC_PROT_WRITE = 2, UC_PROT_EXEC = 4 };
enum {
    UC_HOOK_INTR = 1 << 0,
    UC_HOOK_CODE = 1 << 2,
    UC_HOOK_MEM_INVALID = 0x3f << 4,  // unmapped and protected; read, write and fetch
    UC_HOOK_MEM_READ = 1 << 10,
    UC_HOOK_MEM_WRITE = 1 << 11,
    UC_HOOK_INSN_INVALID = 1 << 14,
};
enum {
    UC_MEM_READ = 16,
    UC_MEM_WRITE = 17,
    UC_MEM_WRITE_UNMAPPED = 20,
    UC_MEM_FETCH_UNMAPPED = 21,
    UC_MEM_WRITE_PROT = 22,
    UC_MEM_FETCH_PROT = 24,
};
enum {
    UC_CTL_WRITE_UC_USE_EXITS = 0x44000004,
    UC_CTL_WRITE_UC_EXITS = 0x48000006,
    UC_CTL_WRITE_TB_REMOVE_CACHE = 0x48000009,
};
enum {
    UC_X86_REG_EFLAGS = 25,
    UC_X86_REG_RIP = 41,
    UC_X86_REG_CR0 = 50,
    UC_X86_REG_CR4 = 54,
    UC_X86_REG_IDTR = 242,
    UC_X86_REG_GDTR = 243,
    UC_X86_REG_TR = 245,
    UC_X86_REG_FS_BASE = 250,
    UC_X86_REG_GS_BASE = 251,
};
// CS DS ES FS GS SS
static const int segment_registers[] __attribute__((unused)) = {11, 17, 28, 32, 33, 49};
// Registers of the x87 and SSE units: FP0 to FP7 (10 bytes), XMM0 to XMM15 (16 bytes), FPSW, FPCW, FPTAG, MXCSR.
static const int vector_registers[] __attribute__((unused)) = {
    82, 83, 84, 85, 86, 87, 88, 89, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137,
    31, 246, 247, 249,
};
static const int general_registers[CUC_REGISTERS] __attribute__((unused)) = {
    35, 37, 38, 40, 43, 39, 44, 36,          // RAX RBX RCX RDX RSI RDI RSP RBP
    106, 107, 108, 109, 110, 111, 112, 113,  // R8 to R15
    UC_X86_REG_RIP, UC_X86_REG_EFLAGS,
};
struct table_register {
    uint16_t selector;
    uint64_t base;
    uint32_t limit, flags;
};

typedef struct uc_engine uc_engine;
typedef struct uc_context uc_context;
struct cuc_library {
    char name[CUC_MAX_NAME];  // as passed to dlopen
    uint32_t version;         // major << 16 | minor << 8 | rest
    unsigned (*uc_version)(unsigned *, unsigned *);
    int (*uc_open)(int, int, uc_engine **);
    int (*uc_close)(uc_engine *);
    int (*uc_reg_read)(uc_engine *, int, void *);
    int (*uc_reg_write)(uc_engine *, int, const void *);
    int (*uc_mem_read)(uc_engine *, uint64_t, void *, size_t);
    int (*uc_mem_write)(uc_engine *, uint64_t, const void *, size_t);
    int (*uc_mem_map_ptr)(uc_engine *, uint64_t, size_t, uint32_t, void *);
    int (*uc_mem_unmap)(uc_engine *, uint64_t, size_t);
    int (*uc_emu_start)(uc_engine *, uint64_t, uint64_t, uint64_t, size_t);
    int (*uc_emu_stop)(uc_engine *);
    int (*uc_hook_add)(uc_engine *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
    int (*uc_ctl)(uc_engine *, int, ...);
    int (*uc_context_alloc)(uc_engine *, uc_context **);
    int (*uc_context_save)(uc_engine *, uc_context *);
    int (*uc_context_restore)(uc_engine *, uc_context *);
    int (*uc_context_free)(uc_context *);
    size_t (*uc_context_size)(uc_engine *);
};

// Opens a library with dlopen. Returns NULL if it does not exist or lacks a function. It is never closed.
const struct cuc_library *cuc_library_open(const char *name);

#endif
