#define _GNU_SOURCE
#include "engine.h"

#include "code_memory.h"
#include "decode.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SEEN 1024u
#define FETCHED 4096u
#define MEASURE_EVERY 16384u
#define NO_PAGE UINT64_MAX
#define INVALID_OPCODE 6  // #UD
#define DOUBLE_FAULT 8
// Why the hooks stopped the engine, beside what they tell the monitor: to go on at once.
#define STOP_RENEW ((enum cuc_stop)100)
#define STOP_STEP ((enum cuc_stop)101)

struct region {
    uint64_t linear, size;
    uint32_t permissions;  // UC_PROT_*
    uint8_t *host;
};
struct engine {
    const struct cuc_library *library;
    uc_engine *uc;
    uc_context *saved;  // before a careful run
    uc_context *moved;  // from one engine to the next
    uc_context *fresh;  // as it was opened
    struct cuc_channel *channel;

    uint64_t limit;
    enum cuc_stop stop;  // 0 while running
    struct cuc_access fault;
    uint32_t exception;

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

    // Code that the engine cannot translate makes it abort. From then on it is given one instruction at a time
    // (`is_stepping`), which tells the one at fault: the abort that happens before any instruction was begun.
    sigjmp_buf escape;
    bool is_stepping;
    bool has_begun;  // an instruction, since the engine was last started

    struct code_memory memory;  // what the engine's translations take
    uint32_t until_measured;    // instructions until it is looked at again

    uint64_t code_page;         // the linear page that the last instruction came from
    const uint8_t *code_bytes;  // its bytes
    uint32_t region_count;
    struct region regions[CUC_MAX_REGIONS];
};

// The engine that runs, for the handler of SIGABRT.
static struct engine *running;

// From 2.1 on, an engine without paging numbers the upper half of the address space with 52 bits.
static uint64_t engine_address(const struct engine *engine, uint64_t linear) {
    return engine->library->version >= 0x20100 ? linear & ((UINT64_C(1) << 52) - 1) : linear;
}
static uint64_t linear_address(uint64_t number) {
    return number >> 47 == 0x1f ? number | UINT64_C(0xfff) << 52 : number;
}

static void stop(struct engine *engine, enum cuc_stop why) {
    if (engine->stop == 0) engine->stop = why;
    engine->library->uc_emu_stop(engine->uc);
}

static const uint8_t *host_bytes(const struct engine *engine, uint64_t address) {
    for (uint32_t i = 0; i < engine->region_count; i++)
        if (address - engine->regions[i].linear < engine->regions[i].size)
            return engine->regions[i].host + (address - engine->regions[i].linear);
    return NULL;
}

static uint64_t *seen_entry(struct engine *engine, uint64_t address, uint32_t kind) {
    return &engine->seen[kind][address / PAGE % SEEN];
}

static void first_touch(struct engine *engine, uint64_t page, uint32_t kind) {
    uint64_t host = (uintptr_t)host_bytes(engine, page * PAGE) / PAGE % FETCHED;
    uint64_t bit = UINT64_C(1) << host % 64;
    if (kind == CUC_TOUCH_FETCH) {
        engine->fetched[host / 64] |= bit;
        memset(engine->seen[CUC_TOUCH_WRITE], 0, sizeof engine->seen[CUC_TOUCH_WRITE]);
    } else if (kind == CUC_TOUCH_WRITE && engine->fetched[host / 64] & bit) {
        engine->wrote_to_code = true;
    }
    engine->touches[engine->touch_count++] = (struct cuc_touch){page * PAGE, kind};
}

static void touch(struct engine *engine, uint64_t address, uint32_t kind) {
    uint64_t page = address / PAGE, *seen = seen_entry(engine, address, kind);
    // A run ends before the list is full: the code hook looks, and one instruction touches few pages.
    if (*seen == page + 1 || engine->touch_count == CUC_MAX_TOUCHES) return;
    *seen = page + 1;
    first_touch(engine, page, kind);
}

