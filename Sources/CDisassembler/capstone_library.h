// SPDX-License-Identifier: MIT
// Capstone's interface, declared from its documentation: the functions that disassembler.c calls and the fields it reads.
#ifndef CAPSTONE_LIBRARY_H
#define CAPSTONE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CS_ERR_OK = 0, CS_ARCH_X86 = 3, CS_MODE_64 = 8 };
enum { CS_OPT_SYNTAX = 1, CS_OPT_DETAIL = 2, CS_OPT_ON = 3, CS_OPT_SYNTAX_ATT = 2 };
enum { CS_SUPPORT_DIET = 0x10000 };  // a build without text
enum { X86_OP_IMM = 2, X86_OP_MEM = 3 };

struct cs_x86_op {
    uint32_t type;
    union {
        int64_t immediate;
        struct {
            uint32_t segment, base, index;
            int32_t scale;
            int64_t displacement;
        } memory;
    };
    uint8_t size;  // bytes
    uint8_t rest[15];
};

struct cs_x86 {
    uint8_t prefix[4], opcode[4], rex;
    uint8_t address_size;  // bytes
    uint8_t encoding[54];
    uint8_t operand_count;
    struct cs_x86_op operands[8];
};
_Static_assert(sizeof(struct cs_x86_op) == 48 && offsetof(struct cs_x86_op, memory) == 8, "cs_x86_op");
_Static_assert(offsetof(struct cs_x86_op, size) == 32, "cs_x86_op");
_Static_assert(offsetof(struct cs_x86, address_size) == 9 && offsetof(struct cs_x86, operand_count) == 64, "cs_x86");
_Static_assert(offsetof(struct cs_x86, operands) == 72, "cs_x86");

struct cs_detail_4 {
    uint16_t read[12];
    uint8_t read_count;
    uint16_t written[20];
    uint8_t written_count;
    uint8_t groups[8], group_count;
    struct cs_x86 x86;
};
struct cs_insn_4 {
    uint32_t id;
    uint64_t address;
    uint16_t size;
    uint8_t bytes[16];
    char mnemonic[32], operands[160];
    const struct cs_detail_4 *detail;
};
_Static_assert(offsetof(struct cs_detail_4, written) == 26 && offsetof(struct cs_detail_4, x86) == 80, "cs_detail");
_Static_assert(offsetof(struct cs_insn_4, mnemonic) == 34 && offsetof(struct cs_insn_4, detail) == 232, "cs_insn");

struct cs_detail_5 {
    uint16_t read[20];
    uint8_t read_count;
    uint16_t written[20];
    uint8_t written_count;
    uint8_t groups[8], group_count;
    bool has_writeback;
    struct cs_x86 x86;
};
struct cs_insn_5 {
    uint32_t id;
    uint64_t address;
    uint16_t size;
    uint8_t bytes[24];
    char mnemonic[32], operands[160];
    const struct cs_detail_5 *detail;
};
_Static_assert(offsetof(struct cs_detail_5, written) == 42 && offsetof(struct cs_detail_5, x86) == 96, "cs_detail");
_Static_assert(offsetof(struct cs_insn_5, mnemonic) == 42 && offsetof(struct cs_insn_5, detail) == 240, "cs_insn");

struct capstone_library {
    void *handle;        // from dlopen
    uint32_t version;    // major
    uint32_t (*cs_version)(int *, int *);
    bool (*cs_support)(int);
    int (*cs_open)(int, int, size_t *);
    int (*cs_close)(size_t *);
    int (*cs_option)(size_t, int, size_t);
    // `insn` becomes an array of cs_insn_4 or cs_insn_5.
    size_t (*cs_disasm)(size_t, const uint8_t *, size_t, uint64_t, size_t, void **insn);
    void (*cs_free)(void *, size_t);
    const char *(*cs_reg_name)(size_t, unsigned);
    const char *(*cs_insn_name)(size_t, unsigned);
};

// dlopen. False if the library is missing, lacks a function, or has a version whose structs are not declared here.
bool capstone_open(struct capstone_library *library, const char *name);
void capstone_close(struct capstone_library *library);

#endif
