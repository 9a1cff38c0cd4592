// SPDX-License-Identifier: MIT
#include "guest_images.h"

// support.h puts one entry per guest into the section guest_table. The linker concatenates the entries and defines the
// symbols for both ends.
struct entry {
    const char *name;
    const uint8_t *start;
    const uint8_t *end;
    const uint8_t *source;
    const uint8_t *source_end;
};

extern const struct entry first[] __asm__("__start_guest_table") __attribute__((visibility("hidden")));
extern const struct entry last[] __asm__("__stop_guest_table") __attribute__((visibility("hidden")));

size_t guest_image_count(void) {
    return (size_t)(last - first);
}

const char *guest_image_name(size_t index) {
    return index < guest_image_count() ? first[index].name : 0;
}

const uint8_t *guest_image_start(size_t index) {
    return index < guest_image_count() ? first[index].start : 0;
}

size_t guest_image_size(size_t index) {
    return index < guest_image_count() ? (size_t)(first[index].end - first[index].start) : 0;
}

const uint8_t *guest_image_source(size_t index) {
    return index < guest_image_count() ? first[index].source : 0;
}

size_t guest_image_source_size(size_t index) {
    return index < guest_image_count() ? (size_t)(first[index].source_end - first[index].source) : 0;
}
