// SPDX-License-Identifier: MIT
// The memory that the engine's translations take. The engine itself would fill its buffer, a gigabyte, before it
// begins anew; a guest of 40 MB of NOPs does that.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct code_memory {
    uint8_t *buffer;  // the engine's, or NULL if it was not found
    size_t size;      // bytes
    int statm, maps;  // files of /proc/self, or -1
    uint64_t base;    // private pages when the buffer was empty
};

/// Opens the files of /proc/self that the other functions read. Without /proc the buffer never counts as full.
void code_memory_open(struct code_memory *memory);
void code_memory_close(struct code_memory *memory);
/// Takes the present size of the process for that with an empty buffer.
void code_memory_start(struct code_memory *memory);
/// Finds the buffer that the engine has just mapped, and starts.
void code_memory_find(struct code_memory *memory);
/// Whether more than 32 MiB have come since the buffer was found. Costs a system call.
bool code_memory_is_full(const struct code_memory *memory);
/// Unmaps the buffer of an engine that is closed, or never called again.
void code_memory_release(struct code_memory *memory);
