/* SPDX-License-Identifier: Apache-2.0 */
/* Where the references of an old file point to in a new one (docs/formats.md). */
#ifndef UPDATERD_AIM_H
#define UPDATERD_AIM_H

#include "image.h"

#define PIECE (1 << 18)

/* A part of a copy: what lies at `start` and after it in the old file has moved. */
typedef struct {
    int64_t start, shift;
} part;

typedef struct {
    part *parts;
    size_t count;
    uint32_t *pages; /* of each page of the old file the first part, or the one before */
    size_t page_count;
    int bits; /* of an offset in its page: there are at most 65536 pages */
} aims;

/* As a copy comes: [start, end) of the old file, moved by shift. */
typedef struct {
    int64_t start, end, shift;
} copied;

int aims_make(aims *out, copied *copies, size_t count, int64_t length);
void aims_free(aims *one);
int64_t aims_address(const aims *moved, const image *old, const image *new,
                     int64_t address);

/* One part of a copy, as it is rewritten: `data` holds the old bytes. */
typedef struct {
    const aims *moved;
    const image *old, *new;
    uint8_t *data;
    int64_t start, length; /* in the old file */
    int64_t to;            /* in the new one */
    /* Set by project_begin: */
    int simple;            /* it lies in one segment, and goes into one */
    int64_t was, now;      /* then: what makes addresses of its places */
    struct {
        const segment *old, *new;
    } near[2]; /* where the last references pointed to */
} passage;

void project_begin(passage *one);

void project_found(passage *one, const uint16_t *found, size_t count,
                   int64_t chunk);
void project_listed(passage *one, const listing *known);

#endif
