// SPDX-License-Identifier: MIT
// Shared by the C monitors of `hello`: the boot information page, and a console.
#ifndef HELLO_H
#define HELLO_H

#include "cbaseline.h"

#include <stddef.h>

struct cbaseline_console {
    uint8_t bytes[4096];
    size_t length;
};

/// The layout is in guest/include/guest.h.
void cbaseline_write_boot_information(uint8_t *page, const struct cbaseline_guest *guest);

void cbaseline_print(struct cbaseline_console *console, uint8_t byte);

/// Writes what was printed to standard output.
void cbaseline_show(const struct cbaseline_console *console);

#endif
