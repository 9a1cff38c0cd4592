// SPDX-License-Identifier: MIT
// Limits the memory of the engine's translations. The engine itself only drops translations when its buffer of 1
// GiB is full, and a guest of 40 MB of NOPs fills it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct code_memory {
    uint8_t *buffer;  // the engine's buffer, or NULL if it was not found
    size_t size;      // bytes
    int statm, maps;  // descriptors of files in /proc/self, or -1
    uint64_t base;    // number of private pages while the buffer was empty
};

/// Opens the files of /proc/self that the other functions read. Without /proc the buffer never counts as full.
void code_memory_open(struct code_memory *memory);
void code_memory_close(struct code_memory *memory);
/// Records the current size of the process as that with an empty buffer.
void code_memory_start(struct code_memory *memory);
/// Finds the buffer that the engine has just mapped, and calls `code_memory_start`.
void code_memory_find(struct code_memory *memory);
/// Whether private memory has grown by more than 32 MiB since `code_memory_start`. Makes one system call.
bool code_memory_is_full(const struct code_memory *memory);
/// Unmaps the buffer of an engine that is closed or will never be called again.
void code_memory_release(struct code_memory *memory);
