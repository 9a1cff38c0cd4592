// SPDX-License-Identifier: MIT
// The segment registers of the engine with their hidden parts, and with that the size of code.
//
// Unicorn's interface writes a selector by reading a descriptor from the guest's GDT, and it has no way to set a hidden
// part or to leave 64-bit mode without paging. A saved context has everything, but its layout is not documented. So the
// place of the segment registers is found once, by writing two bases and looking for them. In all versions 2 of the
// engine, each segment register there is as below, and the flags from which the engine derives the size of code (`hflags`
// of QEMU) are two words before the first. If a new engine does not look like that, only 64-bit mode is available.
#include "engine_state.h"

#include <string.h>

struct hidden_segment {
    uint32_t selector;
    uint64_t base;
    uint32_t limit, access;
};
_Static_assert(sizeof(struct hidden_segment) == 24, "as in the engine");

// QEMU's hflags.
enum {
    FLAG_CPL = 3,
    FLAG_CS32 = 1 << 4,
    FLAG_SS32 = 1 << 5,
    FLAG_ADDSEG = 1 << 6,
    FLAG_PE = 1 << 7,
    FLAG_LMA = 1 << 14,
    FLAG_CS64 = 1 << 15,
    FLAGS_OF_MODE = FLAG_CPL | FLAG_CS32 | FLAG_SS32 | FLAG_ADDSEG | FLAG_PE | FLAG_LMA | FLAG_CS64,
    FLAGS_OF_NEW_ENGINE = FLAG_CS32 | FLAG_SS32 | FLAG_PE | FLAG_LMA | FLAG_CS64,
};
#define ACCESS_LONG (1u << 21)
#define ACCESS_BIG (1u << 22)
#define FLAGS_BEFORE_SEGMENTS 8u

static void *at(const struct engine *engine, size_t offset) { return (uint8_t *)engine->state + offset; }

static uint32_t read_flags(const struct engine *engine) {
    uint32_t flags;
    memcpy(&flags, at(engine, engine->segments_at - FLAGS_BEFORE_SEGMENTS), sizeof flags);
    return flags;
}

static void read_hidden(const struct engine *engine, struct hidden_segment *segments) {
    memcpy(segments, at(engine, engine->segments_at), CUC_SEGMENTS * sizeof *segments);
}

void engine_find_segments(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    const uint64_t bases[2] = {UINT64_C(0x5a17c0de12345678), UINT64_C(0x1b2c3d4e5f607182)};
    size_t size = library->uc_context_size(engine->uc);
    const size_t before = CUC_FS * sizeof(struct hidden_segment) + offsetof(struct hidden_segment, base);
    const size_t apart = sizeof(struct hidden_segment);
    engine->segments_at = 0;
    library->uc_reg_write(engine->uc, UC_X86_REG_FS_BASE, &bases[0]);
    library->uc_reg_write(engine->uc, UC_X86_REG_GS_BASE, &bases[1]);
    library->uc_context_save(engine->uc, engine->state);
    for (size_t i = before + FLAGS_BEFORE_SEGMENTS; i + apart + sizeof *bases <= size; i += sizeof(uint32_t))
        if (memcmp(at(engine, i), &bases[0], sizeof *bases) == 0
            && memcmp(at(engine, i + apart), &bases[1], sizeof *bases) == 0) {
            engine->segments_at = i - before;
            if ((read_flags(engine) & FLAGS_OF_MODE) == FLAGS_OF_NEW_ENGINE) break;
            engine->segments_at = 0;
        }
    library->uc_context_restore(engine->uc, engine->fresh);
}

void engine_read_segments(struct engine *engine, struct cuc_system_registers *registers) {
    registers->has_segments = engine->segments_at != 0;
    if (!registers->has_segments) {
        engine->library->uc_reg_read(engine->uc, UC_X86_REG_FS_BASE, &registers->segments[CUC_FS].base);
        engine->library->uc_reg_read(engine->uc, UC_X86_REG_GS_BASE, &registers->segments[CUC_GS].base);
        return;
    }
    struct hidden_segment segments[CUC_SEGMENTS];
    engine->library->uc_context_save(engine->uc, engine->state);
    read_hidden(engine, segments);
    for (int i = 0; i < CUC_SEGMENTS; i++)
        registers->segments[i] = (struct cuc_segment){
            segments[i].base, segments[i].limit, segments[i].access, (uint16_t)segments[i].selector};
    registers->is_long = read_flags(engine) & FLAG_LMA;
}

// The flags as the engine itself computes them when it loads segment registers.
static uint32_t flags_of(const struct cuc_system_registers *registers) {
    const struct cuc_segment *segments = registers->segments;
    bool is_protected = registers->cr0 & 1;
    uint32_t flags = (segments[CUC_SS].access >> 13 & FLAG_CPL) | (is_protected ? FLAG_PE : 0);
    if (registers->is_long) flags |= FLAG_LMA;
    if (registers->is_long && segments[CUC_CS].access & ACCESS_LONG) return flags | FLAG_CS32 | FLAG_SS32 | FLAG_CS64;
    if (segments[CUC_CS].access & ACCESS_BIG) flags |= FLAG_CS32;
    if (segments[CUC_SS].access & ACCESS_BIG) flags |= FLAG_SS32;
    bool is_flat = (segments[CUC_DS].base | segments[CUC_ES].base | segments[CUC_SS].base) == 0;
    return is_protected && flags & FLAG_CS32 && is_flat ? flags : flags | FLAG_ADDSEG;
}

bool engine_write_segments(struct engine *engine, const struct cuc_system_registers *registers) {
    if (engine->segments_at == 0) {
        engine->library->uc_reg_write(engine->uc, UC_X86_REG_FS_BASE, &registers->segments[CUC_FS].base);
        engine->library->uc_reg_write(engine->uc, UC_X86_REG_GS_BASE, &registers->segments[CUC_GS].base);
        return registers->is_long && registers->segments[CUC_CS].access & ACCESS_LONG;
    }
    engine->library->uc_context_save(engine->uc, engine->state);
    for (uint32_t i = 0; i < CUC_SEGMENTS; i++) {
        const struct cuc_segment *segment = &registers->segments[i];
        struct hidden_segment hidden = {
            .selector = segment->selector, .base = segment->base, .limit = segment->limit, .access = segment->access};
        memcpy(at(engine, engine->segments_at + i * sizeof hidden), &hidden, sizeof hidden);
    }
    uint32_t flags = (read_flags(engine) & ~(uint32_t)FLAGS_OF_MODE) | flags_of(registers);
    memcpy(at(engine, engine->segments_at - FLAGS_BEFORE_SEGMENTS), &flags, sizeof flags);
    engine->library->uc_context_restore(engine->uc, engine->state);
    return true;
}

void engine_learn_code(struct engine *engine) {
    engine->knows_code = true;
    engine->code_bits = 64;
    engine->code_base = 0;
    engine->ring = 0;
    if (engine->segments_at == 0) return;
    engine->library->uc_context_save(engine->uc, engine->state);
    uint32_t flags = read_flags(engine);
    engine->ring = flags & FLAG_CPL;
    if (flags & FLAG_CS64) return;
    struct hidden_segment segments[CUC_SEGMENTS];
    read_hidden(engine, segments);
    engine->code_bits = flags & FLAG_CS32 ? 32 : 16;
    engine->code_base = segments[CUC_CS].base;
}
