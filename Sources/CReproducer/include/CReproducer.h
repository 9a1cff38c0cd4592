// SPDX-License-Identifier: MIT
// The C runtime of exported programs, as text. The compiler embeds it, so the program reads no files at run time.
#pragma once
#include <stddef.h>

struct creproducer_text {
    const unsigned char *bytes;
    size_t count;
};

// What programs of tests with two aliases have in place of some parts of the runtime, and besides.
extern const struct creproducer_text creproducer_aliases;
// What tests in the kernel's tree have in place of some parts of the runtime.
extern const struct creproducer_text creproducer_selftest;
// All other files of runtime/, each after those that it uses.
extern const struct creproducer_text creproducer_runtime;
