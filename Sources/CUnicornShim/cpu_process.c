// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "cpu_process.h"

#include "channel.h"
#include "confine.h"
#include "engine.h"
#include "messages.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

struct file {
    uint8_t *bytes;
    uint64_t size;
};
struct process {
    struct cuc_channel *channel;
    struct engine *engine;
    int socket;
    bool has_failed;  // an operation failed; every later run reports that
    struct file files[CUC_MAX_FILES];
};

static bool open_file(struct process *process, uint32_t number, uint64_t size) {
    int descriptor = -1;
    uint32_t ignored;
    if (!cuc_receive(process->socket, &ignored, sizeof ignored, &descriptor, 1) || descriptor < 0) return false;
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    close(descriptor);
    if (bytes == MAP_FAILED) return false;
    process->files[number] = (struct file){bytes, size};
    return true;
}

static void close_files(struct process *process) {
    for (uint32_t i = 0; i < CUC_MAX_FILES; i++) {
        struct file *file = &process->files[i];
        if (file->bytes != NULL) munmap(file->bytes, file->size);
        *file = (struct file){0};
    }
}

static bool map(struct process *process, const struct cuc_operation *operation) {
    uint8_t *bytes = process->channel->scratch;
    if (operation->file != CUC_FILE_SCRATCH) bytes = process->files[operation->file].bytes;
    return engine_map(
        process->engine, operation->linear, operation->size, operation->writable, operation->executable,
        bytes + operation->offset);
}

static bool perform(struct process *process, const struct cuc_operation *operation) {
    struct engine *engine = process->engine;
    switch (operation->kind) {
    case CUC_OPERATION_MAP: return map(process, operation);
    case CUC_OPERATION_UNMAP: engine_unmap(engine, operation->linear, operation->size); break;
    case CUC_OPERATION_FORGET_CODE: engine_forget_code(engine, operation->linear, operation->size); break;
    case CUC_OPERATION_FORGET_TOUCHES: engine_forget_touches(engine); break;
    case CUC_OPERATION_WRITE_SYSTEM: return engine_write_system(engine, &process->channel->system);
    case CUC_OPERATION_RESET_SEGMENTS: engine_reset_segments(engine); break;
    case CUC_OPERATION_OPEN_FILE: return open_file(process, operation->file, operation->size);
    case CUC_OPERATION_CLOSE_FILES: close_files(process); break;
    }
    return true;
}

static void serve(struct process *process) {
    struct cuc_channel *channel = process->channel;
    struct cuc_answer *answer = &channel->answer;
    for (uint32_t i = 0; i < channel->operation_count; i++)
        process->has_failed |= !perform(process, &channel->operations[i]);
    switch (channel->command) {
    case CUC_COMMAND_NOTHING: return;
    case CUC_COMMAND_RESTORE: engine_restore(process->engine); break;
    case CUC_COMMAND_RUN:
        engine_write_registers(process->engine, channel->registers);
        if (process->has_failed) *answer = (struct cuc_answer){.stop = CUC_STOP_ENGINE_FAILED};
        else engine_run(process->engine, channel->limit, channel->careful, answer);
        break;
    }
    engine_read_registers(process->engine, answer->registers);
    engine_read_system(process->engine, &answer->system);
}

void cuc_cpu_process(struct engine *engine, int channel, int socket) {
    struct process process = {.socket = socket, .engine = engine};
    process.channel =
        mmap(NULL, sizeof *process.channel, PROT_READ | PROT_WRITE, MAP_SHARED, channel, 0);
    close(channel);
    if (process.channel == MAP_FAILED) _exit(CUC_EXIT_NO_CHANNEL);
    engine_adopt(engine, process.channel);
    int error = cuc_confine();
    // Without seccomp in the kernel, the process runs without a filter. Any other failure is an error.
    if (error != 0 && error != ENOSYS && error != EINVAL) _exit(CUC_EXIT_NOT_CONFINED);
    process.channel->is_ready = 1;
    for (;;) {
        cuc_pass_turn(&process.channel->turn, CUC_TURN_MONITOR);
        while (!cuc_has_turn(&process.channel->turn, CUC_TURN_CPU, NULL)) {}
        serve(&process);
    }
}