static void on_code(uc_engine *uc, uint64_t address, uint32_t size, void *context) {
    struct engine *engine = context;
    struct cuc_channel *channel = engine->channel;
    if (engine->stop != 0) {
        engine->library->uc_emu_stop(uc);
        return;
    }
    // What was fetched is noted even if it is not executed: the engine has translated it.
    if (address / PAGE != engine->code_page) {
        engine->code_page = address / PAGE;
        engine->code_bytes = host_bytes(engine, address & ~(uint64_t)(PAGE - 1));
        touch(engine, address, CUC_TOUCH_FETCH);
    }
    // A pending instruction is finished even if a kick has arrived.
    if (__atomic_load_n(&channel->kick, __ATOMIC_RELAXED) && !engine->careful) return stop(engine, CUC_STOP_KICK);
    if (channel->live_executed == engine->limit) return stop(engine, CUC_STOP_LIMIT);
    if (engine->wrote_to_code || engine->touch_count > CUC_MAX_TOUCHES - 32) return stop(engine, CUC_STOP_NOTES);
    if (--engine->until_measured == 0) {
        engine->until_measured = MEASURE_EVERY;
        if (code_memory_is_full(&engine->memory)) return stop(engine, STOP_RENEW);
    }
    if (engine->is_stepping && engine->has_begun) return stop(engine, STOP_STEP);
    engine->has_begun = true;
    channel->live_rip = address;
    engine->crossing.size = 0;
    engine->inner_reads = 0;
    // The engine gives no size for an instruction that it does not know; VMCALL is one.
    if (size > 15) size = 15;
    uint8_t copy[15];
    const uint8_t *bytes = engine->code_bytes ? engine->code_bytes + address % PAGE : copy;
    if (engine->code_bytes == NULL || address % PAGE + size > PAGE) {
        touch(engine, address + size - 1, CUC_TOUCH_FETCH);
        uint32_t first = PAGE - address % PAGE < size ? (uint32_t)(PAGE - address % PAGE) : size;
        memset(copy, 0, sizeof copy);
        engine->library->uc_mem_read(uc, engine_address(engine, address), copy, first);
        if (first < size)
            engine->library->uc_mem_read(uc, engine_address(engine, address + first), copy + first, size - first);
        bytes = copy;
    }
    // Most instructions begin with REX or an ordinary opcode, and are done with here.
    uint8_t opcode = (bytes[0] & 0xf0) == 0x40 && size > 1 ? bytes[1] : bytes[0];
    if (!cuc_wants_a_look[opcode]) {
        channel->live_executed++;
    } else if (cuc_is_privileged(bytes, size)) {
        stop(engine, CUC_STOP_PRIVILEGED);
    } else {
        channel->live_executed++;
        if (cuc_is_undefined(bytes, size)) {
            engine->exception = INVALID_OPCODE;
            stop(engine, CUC_STOP_EXCEPTION);
        }
    }
}

static void keep_what_is_there(struct engine *engine, uint64_t address, uint32_t size) {
    uint32_t first = PAGE - (uint32_t)(address % PAGE);
    uint32_t sizes[2] = {first, size - first};
    for (int part = 0; part < 2; part++) {
        uint64_t start = engine_address(engine, address + (part ? first : 0));
        bool there = sizes[part] <= 8
            && engine->library->uc_mem_read(engine->uc, start, engine->before[part], sizes[part]) == UC_ERR_OK;
        engine->before_size[part] = there ? sizes[part] : 0;
    }
}

static void put_back(struct engine *engine) {
    if (engine->crossing.size == 0 || !engine->crossing.is_write) return;
    uint64_t second = (engine->crossing.address | (PAGE - 1)) + 1;
    if (engine->before_size[0])
        engine->library->uc_mem_write(
            engine->uc, engine_address(engine, engine->crossing.address), engine->before[0], engine->before_size[0]);
    if (engine->before_size[1])
        engine->library->uc_mem_write(
            engine->uc, engine_address(engine, second), engine->before[1], engine->before_size[1]);
    engine->crossing.size = 0;
}

static void on_memory(uc_engine *uc, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop != 0) return;
    struct cuc_access access = {
        linear_address(number), (uint64_t)value, (uint32_t)size, type == UC_MEM_WRITE, 0};
    touch(engine, access.address, access.is_write);
    bool inner = !access.is_write && engine->inner_reads > 0;
    if (inner) engine->inner_reads--;
    if (access.address % PAGE + access.size > PAGE) {
        touch(engine, access.address + access.size - 1, access.is_write);
        engine->crossing = access;
        if (access.is_write) keep_what_is_there(engine, access.address, access.size);
        else engine->inner_reads = 2;
    }
    if (engine->careful && !inner) {
        if (engine->log_count < CUC_MAX_LOG) engine->log[engine->log_count] = access;
        engine->log_count++;
    }
}

