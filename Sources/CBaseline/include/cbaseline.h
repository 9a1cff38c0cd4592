// SPDX-License-Identifier: MIT
// The baseline of `minivmm bench`: the monitor's work in plain C with raw ioctls and nothing else.
// Each function that runs a guest returns nanoseconds of real time, or a negative errno.
#ifndef CBASELINE_H
#define CBASELINE_H

#include <stdint.h>

#include "instructions.h"

/// A guest in a default VM. Its RAM is a guest_memfd mapped by the host, as in the memslot adapter.
struct cbaseline_guest {
    const uint8_t *_Nonnull image;  // loaded and entered at 1 MiB
    uint64_t image_size;            // bytes
    uint64_t ram_size;              // bytes
    int shared_bit;                 // bit of the shared alias, or -1 for one alias
};

/// Pins this thread, and threads that it starts later, to the current CPU; returns 0, or -1 with errno.
int cbaseline_stay_on_this_cpu(void);

/// Runs a guest until it writes to port 0xF4: the time from the first KVM_RUN to that exit. `cpu` gets the nanoseconds of
/// processor time, including the kernel's.
int64_t cbaseline_run(const struct cbaseline_guest *_Nonnull guest, int64_t *_Nonnull cpu);

/// Same, but the time includes creating the VM, RAM, vCPU and registers.
int64_t cbaseline_create_and_run(const struct cbaseline_guest *_Nonnull guest);

/// Runs a built-in guest with one alias, and writes its output to standard output. Call it in a process of its own.
int64_t cbaseline_hello_kvm(const struct cbaseline_guest *_Nonnull guest);

/// Same on the Unicorn engine, without KVM. `library` is passed to dlopen; -ENOENT if it cannot be loaded.
int64_t cbaseline_hello_unicorn(const struct cbaseline_guest *_Nonnull guest, const char *_Nonnull library);

#endif
