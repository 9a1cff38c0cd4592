// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "capstone_library.h"

#include <dlfcn.h>

bool capstone_open(struct capstone_library *library, const char *name) {
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) return false;
    *library = (struct capstone_library){.handle = handle};
    bool complete = true;
#define FIND(function) complete &= (*(void **)&library->function = dlsym(handle, #function)) != NULL
    FIND(cs_version);
    FIND(cs_support);
    FIND(cs_open);
    FIND(cs_close);
    FIND(cs_option);
    FIND(cs_disasm);
    FIND(cs_free);
    FIND(cs_reg_name);
    FIND(cs_insn_name);
#undef FIND
    if (complete) {
        int major = 0, minor = 0;
        library->cs_version(&major, &minor);
        library->version = (uint32_t)major;
        bool is_known = major == 4 || major == 5;
        if (is_known && library->cs_support(CS_ARCH_X86) && !library->cs_support(CS_SUPPORT_DIET)) return true;
    }
    capstone_close(library);
    return false;
}

void capstone_close(struct capstone_library *library) { dlclose(library->handle); }
