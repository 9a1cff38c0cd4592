// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "channel.h"
#include "cpu_process.h"
#include "launcher.h"
#include "messages.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// How often to check on a CPU process that has not answered yet.
static const struct timespec poll_interval = {0, 5000000};
// Processor time without an executed instruction after which a CPU process counts as hung, seconds. A process that
// gets no processor uses none.
#define HANG_SECONDS 5
// Time for a CPU process to react to a kick: processor time, and wall-clock time in case it is stopped or sleeps.
#define KICK_NANOSECONDS UINT64_C(200000000)
#define KICK_WALL_NANOSECONDS UINT64_C(2000000000)
// The largest access of an instruction, bytes.
#define LARGEST_ACCESS 64

struct cuc_cpu {
    pid_t process;
    int socket;
    struct cuc_channel *channel;
    uint32_t files;
    bool is_careful, has_ended;
    struct cuc_failure failure;
    // The answer to the last run: a checked copy that the CPU process cannot change.
    struct cuc_answer answer;
};

static uint64_t clock_now(clockid_t clock) {
    struct timespec time = {0, 0};
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t processor_time(pid_t process) {
    clockid_t clock;
    return clock_getcpuclockid(process, &clock) == 0 ? clock_now(clock) : 0;
}

// Whether a process wants a processor, or waits for a page of a file. On a busy machine it may wait for seconds.
static bool wants_processor(pid_t process) {
    char path[32], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    if (size <= 0) return false;
    text[size] = 0;
    // The state follows the name, which is in parentheses and may contain some.
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' && (name_end[2] == 'R' || name_end[2] == 'D');
}

struct cuc_cpu *cuc_cpu_create(const char *library, struct cuc_failure *failure) {
    *failure = (struct cuc_failure){.kind = CUC_FAILURE_LAUNCH, .number = ENOMEM};
    struct cuc_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return NULL;
    int pair[2] = {-1, -1};
    int memory = (int)syscall(SYS_memfd_create, "software-cpu", 1u /* MFD_CLOEXEC */);
    void *channel = MAP_FAILED;
    if (memory >= 0 && ftruncate(memory, sizeof *cpu->channel) == 0)
        channel = mmap(NULL, sizeof *cpu->channel, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (channel == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        failure->number = errno;
    } else {
        cpu->channel = channel;
        madvise(channel, sizeof *cpu->channel, MADV_DONTFORK);
        cpu->channel->turn.side = CUC_TURN_CPU;
        cpu->process = cuc_launch(library, memory, pair[1]);
        if (cpu->process < 0) failure->number = -cpu->process;
        else failure->kind = CUC_FAILURE_NONE;
    }
    if (memory >= 0) close(memory);
    if (pair[1] >= 0) close(pair[1]);
    cpu->socket = pair[0];
    if (failure->kind == CUC_FAILURE_NONE) return cpu;
    if (channel != MAP_FAILED) munmap(channel, sizeof *cpu->channel);
    if (pair[0] >= 0) close(pair[0]);
    free(cpu);
    return NULL;
}

void cuc_cpu_destroy(struct cuc_cpu *cpu) {
    if (!cpu->has_ended) cuc_end(cpu->process);
    munmap(cpu->channel, sizeof *cpu->channel);
    close(cpu->socket);
    free(cpu);
}

static void fail(struct cuc_cpu *cpu, enum cuc_failure_kind kind, int32_t number) {
    if (cpu->failure.kind == CUC_FAILURE_NONE)
        cpu->failure = (struct cuc_failure){
            .kind = kind, .number = number, .rip = __atomic_load_n(&cpu->channel->live_rip, __ATOMIC_RELAXED)};
    cpu->has_ended = true;
}

static void end(struct cuc_cpu *cpu, enum cuc_failure_kind kind, int32_t number) {
    if (!cpu->has_ended) cuc_end(cpu->process);
    fail(cpu, kind, number);
}

// Checks whether the process has ended by itself, and records how.
static bool has_died(struct cuc_cpu *cpu) {
    int status;
    if (!cuc_has_ended(cpu->process, &status)) return false;
    bool has_started = __atomic_load_n(&cpu->channel->is_ready, __ATOMIC_RELAXED);
    if (WIFSIGNALED(status)) fail(cpu, CUC_FAILURE_SIGNAL, WTERMSIG(status));
    else fail(cpu, has_started ? CUC_FAILURE_EXIT : CUC_FAILURE_START, WEXITSTATUS(status));
    return true;
}

// Waits until it is the monitor's turn. Returns false if the process is gone, with the reason in `failure`.
static bool await(struct cuc_cpu *cpu, const uint8_t *immediate_exit) {
    struct cuc_channel *channel = cpu->channel;
    uint64_t executed = UINT64_MAX, used_then = 0;  // at the last progress
    uint64_t kicked_at = 0, used_at_kick = 0;
    while (!cuc_has_turn(&channel->turn, CUC_TURN_MONITOR, &poll_interval)) {
        if (has_died(cpu)) return false;
        uint64_t used = processor_time(cpu->process);
        uint64_t executed_now = __atomic_load_n(&channel->live_executed, __ATOMIC_RELAXED);
        if (executed_now != executed) {
            executed = executed_now;
            used_then = used;
        } else if (used - used_then > HANG_SECONDS * UINT64_C(1000000000)) {
            end(cpu, CUC_FAILURE_HANG, HANG_SECONDS);
            return false;
        }
        if (immediate_exit == NULL || !__atomic_load_n(immediate_exit, __ATOMIC_RELAXED)) continue;
        __atomic_store_n(&channel->kick, 1, __ATOMIC_RELAXED);
        uint64_t now = clock_now(CLOCK_MONOTONIC);
        if (kicked_at == 0) {
            kicked_at = now;
            used_at_kick = used;
        } else if (used - used_at_kick > KICK_NANOSECONDS
                   || (now - kicked_at > KICK_WALL_NANOSECONDS && !wants_processor(cpu->process))) {
            end(cpu, CUC_FAILURE_KICK, 0);
            return false;
        }
    }
    return true;
}

static bool is_possible(const struct cuc_answer *answer, uint64_t limit) {
    const struct cuc_access *fault = &answer->fault;
    bool is_known = answer->stop >= CUC_STOP_LIMIT && answer->stop <= CUC_STOP_ENGINE_FAILED;
    bool is_access = answer->stop != CUC_STOP_MEMORY || (fault->size > 0 && fault->size <= LARGEST_ACCESS);
    for (uint32_t i = 0; i < answer->log_count && i < CUC_MAX_LOG; i++)
        is_access = is_access && answer->log[i].size > 0 && answer->log[i].size <= LARGEST_ACCESS;
    return is_known && is_access && answer->executed <= limit && answer->touch_count <= CUC_MAX_TOUCHES
        && answer->code_size <= CUC_MAX_CODE;
}

// Sends the pending operations and a command. Returns false if the process is gone.
static bool command(
    struct cuc_cpu *cpu, enum cuc_command command, uint64_t limit, const uint8_t *immediate_exit) {
    struct cuc_channel *channel = cpu->channel;
    // Before the first command, the process may still be opening its engine.
    bool is_alive = !cpu->has_ended && await(cpu, immediate_exit);
    if (is_alive) {
        channel->command = command;
        channel->limit = limit;
        channel->careful = cpu->is_careful;
        channel->kick = 0;
        cuc_pass_turn(&channel->turn, CUC_TURN_CPU);
        is_alive = await(cpu, cpu->is_careful ? NULL : immediate_exit);
    }
    channel->operation_count = 0;
    return is_alive;
}

// Copies and checks the answer to a run. If the answer is impossible, ends the process and returns false.
static bool take_answer(struct cuc_cpu *cpu, uint64_t limit) {
    memcpy(&cpu->answer, &cpu->channel->answer, offsetof(struct cuc_answer, touches));
    size_t touches = cpu->answer.touch_count * sizeof *cpu->answer.touches;
    if (touches <= sizeof cpu->answer.touches) memcpy(cpu->answer.touches, cpu->channel->answer.touches, touches);
    if (is_possible(&cpu->answer, limit)) return true;
    cpu->answer = (struct cuc_answer){0};
    end(cpu, CUC_FAILURE_ANSWER, 0);
    return false;
}

enum cuc_stop cuc_run(struct cuc_cpu *cpu, uint64_t limit, const uint8_t *immediate_exit) {
    // An engine that could not execute one instruction may be able to execute the next.
    if (cpu->failure.kind == CUC_FAILURE_ENGINE) cpu->failure = (struct cuc_failure){0};
    if (cpu->failure.kind == CUC_FAILURE_NONE && command(cpu, CUC_COMMAND_RUN, limit, immediate_exit)
        && take_answer(cpu, limit)) {
        if (cpu->answer.stop == CUC_STOP_ENGINE_FAILED) {
            cpu->failure.kind = CUC_FAILURE_ENGINE;
            cpu->failure.number = cpu->answer.error;
            cpu->failure.rip = cpu->answer.registers[CUC_REGISTERS - 2];
            cpu->failure.code_size = cpu->answer.code_size;
            memcpy(cpu->failure.code, cpu->answer.code, sizeof cpu->failure.code);
        }
        return cpu->answer.stop;
    }
    cpu->answer.executed = 0;
    cpu->answer.touch_count = 0;
    cpu->answer.log_count = 0;
    return CUC_STOP_PROCESS_DIED;
}

uint64_t cuc_executed(const struct cuc_cpu *cpu) { return cpu->answer.executed; }
struct cuc_access cuc_fault(const struct cuc_cpu *cpu) { return cpu->answer.fault; }
uint32_t cuc_exception(const struct cuc_cpu *cpu) { return cpu->answer.exception; }
uint32_t cuc_breakpoint_hits(const struct cuc_cpu *cpu) { return cpu->answer.breakpoint_hits; }
struct cuc_failure cuc_failure(const struct cuc_cpu *cpu) { return cpu->failure; }
int32_t cuc_process(const struct cuc_cpu *cpu) { return cpu->process; }

// MARK: operations, sent with the next command

static struct cuc_operation *operation(struct cuc_cpu *cpu, enum cuc_operation_kind kind) {
    struct cuc_channel *channel = cpu->channel;
    if (channel->operation_count >= CUC_MAX_OPERATIONS) command(cpu, CUC_COMMAND_NOTHING, 0, NULL);
    struct cuc_operation *operation = &channel->operations[channel->operation_count++];
    *operation = (struct cuc_operation){.kind = kind};
    return operation;
}

int32_t cuc_open_file(struct cuc_cpu *cpu, int descriptor, uint64_t size) {
    uint32_t number = cpu->files;
    if (number == CUC_MAX_FILES || cpu->has_ended) return -1;
    if (!cuc_send(cpu->socket, &number, sizeof number, &descriptor, 1)) return -1;
    struct cuc_operation *open = operation(cpu, CUC_OPERATION_OPEN_FILE);
    open->file = number;
    open->size = size;
    cpu->files++;
    return (int32_t)number;
}

void cuc_close_files(struct cuc_cpu *cpu) {
    operation(cpu, CUC_OPERATION_CLOSE_FILES);
    cpu->files = 0;
}

static void map(
    struct cuc_cpu *cpu, uint64_t linear, uint64_t size, bool writable, bool executable, uint32_t file,
    uint64_t offset) {
    struct cuc_operation *map = operation(cpu, CUC_OPERATION_MAP);
    map->linear = linear;
    map->size = size;
    map->writable = writable;
    map->executable = executable;
    map->file = file;
    map->offset = offset;
}

void cuc_map(
    struct cuc_cpu *cpu, uint64_t linear, uint64_t size, bool writable, bool executable, int32_t file,
    uint64_t offset) {
    map(cpu, linear, size, writable, executable, (uint32_t)file, offset);
}

void cuc_map_scratch(struct cuc_cpu *cpu, uint64_t linear, uint32_t number) {
    map(cpu, linear, 4096, true, true, CUC_FILE_SCRATCH, number * UINT64_C(4096));
}

uint8_t *cuc_scratch(struct cuc_cpu *cpu, uint32_t number) { return cpu->channel->scratch + number * 4096u; }

void cuc_unmap(struct cuc_cpu *cpu, uint64_t linear, uint64_t size) {
    struct cuc_operation *unmap = operation(cpu, CUC_OPERATION_UNMAP);
    unmap->linear = linear;
    unmap->size = size;
}

void cuc_forget_code(struct cuc_cpu *cpu, uint64_t linear, uint64_t size) {
    struct cuc_operation *forget = operation(cpu, CUC_OPERATION_FORGET_CODE);
    forget->linear = linear;
    forget->size = size;
}

void cuc_forget_touches(struct cuc_cpu *cpu) {
    struct cuc_channel *channel = cpu->channel;
    uint32_t count = channel->operation_count;
    if (count > 0 && channel->operations[count - 1].kind == CUC_OPERATION_FORGET_TOUCHES) return;
    operation(cpu, CUC_OPERATION_FORGET_TOUCHES);
}

// MARK: results of the last run

uint32_t cuc_take_touches(struct cuc_cpu *cpu, struct cuc_touch *to) {
    uint32_t count = cpu->answer.touch_count;
    memcpy(to, cpu->answer.touches, count * sizeof *to);
    cpu->answer.touch_count = 0;
    return count;
}

void cuc_set_breakpoints(struct cuc_cpu *cpu, const struct cuc_breakpoint breakpoints[CUC_MAX_BREAKPOINTS]) {
    // The channel belongs to the CPU process until it is ready.
    if (cpu->has_ended || !await(cpu, NULL)) return;
    memcpy(cpu->channel->breakpoints, breakpoints, sizeof cpu->channel->breakpoints);
}

void cuc_set_careful(struct cuc_cpu *cpu, bool careful) { cpu->is_careful = careful; }
uint32_t cuc_log_count(const struct cuc_cpu *cpu) { return cpu->answer.log_count; }
struct cuc_access cuc_log(const struct cuc_cpu *cpu, uint32_t index) {
    return index < CUC_MAX_LOG ? cpu->answer.log[index] : (struct cuc_access){0};
}

void cuc_restore(struct cuc_cpu *cpu) {
    if (!command(cpu, CUC_COMMAND_RESTORE, 0, NULL)) return;
    memcpy(cpu->answer.registers, cpu->channel->answer.registers, sizeof cpu->answer.registers);
    cpu->answer.system = cpu->channel->answer.system;
}

void cuc_read_registers(struct cuc_cpu *cpu, uint64_t *values) {
    memcpy(values, cpu->answer.registers, sizeof cpu->answer.registers);
}

void cuc_write_registers(struct cuc_cpu *cpu, const uint64_t *values) {
    memcpy(cpu->channel->registers, values, sizeof cpu->channel->registers);
}

void cuc_read_system(struct cuc_cpu *cpu, struct cuc_system_registers *registers) {
    *registers = cpu->answer.system;
}

void cuc_write_system(struct cuc_cpu *cpu, const struct cuc_system_registers *registers) {
    cpu->channel->system = *registers;
    operation(cpu, CUC_OPERATION_WRITE_SYSTEM);
}

void cuc_reset_segments(struct cuc_cpu *cpu) { operation(cpu, CUC_OPERATION_RESET_SEGMENTS); }
