// SPDX-License-Identifier: MIT
// The demo guests in this executable, in no particular order. All data is constant and stays valid until the process
// ends.
#ifndef MINIVMM_GUEST_IMAGES_H
#define MINIVMM_GUEST_IMAGES_H

#include <stddef.h>
#include <stdint.h>

/// The number of guests.
size_t guest_image_count(void);
/// The name of a guest; NULL if the index is too large.
const char *_Nullable guest_image_name(size_t index);
/// The first byte of its image, which is also its entry point; NULL if the index is too large.
const uint8_t *_Nullable guest_image_start(size_t index);
/// The size of its image in bytes; 0 if the index is too large.
size_t guest_image_size(size_t index);

/// Its source text, without a terminating zero; NULL if the index is too large.
const uint8_t *_Nullable guest_image_source(size_t index);
/// The size of its source text in bytes; 0 if the index is too large.
size_t guest_image_source_size(size_t index);

#endif
