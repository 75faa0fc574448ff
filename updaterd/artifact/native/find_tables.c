/* SPDX-License-Identifier: Apache-2.0 */
/* Find jump tables: code loads the address of one, and adds what it finds there. */
#include "arm.h"
#include "find_tables.h"

#include <stdlib.h>
#include <string.h>

#define NEAR (1 << 18) /* a switch jumps within its function, bytes */

/* Where code refers to what may be a table. */
typedef struct {
    int64_t offset, from; /* of the table, in the file; the address referred from */
} candidate;

static int by_offset(const void *one, const void *other) {
    const candidate *a = one, *b = other;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return (a->from > b->from) - (a->from < b->from);
}

static int in_code(const image *program, int64_t address) {
    return address >= program->code_low && address < program->code_high;
}

/* Returns the candidates, sorted; NULL without memory. */
static candidate *candidates(const image *program, const uint8_t *data, int64_t length,
                             size_t *count) {
    size_t room = 4096;
    candidate *out = malloc(room * sizeof *out);
    uint16_t found[MAX_FOUND];
    *count = 0;
    for (int64_t at = 0; out && at < length; at += CHUNK) {
        const size_t size = length - at < CHUNK ? (size_t)(length - at) : CHUNK;
        const size_t references = image_search(program, data + at, at, size, found);
        for (size_t i = 0; i < references; i++) {
            const int kind = found_kind(program, found[i]);
            const int64_t place = at + found_place(program, found[i]);
            const int64_t from = image_address(program, place);
            const segment *holder;
            if (kind == ABSOLUTE) continue;
            if (kind == STEP && !arm_is_address(data + place)) continue;
            const int64_t target =
                kind == STEP ? arm_target(data + place, found_how(found[i]), from)
                             : from + 4 + s32(data + place);
            if (in_code(program, target)) continue;
            const int64_t offset = image_offset(program, target, &holder);
            if (offset < 0 || offset % 4) continue;
            if (*count == room) {
                candidate *more = realloc(out, 2 * room * sizeof *out);
                if (!more) {
                    free(out);
                    return NULL;
                }
                out = more;
                room *= 2;
            }
            out[(*count)++] = (candidate){offset, from};
        }
    }
    if (out) qsort(out, *count, sizeof *out, by_offset);
    return out;
}

/* Returns where the room for a table at `offset` ends: its segment, or a region. */
static int64_t room_end(const image *program, int64_t offset) {
    int64_t end = offset;
    for (size_t i = 0; i < program->segment_count; i++) {
        const segment *one = &program->segments[i];
        if (offset >= one->offset && offset < one->offset + one->stored)
            end = one->offset + one->stored;
    }
    for (size_t i = 0; i < program->region_count; i++) {
        const region *one = &program->regions[i];
        if (one->kind == WORDS || one->start + one->length <= offset) continue;
        if (one->start <= offset) return offset;
        if (one->start < end) end = one->start;
    }
    return end;
}

/* Returns the jump tables of a program, ascending; NULL without memory.
 *
 * An entry is an offset from its table to code near the reference; a table ends
 * where that is not so, or where another one may begin. */
table *find_tables(const image *program, const uint8_t *data, int64_t length,
                   size_t *count) {
    size_t given;
    candidate *some = candidates(program, data, length, &given);
    table *out = some ? malloc((MAX_TABLES + 1) * sizeof *out) : NULL;
    *count = 0;
    int64_t listed_so_far = 0;
    for (size_t i = 0; out && i < given && *count < MAX_TABLES; i++) {
        if (i && some[i].offset == some[i - 1].offset) continue;
        const int64_t offset = some[i].offset;
        int64_t end = room_end(program, offset);
        for (size_t j = i + 1; j < given; j++)
            if (some[j].offset != offset) {
                if (some[j].offset < end) end = some[j].offset;
                break;
            }
        const int64_t base = image_address(program, offset);
        int64_t entries = 0;
        for (int64_t at = offset; at + 4 <= end; at += 4, entries++) {
            const int64_t target = base + s32(data + at);
            if (!in_code(program, target) || target - some[i].from > NEAR ||
                some[i].from - target > NEAR)
                break;
        }
        listed_so_far += entries;
        if (listed_so_far > MAX_LISTED / 2) break; /* what else is listed needs room */
        if (entries) out[(*count)++] = (table){offset, entries};
    }
    free(some);
    return out;
}
