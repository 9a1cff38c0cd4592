#include "privileged.h"
#include "unicorn_library.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SEEN 1024u
#define FETCHED 4096u
#define NO_PAGE UINT64_MAX

struct region {
    uint64_t linear, size;
    uint8_t *host;
};
struct cuc_cpu {
    const struct cuc_library *library;
    uc_engine *engine;
    uc_context *saved;
    const uint8_t *immediate_exit;  // written by who kicks, on any thread

    uint64_t executed, limit;
    enum cuc_stop stop;  // 0 while running
    struct cuc_access fault;
    uint32_t exception, error;

    // The access of the current instruction that crosses a page, and what was in memory before it: the engine
    // does it in pieces, and reports a refused piece only.
    struct cuc_access crossing;
    uint8_t before[2][8];
    uint32_t before_size[2];

    bool careful;
    uint32_t inner_reads;  // pieces of a crossing read still to come
    uint32_t log_count;
    struct cuc_access log[CUC_MAX_LOG];

    // Pages whose touch was noted, by kind: page number + 1, direct mapped.
    uint64_t seen[3][SEEN];
    uint32_t touch_count;
    struct cuc_touch touches[CUC_MAX_TOUCHES];

    // Host pages that were fetched from, as a filter: a first write to one of them ends the run, for the caller to
    // see whether translated code became stale. The engine itself sees only writes through the code's own address.
    uint64_t fetched[FETCHED / 64];
    bool wrote_to_code;

    uint64_t rip;               // of the instruction that was begun last
    uint64_t code_page;         // the linear page that it came from
    const uint8_t *code_bytes;  // its bytes
    uint32_t region_count;
    struct region regions[CUC_MAX_REGIONS];
};

// From 2.1 on, an engine without paging numbers the upper half of the address space with 52 bits.
static uint64_t engine_address(const struct cuc_cpu *cpu, uint64_t linear) {
    return cpu->library->version >= 0x20100 ? linear & ((UINT64_C(1) << 52) - 1) : linear;
}
static uint64_t linear_address(uint64_t number) {
    return number >> 47 == 0x1f ? number | UINT64_C(0xfff) << 52 : number;
}

static void stop(struct cuc_cpu *cpu, enum cuc_stop why) {
    if (cpu->stop == 0) cpu->stop = why;
    cpu->library->uc_emu_stop(cpu->engine);
}

static const uint8_t *host_bytes(const struct cuc_cpu *cpu, uint64_t address) {
    for (uint32_t i = 0; i < cpu->region_count; i++)
        if (address - cpu->regions[i].linear < cpu->regions[i].size)
            return cpu->regions[i].host + (address - cpu->regions[i].linear);
    return NULL;
}

static uint64_t *seen_entry(struct cuc_cpu *cpu, uint64_t address, uint32_t kind) {
    return &cpu->seen[kind][address / PAGE % SEEN];
}

static void first_touch(struct cuc_cpu *cpu, uint64_t page, uint32_t kind) {
    uint64_t host = (uintptr_t)host_bytes(cpu, page * PAGE) / PAGE % FETCHED;
    uint64_t bit = UINT64_C(1) << host % 64;
    if (kind == CUC_TOUCH_FETCH) {
        cpu->fetched[host / 64] |= bit;
        memset(cpu->seen[CUC_TOUCH_WRITE], 0, sizeof cpu->seen[CUC_TOUCH_WRITE]);
    } else if (kind == CUC_TOUCH_WRITE && cpu->fetched[host / 64] & bit) {
        cpu->wrote_to_code = true;
    }
    cpu->touches[cpu->touch_count++] = (struct cuc_touch){page * PAGE, kind};
}

static void touch(struct cuc_cpu *cpu, uint64_t address, uint32_t kind) {
    uint64_t page = address / PAGE, *seen = seen_entry(cpu, address, kind);
    // A run ends before the list is full: the code hook looks, and one instruction touches few pages.
    if (*seen == page + 1 || cpu->touch_count == CUC_MAX_TOUCHES) return;
    *seen = page + 1;
    first_touch(cpu, page, kind);
}

