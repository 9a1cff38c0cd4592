// SPDX-License-Identifier: MIT
// Disassembles one instruction of 64-bit x86 into text and memory operands, using Capstone, which is loaded at run time.
//
// Capstone is not needed to build: its functions are found with dlsym, and the structs that they fill are declared in
// capstone_library.h for major versions 4 and 5.
#ifndef DISASSEMBLER_H
#define DISASSEMBLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CDIS_NO_REGISTER (-1)
#define CDIS_MAX_MEMORY 4
#define CDIS_MAX_NAME 32
#define CDIS_MAX_TEXT 200
/// The longest instruction in bytes.
#define CDIS_MAX_LENGTH 15

/// Memory that an instruction accesses, at base + index * scale + displacement.
struct cdis_memory {
    int8_t base, index;      // by encoding, RAX 0 to R15 15; or CDIS_NO_REGISTER
    uint8_t scale;
    bool is_relative;        // relative to the next instruction
    bool has_short_address;  // the sum is truncated to 32 bits
    uint8_t size;            // bytes
    int64_t displacement;
};

struct cdis_instruction {
    uint8_t length;               // bytes, 1 to CDIS_MAX_LENGTH
    uint8_t memory_count;
    bool uses_stack;              // accesses memory at RSP and changes it: PUSH, POP, CALL, RET
    bool has_immediate;
    int64_t immediate;            // the first one
    // Operands whose address can be computed from general registers: not FS or GS segments, not vector gathers.
    struct cdis_memory memory[CDIS_MAX_MEMORY];
    char name[CDIS_MAX_NAME];     // mnemonic from the processor manuals: `out`
    char text[CDIS_MAX_TEXT];     // in AT&T syntax: `outl %eax, $0xe8`
};

/// Safe to use from one thread at a time.
struct cdis_disassembler;

/// Opens a library by its dlopen name. NULL if it is missing, lacks a function or x86, or has another major version.
struct cdis_disassembler *_Nullable cdis_open(const char *_Nonnull library);
void cdis_close(struct cdis_disassembler *_Nonnull disassembler);
/// The major version of the library.
int32_t cdis_version(const struct cdis_disassembler *_Nonnull disassembler);

/// Decodes the first instruction of the bytes, at a linear address. False if they do not start with a complete
/// instruction.
bool cdis_decode(
    const struct cdis_disassembler *_Nonnull disassembler, const uint8_t *_Nonnull bytes, size_t size, uint64_t address,
    struct cdis_instruction *_Nonnull instruction);

#endif
