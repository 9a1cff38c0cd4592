// SPDX-License-Identifier: MIT
// The C runtime of exported programs, as text. The compiler embeds it, so the program reads no files at run time.
#pragma once
#include <stddef.h>

struct creproducer_text {
    const unsigned char *bytes;
    size_t count;
};

// Replacements and additions to the runtime for tests with two aliases.
extern const struct creproducer_text creproducer_aliases;
// Replacements for parts of the runtime, for tests in the kernel's tree.
extern const struct creproducer_text creproducer_selftest;
// All other files of runtime/, each after those that it uses.
extern const struct creproducer_text creproducer_runtime;
