// SPDX-License-Identifier: MIT
#include "disassembler.h"

#include "capstone_library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Capstone's register numbers fit into this, in all versions supported here.
#define REGISTERS 256
// Numbers for registers that are not general registers.
enum { NONE = -1, RELATIVE = -2, OTHER = -3 };
enum { RSP = 4 };

struct cdis_disassembler {
    struct capstone_library library;
    size_t handle;
    int8_t numbers[REGISTERS];  // by Capstone's number: the encoding in instructions, or one of the above
};

// The fields of cs_insn and cs_detail that are used, independent of the version.
struct insn_fields {
    uint32_t id;
    uint16_t size;
    const char *mnemonic, *operands;
    const uint16_t *written;  // registers that are not among the operands
    uint8_t written_count;
    const struct cs_x86 *x86;
};

static struct insn_fields fields_of(uint32_t version, const void *insn) {
#define VIEW(insn) \
    (struct insn_fields) { \
        insn->id, insn->size, insn->mnemonic, insn->operands, insn->detail->written, insn->detail->written_count, \
            &insn->detail->x86 \
    }
    if (version == 4) {
        const struct cs_insn_4 *insn_4 = insn;
        return VIEW(insn_4);
    }
    const struct cs_insn_5 *insn_5 = insn;
    return VIEW(insn_5);
#undef VIEW
}

// MARK: registers

static int8_t number_of(const char *name) {
    static const char *const names[2][16] = {
        {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"},
        {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d",
         "r15d"},
    };
    for (int width = 0; width < 2; width++)
        for (int8_t i = 0; i < 16; i++)
            if (strcmp(names[width][i], name) == 0) return i;
    if (strcmp(name, "rip") == 0 || strcmp(name, "eip") == 0) return RELATIVE;
    // A pseudo register for "no index".
    if (strcmp(name, "riz") == 0 || strcmp(name, "eiz") == 0) return NONE;
    return OTHER;
}

static int8_t register_number(const struct cdis_disassembler *disassembler, uint32_t number) {
    return number < REGISTERS ? disassembler->numbers[number] : OTHER;
}

static void number_registers(struct cdis_disassembler *disassembler) {
    disassembler->numbers[0] = NONE;
    for (unsigned i = 1; i < REGISTERS; i++) {
        const char *name = disassembler->library.cs_reg_name(disassembler->handle, i);
        disassembler->numbers[i] = name != NULL ? number_of(name) : OTHER;
    }
}

// MARK: operands

// False if the address cannot be computed from general registers.
static bool read_memory_operand(
    const struct cdis_disassembler *disassembler, const struct cs_x86 *x86, const struct cs_x86_op *operand,
    struct cdis_memory *memory) {
    int8_t base = register_number(disassembler, operand->memory.base);
    int8_t index = register_number(disassembler, operand->memory.index);
    const char *segment = disassembler->library.cs_reg_name(disassembler->handle, operand->memory.segment);
    if (segment != NULL && (strcmp(segment, "fs") == 0 || strcmp(segment, "gs") == 0)) return false;
    if (base == OTHER || index == OTHER || index == RELATIVE) return false;
    *memory = (struct cdis_memory){
        .base = base == RELATIVE ? CDIS_NO_REGISTER : base, .index = index, .scale = (uint8_t)operand->memory.scale,
        .is_relative = base == RELATIVE, .has_short_address = x86->address_size == 4, .size = operand->size,
        .displacement = operand->memory.displacement};
    return true;
}

static void read_operands(
    const struct cdis_disassembler *disassembler, const struct insn_fields *fields, struct cdis_instruction *instruction) {
    // These have a memory operand but do not access it.
    bool only_names = strcmp(instruction->name, "lea") == 0 || strcmp(instruction->name, "nop") == 0;
    for (uint8_t i = 0; i < fields->x86->operand_count && i < 8; i++) {
        const struct cs_x86_op *operand = &fields->x86->operands[i];
        if (operand->type == X86_OP_IMM && !instruction->has_immediate) {
            instruction->has_immediate = true;
            instruction->immediate = operand->immediate;
        }
        if (operand->type != X86_OP_MEM || only_names || instruction->memory_count == CDIS_MAX_MEMORY) continue;
        if (read_memory_operand(disassembler, fields->x86, operand, &instruction->memory[instruction->memory_count]))
            instruction->memory_count++;
    }
    for (uint8_t i = 0; i < fields->written_count && i < 20; i++)
        instruction->uses_stack |= register_number(disassembler, fields->written[i]) == RSP;
}

static bool decode(
    const struct cdis_disassembler *disassembler, const struct insn_fields *fields, size_t size,
    struct cdis_instruction *instruction) {
    if (fields->size == 0 || fields->size > size) return false;
    *instruction = (struct cdis_instruction){.length = (uint8_t)fields->size};
    const char *name = disassembler->library.cs_insn_name(disassembler->handle, fields->id);
    snprintf(instruction->name, sizeof instruction->name, "%s", name != NULL ? name : "");
    const char *gap = fields->operands[0] != 0 ? " " : "";
    snprintf(
        instruction->text, sizeof instruction->text, "%.32s%s%.160s", fields->mnemonic, gap, fields->operands);
    read_operands(disassembler, fields, instruction);
    return true;
}

// MARK: the interface

struct cdis_disassembler *cdis_open(const char *library) {
    struct cdis_disassembler *disassembler = calloc(1, sizeof *disassembler);
    if (disassembler == NULL) return NULL;
    if (!capstone_open(&disassembler->library, library)) {
        free(disassembler);
        return NULL;
    }
    const struct capstone_library *capstone = &disassembler->library;
    bool is_open = capstone->cs_open(CS_ARCH_X86, CS_MODE_64, &disassembler->handle) == CS_ERR_OK;
    if (is_open && capstone->cs_option(disassembler->handle, CS_OPT_SYNTAX, CS_OPT_SYNTAX_ATT) == CS_ERR_OK
        && capstone->cs_option(disassembler->handle, CS_OPT_DETAIL, CS_OPT_ON) == CS_ERR_OK) {
        number_registers(disassembler);
        return disassembler;
    }
    if (is_open) capstone->cs_close(&disassembler->handle);
    capstone_close(&disassembler->library);
    free(disassembler);
    return NULL;
}

void cdis_close(struct cdis_disassembler *disassembler) {
    disassembler->library.cs_close(&disassembler->handle);
    capstone_close(&disassembler->library);
    free(disassembler);
}

int32_t cdis_version(const struct cdis_disassembler *disassembler) { return (int32_t)disassembler->library.version; }

bool cdis_decode(
    const struct cdis_disassembler *disassembler, const uint8_t *bytes, size_t size, uint64_t address,
    struct cdis_instruction *instruction) {
    if (size > CDIS_MAX_LENGTH) size = CDIS_MAX_LENGTH;
    void *insn = NULL;
    size_t count = disassembler->library.cs_disasm(disassembler->handle, bytes, size, address, 1, &insn);
    if (count == 0) return false;
    struct insn_fields fields = fields_of(disassembler->library.version, insn);
    bool is_known = decode(disassembler, &fields, size, instruction);
    disassembler->library.cs_free(insn, count);
    return is_known;
}