static void on_code(uc_engine *engine, uint64_t address, uint32_t size, void *context) {
    struct cuc_cpu *cpu = context;
    if (cpu->stop != 0) {
        cpu->library->uc_emu_stop(engine);
        return;
    }
    // What was fetched is noted even if it is not executed: the engine has translated it.
    if (address / PAGE != cpu->code_page) {
        cpu->code_page = address / PAGE;
        cpu->code_bytes = host_bytes(cpu, address & ~(uint64_t)(PAGE - 1));
        touch(cpu, address, CUC_TOUCH_FETCH);
    }
    // What is being completed is completed, kicked or not.
    if (__atomic_load_n(cpu->immediate_exit, __ATOMIC_RELAXED) && !cpu->careful) return stop(cpu, CUC_STOP_KICK);
    if (cpu->executed == cpu->limit) return stop(cpu, CUC_STOP_LIMIT);
    if (cpu->wrote_to_code || cpu->touch_count > CUC_MAX_TOUCHES - 32) return stop(cpu, CUC_STOP_NOTES);
    cpu->rip = address;
    cpu->crossing.size = 0;
    cpu->inner_reads = 0;
    // The engine gives no size for an instruction that it does not know; VMCALL is one.
    if (size > 15) size = 15;
    uint8_t copy[15];
    const uint8_t *bytes = cpu->code_bytes ? cpu->code_bytes + address % PAGE : copy;
    if (cpu->code_bytes == NULL || address % PAGE + size > PAGE) {
        touch(cpu, address + size - 1, CUC_TOUCH_FETCH);
        uint32_t first = PAGE - address % PAGE < size ? (uint32_t)(PAGE - address % PAGE) : size;
        memset(copy, 0, sizeof copy);
        cpu->library->uc_mem_read(engine, engine_address(cpu, address), copy, first);
        if (first < size)
            cpu->library->uc_mem_read(engine, engine_address(cpu, address + first), copy + first, size - first);
        bytes = copy;
    }
    // Most instructions begin with REX or an ordinary opcode, and are done with here.
    uint8_t opcode = (bytes[0] & 0xf0) == 0x40 && size > 1 ? bytes[1] : bytes[0];
    if (cuc_wants_a_look[opcode] && cuc_is_privileged(bytes, size)) return stop(cpu, CUC_STOP_PRIVILEGED);
    cpu->executed++;
}

static void keep_what_is_there(struct cuc_cpu *cpu, uint64_t address, uint32_t size) {
    uint32_t first = PAGE - (uint32_t)(address % PAGE);
    uint32_t sizes[2] = {first, size - first};
    for (int part = 0; part < 2; part++) {
        uint64_t start = engine_address(cpu, address + (part ? first : 0));
        bool there = sizes[part] <= 8
            && cpu->library->uc_mem_read(cpu->engine, start, cpu->before[part], sizes[part]) == UC_ERR_OK;
        cpu->before_size[part] = there ? sizes[part] : 0;
    }
}

static void put_back(struct cuc_cpu *cpu) {
    if (cpu->crossing.size == 0 || !cpu->crossing.is_write) return;
    uint64_t second = (cpu->crossing.address | (PAGE - 1)) + 1;
    if (cpu->before_size[0])
        cpu->library->uc_mem_write(
            cpu->engine, engine_address(cpu, cpu->crossing.address), cpu->before[0], cpu->before_size[0]);
    if (cpu->before_size[1])
        cpu->library->uc_mem_write(
            cpu->engine, engine_address(cpu, second), cpu->before[1], cpu->before_size[1]);
    cpu->crossing.size = 0;
}

static void on_memory(uc_engine *engine, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)engine;
    struct cuc_cpu *cpu = context;
    if (cpu->stop != 0) return;
    struct cuc_access access = {
        linear_address(number), (uint64_t)value, (uint32_t)size, type == UC_MEM_WRITE, 0};
    touch(cpu, access.address, access.is_write);
    bool inner = !access.is_write && cpu->inner_reads > 0;
    if (inner) cpu->inner_reads--;
    if (access.address % PAGE + access.size > PAGE) {
        touch(cpu, access.address + access.size - 1, access.is_write);
        cpu->crossing = access;
        if (access.is_write) keep_what_is_there(cpu, access.address, access.size);
        else cpu->inner_reads = 2;
    }
    if (cpu->careful && !inner) {
        if (cpu->log_count < CUC_MAX_LOG) cpu->log[cpu->log_count] = access;
        cpu->log_count++;
    }
}

static bool on_refused(uc_engine *engine, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)engine;
    struct cuc_cpu *cpu = context;
    if (cpu->stop != 0) return false;
    cpu->stop = CUC_STOP_MEMORY;
    cpu->fault = (struct cuc_access){
        linear_address(number), (uint64_t)value, (uint32_t)size,
        type == UC_MEM_WRITE_UNMAPPED || type == UC_MEM_WRITE_PROT,
        type == UC_MEM_FETCH_UNMAPPED || type == UC_MEM_FETCH_PROT};
    // The second piece of an access that crosses a page: say what the instruction meant.
    struct cuc_access *crossing = &cpu->crossing;
    if (crossing->size != 0 && !cpu->fault.is_fetch && crossing->is_write == cpu->fault.is_write
        && cpu->fault.address / PAGE == (crossing->address + crossing->size - 1) / PAGE)
        cpu->fault = *crossing;
    // The engine may have announced it before it looked: nothing was touched.
    if (!cpu->fault.is_fetch) {
        *seen_entry(cpu, cpu->fault.address, cpu->fault.is_write) = 0;
        *seen_entry(cpu, cpu->fault.address + cpu->fault.size - 1, cpu->fault.is_write) = 0;
    }
    return false;
}

