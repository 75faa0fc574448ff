/* SPDX-License-Identifier: Apache-2.0 */
/* The references of a program that are not searched for, but listed by its own tables:
 * see artifact/programs/listed.py, which is the same without a compiler. */
#include "image.h"

#include <stdlib.h>

/* Returns 0; or -1: there are too many, or (`out->starved`) there is no memory. */
static int list(listing *out, int64_t place, unsigned kind, unsigned plain,
                unsigned base) {
    if (out->count == out->room) {
        size_t room = out->room ? 2 * out->room : 1024;
        if (room > MAX_LISTED) return -1;
        listed *more = realloc(out->items, room * sizeof *more);
        if (!more) {
            out->starved = 1;
            return -1;
        }
        out->items = more;
        out->room = room;
    }
    out->items[out->count++] =
        (listed){(uint32_t)place, kind, plain, base};
    return 0;
}

/* Returns the index of a new base; there is room for all that an image can have. */
static unsigned new_base(listing *out, int64_t address) {
    out->bases[out->base_count] = address;
    return (unsigned)out->base_count++;
}

void listing_free(listing *one) {
    free(one->items);
    free(one->bases);
    *one = (listing){0};
}

/* .eh_frame: the FDEs' way back to their CIE, what they begin at, and their LSDA. */
static int list_frames(const region *one, walker *file, listing *out) {
    const int64_t end = one->start + one->length;
    for (int64_t at = one->start; at + 8 <= end;) {
        const uint8_t *head = file->look(file->here, at, 8);
        if (!head) return -1;
        const int64_t length = u32(head);
        if (length < 4 || length == 0xFFFFFFFF || at + 4 + length > end) break;
        if (u32(head + 4) && length >= 12) {
            if (list(out, at + 4, BACK, 1, 0) || list(out, at + 8, RELATIVE, 0, 0))
                return -1;
            if (length >= 17) {
                const uint8_t *rest = file->look(file->here, at + 16, 5);
                if (!rest) return -1;
                if (rest[0] == 4 && u32(rest + 1) &&
                    list(out, at + 17, RELATIVE, 0, 0))
                    return -1;
            }
        }
        at += 4 + length;
    }
    return 0;
}

/* Go's functab, and the functions it names (go.dev/src/runtime/symtab.go). */
static int list_functions(const image *program, const region *one, walker *file,
                          listing *out) {
    const int64_t count = one->parameter[0];
    const unsigned text = new_base(out, one->parameter[1]);
    const unsigned names = new_base(out, one->parameter[2]);
    const unsigned values = new_base(out, one->parameter[3]);
    const unsigned data = new_base(out, one->parameter[4]);
    const int64_t start = one->start, end = start + one->length;
    const unsigned here = new_base(out, image_address(program, start));
    for (int64_t i = 0; i < count; i++)
        if (list(out, start + 8 * i, OFFSET, 1, text) ||
            list(out, start + 8 * i + 4, OFFSET, 1, here))
            return -1;
    int64_t last = start + 8 * count;
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *entry = file->look(file->there, start + 8 * i + 4, 4);
        if (!entry) return -1;
        const int64_t at = start + u32(entry);
        if (at < last || at + 44 > end) continue;
        size_t size = end - at < 44 + 4 * 28 ? (size_t)(end - at) : 44 + 4 * 28;
        const uint8_t *function = file->look(file->here, at, size);
        if (!function) return -1;
        if (list(out, at, OFFSET, 1, text) || list(out, at + 4, OFFSET, 1, names))
            return -1;
        for (int64_t q = 16; q <= 24; q += 4)
            if (u32(function + q) && list(out, at + q, OFFSET, 1, values)) return -1;
        const int64_t n = u32(function + 28) < 16 ? u32(function + 28) : 16;
        const int64_t m = function[43] < 12 ? function[43] : 12;
        for (int64_t j = 0; j < n + m; j++) {
            const int64_t q = 44 + 4 * j;
            if (at + q + 4 > end) break;
            const uint32_t value = u32(function + q);
            if (j < n ? value && list(out, at + q, OFFSET, 1, values)
                      : one->parameter[4] && value != 0xFFFFFFFF &&
                            list(out, at + q, OFFSET, 1, data))
                return -1;
        }
        last = at + 44 + 4 * (n + m);
    }
    return 0;
}

static int list_table(const image *program, const table *one, listing *out) {
    const unsigned base = new_base(out, image_address(program, one->offset));
    for (int64_t k = 0; k < one->entries; k++)
        if (list(out, one->offset + 4 * k, OFFSET, 0, base)) return -1;
    return 0;
}

/* List what is not searched for, in ascending order of place.
 *
 * Returns 0; or -1: too many, no memory, or the file could not be read. */
int image_list(const image *program, walker *file, listing *out) {
    size_t next = 0; /* of the tables: they lie between the regions that list */
    const size_t bases = PARAMETERS * program->region_count + program->table_count;
    out->bases = calloc(bases + 1, sizeof *out->bases);
    if (!out->bases) {
        out->starved = 1;
        return -1;
    }
    for (size_t i = 0; i < program->region_count; i++) {
        const region *one = &program->regions[i];
        if (one->kind == CODE || one->kind == WORDS || one->kind == ARM) continue;
        for (; next < program->table_count; next++) {
            if (program->tables[next].offset >= one->start) break;
            if (list_table(program, &program->tables[next], out)) return -1;
        }
        int failed = 0;
        if (one->kind == FRAMES) failed = list_frames(one, file, out);
        if (one->kind == FUNCTIONS) failed = list_functions(program, one, file, out);
        if (one->kind == TABLE) {
            const unsigned base = new_base(out, one->parameter[0]);
            for (int64_t at = 0; !failed && at + 4 <= one->length; at += 4)
                failed = list(out, one->start + at, OFFSET, 0, base);
        }
        if (failed) return -1;
    }
    for (; next < program->table_count; next++)
        if (list_table(program, &program->tables[next], out)) return -1;
    return 0;
}