static bool on_refused(uc_engine *uc, int type, uint64_t number, int size, int64_t value, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop != 0) return false;
    engine->stop = CUC_STOP_MEMORY;
    engine->fault = (struct cuc_access){
        linear_address(number), (uint64_t)value, (uint32_t)size,
        type == UC_MEM_WRITE_UNMAPPED || type == UC_MEM_WRITE_PROT,
        type == UC_MEM_FETCH_UNMAPPED || type == UC_MEM_FETCH_PROT};
    // The second piece of an access that crosses a page: say what the instruction meant.
    struct cuc_access *crossing = &engine->crossing;
    if (crossing->size != 0 && !engine->fault.is_fetch && crossing->is_write == engine->fault.is_write
        && engine->fault.address / PAGE == (crossing->address + crossing->size - 1) / PAGE)
        engine->fault = *crossing;
    // The engine may have announced it before it looked: nothing was touched.
    if (!engine->fault.is_fetch) {
        *seen_entry(engine, engine->fault.address, engine->fault.is_write) = 0;
        *seen_entry(engine, engine->fault.address + engine->fault.size - 1, engine->fault.is_write) = 0;
    }
    return false;
}

static void on_exception(uc_engine *uc, uint32_t number, void *context) {
    (void)uc;
    struct engine *engine = context;
    engine->exception = number;
    stop(engine, CUC_STOP_EXCEPTION);
}

static bool on_invalid_instruction(uc_engine *uc, void *context) {
    (void)uc;
    struct engine *engine = context;
    if (engine->stop == 0) {
        engine->stop = CUC_STOP_EXCEPTION;
        engine->exception = INVALID_OPCODE;
    }
    return false;
}

static void on_abort(int signal) {
    (void)signal;
    if (running) siglongjmp(running->escape, 1);
}

// Opens the engine itself, which allocates its buffer of translations at the first call.
static bool open_uc(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    if (library->uc_open(UC_ARCH_X86, UC_MODE_64, &engine->uc) != UC_ERR_OK) return false;
    size_t hook;
    int failed = 0;
#define HOOK(type, function) failed |= library->uc_hook_add(engine->uc, &hook, type, (void *)function, engine, 1, 0)
    HOOK(UC_HOOK_CODE, on_code);
    HOOK(UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, on_memory);
    HOOK(UC_HOOK_MEM_INVALID, on_refused);
    HOOK(UC_HOOK_INTR, on_exception);
    HOOK(UC_HOOK_INSN_INVALID, on_invalid_instruction);
#undef HOOK
    uint64_t registers[CUC_REGISTERS];
    engine_read_registers(engine, registers);
    code_memory_find(&engine->memory);
    return failed == UC_ERR_OK;
}

struct engine *engine_open(const struct cuc_library *library, struct cuc_channel *channel) {
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return NULL;
    engine->library = library;
    engine->channel = channel;
    engine->code_page = NO_PAGE;
    engine->until_measured = MEASURE_EVERY;
    code_memory_open(&engine->memory);
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = SA_NODEFER};
    bool is_open = open_uc(engine) && library->uc_context_alloc(engine->uc, &engine->saved) == UC_ERR_OK
        && library->uc_context_alloc(engine->uc, &engine->moved) == UC_ERR_OK
        && library->uc_context_alloc(engine->uc, &engine->fresh) == UC_ERR_OK
        && library->uc_context_save(engine->uc, engine->fresh) == UC_ERR_OK && sigaction(SIGABRT, &action, NULL) == 0;
    return is_open ? engine : NULL;
}