static void on_exception(uc_engine *engine, uint32_t number, void *context) {
    (void)engine;
    struct cuc_cpu *cpu = context;
    cpu->exception = number;
    stop(cpu, CUC_STOP_EXCEPTION);
}

static bool on_invalid_instruction(uc_engine *engine, void *context) {
    (void)engine;
    struct cuc_cpu *cpu = context;
    if (cpu->stop == 0) {
        cpu->stop = CUC_STOP_EXCEPTION;
        cpu->exception = 6;
    }
    return false;
}

struct cuc_cpu *cuc_cpu_create(const struct cuc_library *library, const uint8_t *immediate_exit) {
    struct cuc_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return NULL;
    cpu->library = library;
    cpu->immediate_exit = immediate_exit;
    cpu->code_page = NO_PAGE;
    if (library->uc_open(UC_ARCH_X86, UC_MODE_64, &cpu->engine) != UC_ERR_OK) {
        free(cpu);
        return NULL;
    }
    size_t hook;
    int failed = library->uc_context_alloc(cpu->engine, &cpu->saved);
#define HOOK(type, function) failed |= library->uc_hook_add(cpu->engine, &hook, type, (void *)function, cpu, 1, 0)
    HOOK(UC_HOOK_CODE, on_code);
    HOOK(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, on_memory);
    HOOK(UC_HOOK_MEM_INVALID, on_refused);
    HOOK(UC_HOOK_INTR, on_exception);
    HOOK(UC_HOOK_INSN_INVALID, on_invalid_instruction);
#undef HOOK
    if (failed != UC_ERR_OK) {
        cuc_cpu_destroy(cpu);
        return NULL;
    }
    return cpu;
}

void cuc_cpu_destroy(struct cuc_cpu *cpu) {
    if (cpu->saved) cpu->library->uc_context_free(cpu->saved);
    cpu->library->uc_close(cpu->engine);
    free(cpu);
}

enum cuc_stop cuc_run(struct cuc_cpu *cpu, uint64_t rip, uint64_t limit) {
    cpu->executed = 0;
    cpu->limit = limit;
    cpu->stop = 0;
    cpu->fault = (struct cuc_access){0};
    cpu->rip = rip;
    cpu->crossing.size = 0;
    cpu->log_count = 0;
    int error = cpu->library->uc_emu_start(cpu->engine, rip, UINT64_MAX, 0, 0);
    if (cpu->stop == 0) {
        cpu->stop = CUC_STOP_ERROR;
        cpu->error = (uint32_t)error;
    } else if (cpu->stop == CUC_STOP_MEMORY || cpu->stop == CUC_STOP_EXCEPTION) {
        // The instruction was counted and then not done.
        bool was_counted = cpu->stop == CUC_STOP_EXCEPTION || !cpu->fault.is_fetch;
        if (was_counted && cpu->executed > 0) cpu->executed--;
        if (cpu->stop == CUC_STOP_MEMORY) put_back(cpu);
        // Some exceptions are reported with RIP after the instruction.
        if (cpu->stop == CUC_STOP_EXCEPTION)
            cpu->library->uc_reg_write(cpu->engine, UC_X86_REG_RIP, &cpu->rip);
    }
    return cpu->stop;
}

uint64_t cuc_executed(const struct cuc_cpu *cpu) { return cpu->executed; }
struct cuc_access cuc_fault(const struct cuc_cpu *cpu) { return cpu->fault; }
uint32_t cuc_exception(const struct cuc_cpu *cpu) { return cpu->exception; }
uint32_t cuc_error(const struct cuc_cpu *cpu) { return cpu->error; }

bool cuc_map(
    struct cuc_cpu *cpu, uint64_t linear, uint64_t size, bool writable, bool executable, void *host) {
    if (cpu->region_count == CUC_MAX_REGIONS) return false;
    uint32_t permissions = UC_PROT_READ | (writable ? UC_PROT_WRITE : 0) | (executable ? UC_PROT_EXEC : 0);
    if (cpu->library->uc_mem_map_ptr(cpu->engine, engine_address(cpu, linear), size, permissions, host))
        return false;
    cpu->regions[cpu->region_count++] = (struct region){linear, size, host};
    return true;
}

