/* SPDX-License-Identifier: Apache-2.0 */
/* Programs as docs/formats.md describes them: segments, regions, tables, references.
 *
 * Nothing in here knows Python. Offsets and addresses are int64; everything that
 * comes from a bundle is checked once, by image_check, and what is read from a file
 * is bounded by the place it is read from.
 */
#ifndef UPDATERD_IMAGE_H
#define UPDATERD_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define CHUNK 16384
#define MAX_SEGMENTS 32
#define MAX_REGIONS 256
#define MAX_TABLES 65536
#define MAX_LISTED (1 << 20)
#define PARAMETERS 5

enum { CODE, WORDS, FRAMES, TABLE, FUNCTIONS, ARM, REGION_KINDS };
enum { RELATIVE = 1, ABSOLUTE, OFFSET, BACK, STEP = 6 /* 5: an offset without a sign */ };

typedef struct {
    int64_t offset, address, stored, memory, code;
} segment;

typedef struct {
    int64_t kind, start, length, parameter[PARAMETERS];
} region;

typedef struct {
    int64_t offset, entries;
} table;

typedef struct {
    segment *segments;
    region *regions;
    table *tables;
    size_t segment_count, region_count, table_count;
    int64_t code_low, code_high, memory_low, memory_high;
    int arm;     /* its code is AArch64, by its regions */
    int64_t end; /* of what is stored: the shortest file it can describe */
} image;

/* A reference that is not searched for: 8 bytes, there may be a million. */
typedef struct {
    uint32_t place;
    unsigned kind : 3;
    unsigned plain : 1; /* its value has no sign */
    unsigned base : 28; /* index into the listing's bases */
} listed;

typedef struct {
    listed *items;
    int64_t *bases; /* addresses that offsets count from */
    size_t count, room, base_count;
    int starved; /* there was no memory for more */
} listing;

/* Returns `count` bytes of a file at `at`, valid until the next call; NULL: an error
 * is set, or there are not as many. */
typedef const uint8_t *(*peek)(void *file, int64_t at, size_t count);

/* Two ways to look at one file, so that walking two places at once reads each once. */
typedef struct {
    peek look;
    void *here, *there;
} walker;

const char *image_check(image *program);
int64_t image_address(const image *program, int64_t offset);
const segment *image_storing(const image *program, int64_t offset, int64_t length);
const segment *image_holder(const image *program, int64_t address);
int64_t image_offset(const image *program, int64_t address, const segment **found);
size_t image_search(const image *program, const uint8_t *chunk, int64_t at,
                    size_t length, uint16_t *out);
int image_list(const image *program, walker *file, listing *out);
void listing_free(listing *one);

static inline uint32_t u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
           (uint32_t)at[3] << 24;
}

static inline int32_t s32(const uint8_t *at) { return (int32_t)u32(at); }

static inline uint64_t u64(const uint8_t *at) {
    return (uint64_t)u32(at) | (uint64_t)u32(at + 4) << 32;
}

static inline void put32(uint8_t *at, uint32_t value) {
    for (int byte = 0; byte < 4; byte++) at[byte] = (uint8_t)(value >> 8 * byte);
}

static inline void put64(uint8_t *at, uint64_t value) {
    put32(at, (uint32_t)value);
    put32(at + 4, (uint32_t)(value >> 32));
}

/* What a searched reference is packed into: its place in the chunk, and its kind. With
 * AArch64, where places are multiples of four, how it is made (arm.h); 0: absolute. */
#define PACKED(place, kind) ((uint16_t)((place) << 1 | ((kind) == ABSOLUTE)))
#define MAX_FOUND (CHUNK / 4)

static inline int64_t found_place(const image *program, uint16_t packed) {
    return program->arm ? packed >> 4 << 2 : packed >> 1;
}

static inline int found_kind(const image *program, uint16_t packed) {
    if (program->arm) return packed & 15 ? STEP : ABSOLUTE;
    return packed & 1 ? ABSOLUTE : RELATIVE;
}

/* Of a STEP, how it is made. */
static inline int found_how(uint16_t packed) { return packed & 15; }

#endif
