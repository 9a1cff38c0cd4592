// SPDX-License-Identifier: MIT
// What Embedded Swift needs in WebAssembly besides wasi-libc. The module must have no imports, so nothing here asks the host.
#include <stddef.h>
#include <stdint.h>

// Swift seeds its hash tables with this. A fixed seed makes every answer of the model reproducible.
void arc4random_buf(void *buffer, size_t count)
{
    unsigned char *bytes = buffer;

    for (size_t i = 0; i < count; i++)
        bytes[i] = 0x5a;
}

// print() of the standard library. The module has no console.
int putchar(int character)
{
    return character;
}

struct wide {
    uint64_t low, high;
};

// The compiler calls this for 128-bit products. wasi-libc does not have it: it is part of the compiler's own library, which
// Swift's toolchain does not ship for WebAssembly.
void __multi3(struct wide *result, uint64_t a_low, uint64_t a_high, uint64_t b_low, uint64_t b_high)
{
    const uint64_t a0 = (uint32_t)a_low, a1 = a_low >> 32, b0 = (uint32_t)b_low, b1 = b_low >> 32;
    const uint64_t first = a0 * b0, second = a1 * b0 + (first >> 32), third = a0 * b1 + (uint32_t)second;

    result->low = third << 32 | (uint32_t)first;
    result->high = a1 * b1 + (second >> 32) + (third >> 32) + a_low * b_high + a_high * b_low;
}