void cuc_unmap(struct cuc_cpu *cpu, uint64_t linear, uint64_t size) {
    cpu->library->uc_mem_unmap(cpu->engine, engine_address(cpu, linear), size);
    for (uint32_t i = 0; i < cpu->region_count; i++)
        if (cpu->regions[i].linear == linear) {
            cpu->regions[i] = cpu->regions[--cpu->region_count];
            break;
        }
    cpu->code_page = NO_PAGE;
}

void cuc_forget_code(struct cuc_cpu *cpu, uint64_t linear, uint64_t size) {
    cpu->library->uc_ctl(cpu->engine, UC_CTL_WRITE_TB_REMOVE_CACHE, linear, linear + size);
}

uint32_t cuc_take_touches(struct cuc_cpu *cpu, struct cuc_touch *to) {
    uint32_t count = cpu->touch_count;
    memcpy(to, cpu->touches, count * sizeof *to);
    cpu->touch_count = 0;
    cpu->wrote_to_code = false;
    return count;
}

void cuc_forget_touches(struct cuc_cpu *cpu) {
    memset(cpu->seen, 0, sizeof cpu->seen);
    cpu->code_page = NO_PAGE;
}

void cuc_set_careful(struct cuc_cpu *cpu, bool careful) { cpu->careful = careful; }
uint32_t cuc_log_count(const struct cuc_cpu *cpu) { return cpu->log_count; }
struct cuc_access cuc_log(const struct cuc_cpu *cpu, uint32_t index) {
    return index < CUC_MAX_LOG ? cpu->log[index] : (struct cuc_access){0};
}

bool cuc_save(struct cuc_cpu *cpu) {
    return cpu->library->uc_context_save(cpu->engine, cpu->saved) == UC_ERR_OK;
}

void cuc_restore(struct cuc_cpu *cpu) {
    cpu->library->uc_context_restore(cpu->engine, cpu->saved);
    put_back(cpu);
}

void cuc_read_registers(struct cuc_cpu *cpu, uint64_t *values) {
    memset(values, 0, CUC_REGISTERS * sizeof *values);
    for (int i = 0; i < CUC_REGISTERS; i++) cpu->library->uc_reg_read(cpu->engine, general_registers[i], &values[i]);
}

void cuc_write_registers(struct cuc_cpu *cpu, const uint64_t *values) {
    for (int i = 0; i < CUC_REGISTERS; i++)
        cpu->library->uc_reg_write(cpu->engine, general_registers[i], &values[i]);
}

void cuc_read_system(struct cuc_cpu *cpu, struct cuc_system_registers *registers) {
    const struct cuc_library *library = cpu->library;
    struct table_register table = {0};
    memset(registers, 0, sizeof *registers);
    library->uc_reg_read(cpu->engine, UC_X86_REG_CR0, &registers->cr0);
    library->uc_reg_read(cpu->engine, UC_X86_REG_CR4, &registers->cr4);
    library->uc_reg_read(cpu->engine, UC_X86_REG_FS_BASE, &registers->fs_base);
    library->uc_reg_read(cpu->engine, UC_X86_REG_GS_BASE, &registers->gs_base);
    library->uc_reg_read(cpu->engine, UC_X86_REG_GDTR, &table);
    registers->gdt_base = table.base;
    registers->gdt_limit = table.limit;
    library->uc_reg_read(cpu->engine, UC_X86_REG_IDTR, &table);
    registers->idt_base = table.base;
    registers->idt_limit = table.limit;
}

void cuc_write_system(struct cuc_cpu *cpu, const struct cuc_system_registers *registers) {
    const struct cuc_library *library = cpu->library;
    struct table_register gdt = {0, registers->gdt_base, registers->gdt_limit, 0};
    struct table_register idt = {0, registers->idt_base, registers->idt_limit, 0};
    library->uc_reg_write(cpu->engine, UC_X86_REG_CR0, &registers->cr0);
    library->uc_reg_write(cpu->engine, UC_X86_REG_CR4, &registers->cr4);
    library->uc_reg_write(cpu->engine, UC_X86_REG_FS_BASE, &registers->fs_base);
    library->uc_reg_write(cpu->engine, UC_X86_REG_GS_BASE, &registers->gs_base);
    library->uc_reg_write(cpu->engine, UC_X86_REG_GDTR, &gdt);
    library->uc_reg_write(cpu->engine, UC_X86_REG_IDTR, &idt);
}
