// SPDX-License-Identifier: MIT
#include <errno.h>

#include "instructions.h"

void cbaseline_touch(uint64_t address, uint64_t pages) {
    for (uint64_t page = 0; page < pages; page++) *(volatile uint8_t *)(uintptr_t)(address + page * 4096) = 1;
}

#if defined(__x86_64__)

bool cbaseline_has_counter(void) { return true; }

uint64_t cbaseline_counter(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

// The two readings are written out in each function, so that the instructions between them are the same in all of them:
// five after the first reading, one before the second.
#define FIRST_READING "rdtsc\n\tshl $32, %%rdx\n\tor %%rax, %%rdx\n\tmov %%rdx, %%r10\n\tmov %%r8, %%rdx\n\tmov $16, %%eax\n\t"
#define SECOND_READING "mov %%rax, %%r9\n\trdtsc\n\tshl $32, %%rdx\n\tor %%rdx, %%rax\n\tsub %%r10, %%rax\n\t"

uint64_t cbaseline_count_nothing(void) {
    uint64_t count;
    __asm__ volatile(FIRST_READING SECOND_READING : "=a"(count) : : "rdx", "r8", "r9", "r10", "cc");
    return count;
}

uint64_t cbaseline_count_loop(uint64_t iterations) {
    uint64_t count;
    __asm__ volatile(FIRST_READING "1: dec %%rcx\n\tjnz 1b\n\t" SECOND_READING
                     : "=a"(count), "+c"(iterations)
                     :
                     : "rdx", "r8", "r9", "r10", "cc");
    return count;
}

uint64_t cbaseline_count_ioctl(int fd, unsigned long request, void *argument, int64_t *result) {
    uint64_t count;
    register void *third __asm__("r8") = argument;
    register int64_t answer __asm__("r9");
    __asm__ volatile(FIRST_READING "syscall\n\t" SECOND_READING
                     : "=a"(count), "=r"(answer), "+r"(third)
                     : "D"((long)fd), "S"(request)
                     : "rcx", "rdx", "r10", "r11", "cc", "memory");
    *result = answer;
    return count;
}

uint64_t cbaseline_await_interrupt(uint64_t limit, uint64_t *at) {
    // A reading of the counter is slow under QEMU, so each turn of the loop has 2,000 other instructions.
    const uint64_t pause = 1000, threshold = 300;
    uint64_t start = cbaseline_counter(), before = start, usual = UINT64_MAX;
    for (;;) {
        cbaseline_count_loop(pause);
        uint64_t now = cbaseline_counter(), turn = now - before;
        *at = now;
        // The shortest turn so far had no interrupt.
        if (turn < usual) usual = turn;
        if (turn > usual + threshold) return turn - usual;
        if (now - start >= limit) return 0;
        before = now;
    }
}

#else

bool cbaseline_has_counter(void) { return false; }
uint64_t cbaseline_counter(void) { return 0; }
uint64_t cbaseline_count_loop(uint64_t iterations) {
    (void)iterations;
    return 0;
}
uint64_t cbaseline_count_nothing(void) { return 0; }
uint64_t cbaseline_count_ioctl(int fd, unsigned long request, void *argument, int64_t *result) {
    (void)fd, (void)request, (void)argument;
    *result = -ENOSYS;
    return 0;
}
uint64_t cbaseline_await_interrupt(uint64_t limit, uint64_t *at) {
    (void)limit;
    *at = 0;
    return 0;
}

#endif
