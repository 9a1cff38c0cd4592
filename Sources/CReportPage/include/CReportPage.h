// SPDX-License-Identifier: MIT
// The parts of a report's page, put into the program by the compiler: nothing is looked up when it runs.
#pragma once
#include <stddef.h>

struct creport_part {
    const unsigned char *bytes;
    size_t count;
};

extern const struct creport_part creport_style;
extern const struct creport_part creport_body;
extern const struct creport_part creport_script;
