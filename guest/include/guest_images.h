// SPDX-License-Identifier: MIT
// The demo guests in this executable, in no particular order. All of it is constant and lives as long as
// the process.
#ifndef MINIVMM_GUEST_IMAGES_H
#define MINIVMM_GUEST_IMAGES_H

#include <stddef.h>
#include <stdint.h>

/// How many there are.
size_t guest_image_count(void);
/// The name of one, or NULL past the last.
const char *_Nullable guest_image_name(size_t index);
/// Its first byte, which is also where it is entered, or NULL past the last.
const uint8_t *_Nullable guest_image_start(size_t index);
/// Bytes, 0 past the last.
size_t guest_image_size(size_t index);

/// The text that it was assembled from, not ended by a zero, or NULL past the last.
const uint8_t *_Nullable guest_image_source(size_t index);
/// Bytes, 0 past the last.
size_t guest_image_source_size(size_t index);

#endif