// Goes on with a new engine, which has no translations yet: the old one's were too many, or it has aborted. (To have it
// forget them by UC_CTL_TB_FLUSH takes seconds in 2.0.1.)
static bool renew(struct engine *engine, bool has_aborted) {
    const struct cuc_library *library = engine->library;
    library->uc_context_save(engine->uc, engine->moved);
    if (!has_aborted) library->uc_close(engine->uc);
    code_memory_release(&engine->memory);
    if (!open_uc(engine)) return false;
    library->uc_context_restore(engine->uc, engine->moved);
    for (uint32_t i = 0; i < engine->region_count; i++) {
        const struct region *region = &engine->regions[i];
        if (library->uc_mem_map_ptr(
                engine->uc, engine_address(engine, region->linear), region->size, region->permissions, region->host))
            return false;
    }
    if (engine->is_stepping) library->uc_ctl(engine->uc, UC_CTL_WRITE_UC_USE_EXITS, 1);
    return true;
}

static uint64_t read_rip(const struct engine *engine) {
    uint64_t rip = 0;
    engine->library->uc_reg_read(engine->uc, UC_X86_REG_RIP, &rip);
    return rip;
}

// Ends blocks after their first instruction, whose length is at most 15 bytes.
static void end_blocks_after(struct engine *engine, uint64_t rip) {
    uint64_t exits[CUC_MAX_CODE];
    for (uint32_t i = 0; i < CUC_MAX_CODE; i++) exits[i] = engine_address(engine, rip + i + 1);
    engine->library->uc_ctl(engine->uc, UC_CTL_WRITE_UC_EXITS, exits, (size_t)CUC_MAX_CODE);
}

// The bytes at RIP, as many as can be read.
static uint32_t read_code(const struct engine *engine, uint64_t rip, uint8_t *bytes) {
    for (uint32_t i = 0; i < CUC_MAX_CODE; i++) {
        const uint8_t *byte = host_bytes(engine, rip + i);
        if (byte == NULL) return i;
        bytes[i] = *byte;
    }
    return CUC_MAX_CODE;
}

// The engine aborted. Returns true if it is worth another try, one instruction at a time.
static bool recover(struct engine *engine, struct cuc_answer *answer) {
    running = NULL;
    uint64_t rip = read_rip(engine);
    engine->channel->live_rip = rip;
    if (engine->stop != 0) return false;  // in our own hooks' wake: what they noted stands
    if (engine->is_stepping && !engine->has_begun) {
        answer->code_size = read_code(engine, rip, answer->code);
        // The abort that has a cause in the instruction set: the processor has no such instruction.
        bool is_undefined = cuc_is_undefined(answer->code, answer->code_size);
        engine->stop = is_undefined ? CUC_STOP_EXCEPTION : CUC_STOP_ENGINE_FAILED;
        engine->exception = INVALID_OPCODE;
        return false;
    }
    engine->is_stepping = true;
    return renew(engine, true);
}

// Runs until a hook says why to stop, or the engine by itself.
static int start(struct engine *engine, struct cuc_answer *answer) {
    for (;;) {
        uint64_t rip = read_rip(engine);
        engine->has_begun = false;
        if (engine->is_stepping) end_blocks_after(engine, rip);
        int error = UC_ERR_OK;
        if (sigsetjmp(engine->escape, 1) == 0) {
            running = engine;
            error = engine->library->uc_emu_start(engine->uc, rip, UINT64_MAX, 0, 0);
            running = NULL;
        } else if (!recover(engine, answer)) {
            return CUC_ERROR_ABORTED;
        } else {
            continue;
        }
        if (engine->stop == STOP_RENEW && !renew(engine, false)) {
            engine->stop = 0;
            return CUC_ERROR_ABORTED;
        }
        // The end of a block that was cut, which no hook sees.
        bool is_cut = engine->stop == 0 && engine->is_stepping && read_rip(engine) - rip - 1 < CUC_MAX_CODE;
        bool goes_on = engine->stop == STOP_RENEW || engine->stop == STOP_STEP || is_cut;
        if (error != UC_ERR_OK || !goes_on) return error;
        engine->stop = 0;
    }
}

