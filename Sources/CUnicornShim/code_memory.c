// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "code_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define MAX_PAGES ((32u << 20) / PAGE)
#define MAX_LINE 256

// Number of resident pages that belong to no shared mapping and no file; 0 if that cannot be read.
static uint64_t private_pages(int statm) {
    char text[128];
    ssize_t length = statm < 0 ? -1 : pread(statm, text, sizeof text - 1, 0);
    if (length <= 0) return 0;
    text[length] = 0;
    unsigned long long all = 0, resident = 0, shared = 0;
    if (sscanf(text, "%llu %llu %llu", &all, &resident, &shared) != 3) return 0;
    return resident > shared ? resident - shared : 0;
}

// The engine's buffer is the largest mapping that is both writable and executable.
static void consider_mapping(struct code_memory *memory, const char *line) {
    unsigned long long start, end;
    char flags[5];
    if (sscanf(line, "%llx-%llx %4s", &start, &end, flags) != 3) return;
    if (strcmp(flags, "rwxp") != 0 || end - start <= memory->size) return;
    memory->buffer = (uint8_t *)(uintptr_t)start;
    memory->size = (size_t)(end - start);
}

void code_memory_open(struct code_memory *memory) {
    *memory = (struct code_memory){
        .statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC), .maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
}

void code_memory_close(struct code_memory *memory) {
    if (memory->statm >= 0) close(memory->statm);
    if (memory->maps >= 0) close(memory->maps);
}

void code_memory_start(struct code_memory *memory) { memory->base = private_pages(memory->statm); }

void code_memory_find(struct code_memory *memory) {
    char text[4096], line[MAX_LINE];
    size_t filled = 0;
    off_t offset = 0;
    ssize_t length;
    while (memory->maps >= 0 && (length = pread(memory->maps, text, sizeof text, offset)) > 0) {
        offset += length;
        for (ssize_t i = 0; i < length; i++) {
            if (text[i] != '\n') {
                if (filled < sizeof line - 1) line[filled++] = text[i];
                continue;
            }
            line[filled] = 0;
            filled = 0;
            consider_mapping(memory, line);
        }
    }
    code_memory_start(memory);
}

bool code_memory_is_full(const struct code_memory *memory) {
    return memory->buffer != NULL && private_pages(memory->statm) > memory->base + MAX_PAGES;
}

void code_memory_release(struct code_memory *memory) {
    if (memory->buffer != NULL) munmap(memory->buffer, memory->size);
    memory->buffer = NULL;
    memory->size = 0;
}
