// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "hello.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void cbaseline_write_boot_information(uint8_t *page, const struct cbaseline_guest *guest) {
    const uint64_t words[] = {
        0x314d4d56494e494d,  // "MINIVMM1"
        1 | 1ull << 32,      // version, vCPUs
        guest->ram_size,
        guest->shared_bit < 0 ? 0 : 1ull << guest->shared_bit,
        0,
        0x100000,
        0x100000 + ((guest->image_size + 4095) & ~4095ull),
        0x200000,
        guest->ram_size,
    };
    memcpy(page, words, sizeof words);
}

void cbaseline_print(struct cbaseline_console *console, uint8_t byte) {
    if (console->length < sizeof console->bytes) console->bytes[console->length++] = byte;
}

void cbaseline_show(const struct cbaseline_console *console) {
    ssize_t written = write(STDOUT_FILENO, console->bytes, console->length);
    (void)written;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

// Unicorn's interface, declared from its documentation.
typedef struct uc_engine uc_engine;
enum { UC_ARCH_X86 = 4, UC_MODE_64 = 8, UC_PROT_ALL = 7, UC_HOOK_INSN = 2 };
enum { UC_X86_REG_RDI = 39, UC_X86_REG_RSP = 44, UC_X86_INS_OUT = 500 };

struct monitor {
    void *library;
    int (*uc_emu_stop)(uc_engine *);
    struct cbaseline_console console;
    bool has_ended;
};

static void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *context) {
    (void)size;
    struct monitor *monitor = context;
    if (port == 0x3f8) cbaseline_print(&monitor->console, (uint8_t)value);
    if (port != 0xf4) return;
    monitor->has_ended = true;
    monitor->uc_emu_stop(uc);
}

static int64_t run(struct monitor *monitor, const struct cbaseline_guest *guest) {
#define FIND(function) *(void **)&function = dlsym(monitor->library, #function)
    int (*uc_open)(int, int, uc_engine **);
    int (*uc_reg_write)(uc_engine *, int, const void *);
    int (*uc_mem_map_ptr)(uc_engine *, uint64_t, size_t, uint32_t, void *);
    int (*uc_emu_start)(uc_engine *, uint64_t, uint64_t, uint64_t, size_t);
    int (*uc_hook_add)(uc_engine *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
    FIND(uc_open);
    FIND(uc_reg_write);
    FIND(uc_mem_map_ptr);
    FIND(uc_emu_start);
    FIND(uc_hook_add);
    *(void **)&monitor->uc_emu_stop = dlsym(monitor->library, "uc_emu_stop");
#undef FIND
    if (!uc_open || !uc_reg_write || !uc_mem_map_ptr || !uc_emu_start || !uc_hook_add || !monitor->uc_emu_stop)
        return -ENOSYS;
    uint8_t *ram = mmap(
        NULL, guest->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram == MAP_FAILED) return -errno;
    cbaseline_write_boot_information(ram + 0x2000, guest);
    memcpy(ram + 0x100000, guest->image, guest->image_size);
    uc_engine *uc;
    size_t hook;
    uint64_t boot = 0x2000, stack = 0x44000;
    int failed = uc_open(UC_ARCH_X86, UC_MODE_64, &uc);
    if (failed) return -ENOMEM;
    failed |= uc_mem_map_ptr(uc, 0, guest->ram_size, UC_PROT_ALL, ram);
    failed |= uc_reg_write(uc, UC_X86_REG_RDI, &boot);
    failed |= uc_reg_write(uc, UC_X86_REG_RSP, &stack);
    failed |= uc_hook_add(uc, &hook, UC_HOOK_INSN, (void *)on_out, monitor, 1, 0, UC_X86_INS_OUT);
    if (failed) return -EINVAL;
    uc_emu_start(uc, 0x100000, UINT64_MAX, 0, 0);
    return monitor->has_ended ? 0 : -EPROTO;
}

int64_t cbaseline_hello_unicorn(const struct cbaseline_guest *guest, const char *library) {
    int64_t start = now();
    // The fastest way to load it: see unicorn_library.c.
#if __has_feature(address_sanitizer)
    struct monitor monitor = {.library = dlopen(library, RTLD_LAZY | RTLD_LOCAL)};
#else
    struct monitor monitor = {.library = dlopen(library, RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND)};
#endif
    if (monitor.library == NULL) return -ENOENT;
    int64_t result = run(&monitor, guest);
    if (result < 0) return result;
    cbaseline_show(&monitor.console);
    return now() - start;
}