void engine_run(struct engine *engine, uint64_t limit, bool careful, struct cuc_answer *answer) {
    struct cuc_channel *channel = engine->channel;
    channel->live_executed = 0;
    channel->live_rip = read_rip(engine);
    engine->limit = limit;
    engine->careful = careful;
    engine->stop = 0;
    engine->fault = (struct cuc_access){0};
    engine->crossing.size = 0;
    engine->log_count = 0;
    answer->code_size = 0;
    if (careful) engine->library->uc_context_save(engine->uc, engine->saved);
    answer->error = start(engine, answer);
    if (engine->stop == 0 && answer->error == UC_ERR_OK && engine->has_begun) {
        // The engine ends in silence at a triple fault. It takes an exception for one if an earlier one was left to us.
        engine->stop = CUC_STOP_EXCEPTION;
        engine->exception = DOUBLE_FAULT;
    }
    if (engine->stop == 0) {
        engine->stop = CUC_STOP_ENGINE_FAILED;
        answer->code_size = read_code(engine, read_rip(engine), answer->code);
    } else if (engine->stop == CUC_STOP_MEMORY || engine->stop == CUC_STOP_EXCEPTION) {
        // The instruction was counted and then not done.
        bool was_counted = engine->stop == CUC_STOP_EXCEPTION || !engine->fault.is_fetch;
        if (was_counted && channel->live_executed > 0) channel->live_executed--;
        if (engine->stop == CUC_STOP_MEMORY) put_back(engine);
        // Some exceptions are reported with RIP after the instruction.
        if (engine->stop == CUC_STOP_EXCEPTION)
            engine->library->uc_reg_write(engine->uc, UC_X86_REG_RIP, &channel->live_rip);
    }
    answer->stop = engine->stop;
    answer->exception = engine->exception;
    answer->fault = engine->fault;
    answer->executed = channel->live_executed;
    answer->log_count = engine->log_count;
    memcpy(answer->log, engine->log, sizeof answer->log);
    answer->touch_count = engine->touch_count;
    memcpy(answer->touches, engine->touches, engine->touch_count * sizeof *answer->touches);
    engine->touch_count = 0;
    engine->wrote_to_code = false;
}

void engine_restore(struct engine *engine) {
    engine->library->uc_context_restore(engine->uc, engine->saved);
    put_back(engine);
}

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
    engine->library->uc_ctl(engine->uc, UC_CTL_WRITE_TB_REMOVE_CACHE, linear, linear + size);
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
    library->uc_reg_read(engine->uc, UC_X86_REG_FS_BASE, &registers->fs_base);
    library->uc_reg_read(engine->uc, UC_X86_REG_GS_BASE, &registers->gs_base);
    library->uc_reg_read(engine->uc, UC_X86_REG_GDTR, &table);
    registers->gdt_base = table.base;
    registers->gdt_limit = table.limit;
    library->uc_reg_read(engine->uc, UC_X86_REG_IDTR, &table);
    registers->idt_base = table.base;
    registers->idt_limit = table.limit;
}

void engine_write_system(struct engine *engine, const struct cuc_system_registers *registers) {
    const struct cuc_library *library = engine->library;
    struct table_register gdt = {0, registers->gdt_base, registers->gdt_limit, 0};
    struct table_register idt = {0, registers->idt_base, registers->idt_limit, 0};
    library->uc_reg_write(engine->uc, UC_X86_REG_CR0, &registers->cr0);
    library->uc_reg_write(engine->uc, UC_X86_REG_CR4, &registers->cr4);
    library->uc_reg_write(engine->uc, UC_X86_REG_FS_BASE, &registers->fs_base);
    library->uc_reg_write(engine->uc, UC_X86_REG_GS_BASE, &registers->gs_base);
    library->uc_reg_write(engine->uc, UC_X86_REG_GDTR, &gdt);
    library->uc_reg_write(engine->uc, UC_X86_REG_IDTR, &idt);
}

void engine_reset_segments(struct engine *engine) {
    const struct cuc_library *library = engine->library;
    uint16_t changed = 0;
    for (size_t i = 0; i < sizeof segment_registers / sizeof *segment_registers; i++) {
        uint16_t selector = 0;
        library->uc_reg_read(engine->uc, segment_registers[i], &selector);
        changed |= selector;  // they are 0 in an engine that was just opened
    }
    if (changed == 0) return;
    enum { COUNT = sizeof vector_registers / sizeof *vector_registers };
    uint8_t values[COUNT][16] = {{0}};
    for (int i = 0; i < COUNT; i++) library->uc_reg_read(engine->uc, vector_registers[i], values[i]);
    library->uc_context_restore(engine->uc, engine->fresh);
    for (int i = 0; i < COUNT; i++) library->uc_reg_write(engine->uc, vector_registers[i], values[i]);
}
