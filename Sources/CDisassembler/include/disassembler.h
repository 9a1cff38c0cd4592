// SPDX-License-Identifier: MIT
// One instruction of 64-bit x86 as text and memory operands, by Capstone, which is opened at run time.
//
// Nothing of Capstone is needed to build: its few functions are found with dlsym, and what they fill is declared in
// capstone_library.h for its major versions 4 and 5.
#ifndef DISASSEMBLER_H
#define DISASSEMBLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CDIS_NO_REGISTER (-1)
#define CDIS_MAX_MEMORY 4
#define CDIS_MAX_NAME 32
#define CDIS_MAX_TEXT 200
/// The longest instruction, bytes.
#define CDIS_MAX_LENGTH 15

/// Memory that an instruction accesses, at base + index * scale + displacement.
struct cdis_memory {
    int8_t base, index;      // as instructions number them, RAX 0 to R15 15; CDIS_NO_REGISTER for none
    uint8_t scale;
    bool is_relative;        // counts from the next instruction
    bool has_short_address;  // only the low 32 bits of the sum count
    uint8_t size;            // bytes
    int64_t displacement;
};

struct cdis_instruction {
    uint8_t length;               // bytes, 1 to CDIS_MAX_LENGTH
    uint8_t memory_count;
    bool uses_stack;              // reads or writes at RSP, which it changes: PUSH, POP, CALL, RET
    bool has_immediate;
    int64_t immediate;            // the first one
    // Operands whose address follows from general registers: none that begin at FS or GS, or gather by a vector.
    struct cdis_memory memory[CDIS_MAX_MEMORY];
    char name[CDIS_MAX_NAME];     // of the operation in the processor manuals: `out`
    char text[CDIS_MAX_TEXT];     // in AT&T syntax: `outl %eax, $0xe8`
};

/// Safe to use from one thread at a time.
struct cdis_disassembler;

/// Opens a library: what dlopen takes. NULL if it is not there, lacks a function or x86, or has another major version.
struct cdis_disassembler *_Nullable cdis_open(const char *_Nonnull library);
void cdis_close(struct cdis_disassembler *_Nonnull disassembler);
/// The major version of the library.
int32_t cdis_version(const struct cdis_disassembler *_Nonnull disassembler);

/// Decodes the instruction that the bytes begin with, at a linear address. False if they begin with none, or with a part
/// of one.
bool cdis_decode(
    const struct cdis_disassembler *_Nonnull disassembler, const uint8_t *_Nonnull bytes, size_t size, uint64_t address,
    struct cdis_instruction *_Nonnull instruction);

#endif
