// SPDX-License-Identifier: MIT
// The yardstick of `minivmm bench`: what the monitor does, in plain C with raw ioctls and nothing else.
// Each function that runs something returns nanoseconds of real time, or a negative errno.
#ifndef CBASELINE_H
#define CBASELINE_H

#include <stdint.h>

/// A guest in a default VM, its RAM a guest_memfd that the host has mapped, as the memslot adapter has it.
struct cbaseline_guest {
    const uint8_t *_Nonnull image;  // loaded and entered at 1 MiB
    uint64_t image_size;            // bytes
    uint64_t ram_size;              // bytes
    int shared_bit;                 // of the second alias, or -1 for one alias
};

/// Keeps this thread, and those that it starts from now on, on the CPU where it is; 0, or -1 with errno.
int cbaseline_stay_on_this_cpu(void);

/// Runs a guest to its write to port 0xF4: the time from the first KVM_RUN to that exit. `cpu` gets the nanoseconds of
/// processor time that it took, the kernel's included.
int64_t cbaseline_run(const struct cbaseline_guest *_Nonnull guest, int64_t *_Nonnull cpu);

/// The same, but the time from opening nothing to that exit: VM, RAM, vCPU, registers.
int64_t cbaseline_create_and_run(const struct cbaseline_guest *_Nonnull guest);

/// Runs a guest of the catalogue that has one alias, and writes what it prints to standard output. For a process of its own.
int64_t cbaseline_hello_kvm(const struct cbaseline_guest *_Nonnull guest);

/// The same on the Unicorn engine, without KVM. `library` is what dlopen takes; ENOENT if it is not there.
int64_t cbaseline_hello_unicorn(const struct cbaseline_guest *_Nonnull guest, const char *_Nonnull library);

#endif
