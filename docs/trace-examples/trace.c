// SPDX-License-Identifier: MIT
// Writes a trace that `minivmm report` draws: a vCPU faults on page 2, and the VMM converts the page.
// cc -o trace trace.c && ./trace > my.jsonl && minivmm report my.jsonl
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static unsigned long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

// Writes one event. A VMM with threads must hold a lock here, so that lines are whole.
static void event(const char *actor, const char *name, const char *fields, ...) {
    va_list values;
    va_start(values, fields);
    printf("{\"t\":%llu,\"actor\":\"%s\",\"event\":\"%s\"", now(), actor, name);
    vprintf(fields, values);
    puts("}");
    va_end(values);
}

int main(void) {
    const char *range = ",\"gpa\":8192,\"size\":4096,\"target\":\"private\"";
    printf("{\"schema\":\"minivmm.trace/1\",\"clock\":\"monotonic ns\",\"t\":%llu,\"backend\":\"MyVMM\"}\n", now());
    event("host", "boot", ",\"image\":0,\"image_bytes\":4096,\"entry\":0,\"vcpus\":1,\"ram_bytes\":%d", 8 * 4096);
    event("vcpu0", "memory-fault", ",\"gpa\":8192,\"bytes\":4096,\"wants\":\"private\",\"verdict\":\"convert\"");
    event("vcpu0", "convert", "%s", range);
    event("vcpu0", "set-memory-attributes2", "%s,\"offset\":8192,\"errno\":%d", range, 0);
    event("vcpu0", "converted", "%s", range);
    event("vcpu0", "resume", ",\"gpa\":8192");
    event("host", "stop", ",\"why\":\"the guest ended\",\"status\":0");
}
