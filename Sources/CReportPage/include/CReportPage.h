// SPDX-License-Identifier: MIT
// The parts of the HTML page. The compiler embeds them, so the program reads no files at run time.
#pragma once
#include <stddef.h>

struct creport_part {
    const unsigned char *bytes;
    size_t count;
};

extern const struct creport_part creport_style;
extern const struct creport_part creport_body;
extern const struct creport_part creport_script;
