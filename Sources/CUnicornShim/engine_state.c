// SPDX-License-Identifier: MIT
// The memory mapped into the engine, and its registers.
#include "engine_state.h"

#include <string.h>

bool engine_map(
    struct engine *engine, uint64_t linear, uint64_t size, bool writable, bool executable, uint8_t *host) {
    if (engine->region_count == CUC_MAX_REGIONS) return false;
    uint32_t permissions = UC_PROT_READ | (writable ? UC_PROT_WRITE : 0) | (executable ? UC_PROT_EXEC : 0);
    if (engine->library->uc_mem_map_ptr(engine->uc, engine_address(engine, linear), size, permissions, host))
        return false;
    engine->regions[engine->region_count++] = (struct region){linear, size, permissions, host};
    return true;
}

void engine_unmap(struct engine *engine, uint64_t linear, uint64_t size) {
    engine->library->uc_mem_unmap(engine->uc, engine_address(engine, linear), size);
    for (uint32_t i = 0; i < engine->region_count; i++)
        if (engine->regions[i].linear == linear) {
            engine->regions[i] = engine->regions[--engine->region_count];
            break;
        }
    engine->code_page = NO_PAGE;
}

void engine_forget_code(struct engine *engine, uint64_t linear, uint64_t size) {
    // The end of the last page of the address space wraps to 0.
    uint64_t end = linear + size == 0 ? UINT64_MAX : linear + size;
    engine->library->uc_ctl(engine->uc, UC_CTL_WRITE_TB_REMOVE_CACHE, linear, end);
}

void engine_forget_touches(struct engine *engine) {
    memset(engine->seen, 0, sizeof engine->seen);
    engine->code_page = NO_PAGE;
}

void engine_read_registers(struct engine *engine, uint64_t *values) {
    memset(values, 0, CUC_REGISTERS * sizeof *values);
    for (int i = 0; i < CUC_REGISTERS; i++) engine->library->uc_reg_read(engine->uc, general_registers[i], &values[i]);
}

void engine_write_registers(struct engine *engine, const uint64_t *values) {
    for (int i = 0; i < CUC_REGISTERS; i++)
        engine->library->uc_reg_write(engine->uc, general_registers[i], &values[i]);
}

void engine_read_system(struct engine *engine, struct cuc_system_registers *registers) {
    const struct cuc_library *library = engine->library;
    struct table_register table = {0};
    memset(registers, 0, sizeof *registers);
    library->uc_reg_read(engine->uc, UC_X86_REG_CR0, &registers->cr0);
    library->uc_reg_read(engine->uc, UC_X86_REG_CR4, &registers->cr4);
    library->uc_reg_read(engine->uc, UC_X86_REG_GDTR, &table);
    registers->gdt_base = table.base;
    registers->gdt_limit = table.limit;
    library->uc_reg_read(engine->uc, UC_X86_REG_IDTR, &table);
    registers->idt_base = table.base;
    registers->idt_limit = table.limit;
    library->uc_reg_read(engine->uc, UC_X86_REG_TR, &table);
    registers->tr_base = table.base;
    registers->tr_limit = table.limit;
    registers->tr_selector = table.selector;
    engine_read_segments(engine, registers);
}

bool engine_write_system(struct engine *engine, const struct cuc_system_registers *registers) {
    const struct cuc_library *library = engine->library;
    struct table_register gdt = {0, registers->gdt_base, registers->gdt_limit, 0};
    struct table_register idt = {0, registers->idt_base, registers->idt_limit, 0};
    const uint32_t busy_tss = 0x8b00;
    struct table_register tr = {registers->tr_selector, registers->tr_base, registers->tr_limit, busy_tss};
    library->uc_reg_write(engine->uc, UC_X86_REG_CR0, &registers->cr0);
    library->uc_reg_write(engine->uc, UC_X86_REG_CR4, &registers->cr4);
    library->uc_reg_write(engine->uc, UC_X86_REG_GDTR, &gdt);
    library->uc_reg_write(engine->uc, UC_X86_REG_IDTR, &idt);
    library->uc_reg_write(engine->uc, UC_X86_REG_TR, &tr);
    return engine_write_segments(engine, registers);
}

void engine_reset_segments(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    uint16_t changed = 0;
    for (size_t i = 0; i < sizeof segment_registers / sizeof *segment_registers; i++) {
        uint16_t selector = 0;
        library->uc_reg_read(engine->uc, segment_registers[i], &selector);
        changed |= selector;  // all are 0 in a new engine
    }
    if (changed == 0) return;
    enum { COUNT = sizeof vector_registers / sizeof *vector_registers };
    uint8_t values[COUNT][16] = {{0}};
    for (int i = 0; i < COUNT; i++) library->uc_reg_read(engine->uc, vector_registers[i], values[i]);
    library->uc_context_restore(engine->uc, engine->fresh);
    for (int i = 0; i < COUNT; i++) library->uc_reg_write(engine->uc, vector_registers[i], values[i]);
}
