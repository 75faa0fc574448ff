/* SPDX-License-Identifier: Apache-2.0 */
/* Re-aim references through the map of what was copied where (docs/formats.md). */
#include "aim.h"
#include "arm.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PAGES 65536 /* in one map: 256 KiB */
#define FEW 64

static int by_start(const void *one, const void *other) {
    const copied *a = one, *b = other;
    if (a->start != b->start) return a->start < b->start ? -1 : 1;
    /* In the order of the stream, that of the new file. */
    const int64_t first = a->start + a->shift, second = b->start + b->shift;
    return (first > second) - (first < second);
}

/* Where copies overlap, the longer one has the say. Returns how many are left;
 * `end` of each is where it stops to have it. */
static size_t settle(copied *copies, size_t count) {
    size_t kept = 0;
    int64_t length = 0; /* of the last one kept, before it was cut */
    for (size_t i = 0; i < count; i++) {
        copied one = copies[i];
        const int64_t whole = one.end - one.start;
        if (kept && one.start < copies[kept - 1].end) {
            copied *last = &copies[kept - 1];
            if (whole > length) {
                last->end = one.start;
                if (last->end <= last->start) {
                    one.start = last->start; /* so that starts ascend */
                    kept--;
                }
            } else {
                one.start = last->end;
                if (one.start >= one.end) continue;
            }
        }
        copies[kept++] = one;
        length = whole;
    }
    return kept;
}

/* Sort by start. Copies are spread over the file, so each page gets a few of them:
 * `pages` has room for one number more than there are pages. */
static int sort(copied *copies, size_t count, int bits, uint32_t *pages,
                size_t page_count) {
    copied *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return -1;
    memset(pages, 0, (page_count + 1) * sizeof *pages);
    for (size_t i = 0; i < count; i++) pages[(copies[i].start >> bits) + 1]++;
    for (size_t page = 0; page < page_count; page++) pages[page + 1] += pages[page];
    for (size_t i = 0; i < count; i++)
        sorted[pages[copies[i].start >> bits]++] = copies[i];
    /* Now each number is where the next page begins. */
    for (size_t page = 0, from = 0; page < page_count; from = pages[page++]) {
        if (pages[page] - from > FEW)
            qsort(sorted + from, pages[page] - from, sizeof *sorted, by_start);
        else
            for (size_t i = from + 1; i < pages[page]; i++) {
                const copied one = sorted[i];
                size_t to = i;
                for (; to > from && sorted[to - 1].start > one.start; to--)
                    sorted[to] = sorted[to - 1];
                sorted[to] = one;
            }
    }
    memcpy(copies, sorted, count * sizeof *sorted);
    free(sorted);
    return 0;
}

/* Make the map of an old file from the copies that read it; they are reordered.
 *
 * Returns 0, or -1: there is no memory. */
int aims_make(aims *out, copied *copies, size_t count, int64_t length) {
    memset(out, 0, sizeof *out);
    if (!count) return 0;
    /* With few copies few pages: what is looked up all the time stays in the cache. */
    const int64_t most = 4 * (int64_t)count + FEW;
    while (length >> out->bits >= (most < MAX_PAGES ? most : MAX_PAGES)) out->bits++;
    out->page_count = (size_t)(length >> out->bits) + 1;
    out->pages = malloc((out->page_count + 1) * sizeof *out->pages);
    if (!out->pages || sort(copies, count, out->bits, out->pages, out->page_count)) {
        aims_free(out);
        return -1;
    }
    count = settle(copies, count);
    out->parts = malloc(count * sizeof *out->parts);
    if (!out->parts) {
        aims_free(out);
        return -1;
    }
    out->count = count;
    for (size_t i = 0; i < count; i++)
        out->parts[i] = (part){copies[i].start, copies[i].shift};
    size_t next = 0;
    for (size_t page = 0; page < out->page_count; page++) {
        while (next + 1 < count &&
               out->parts[next + 1].start <= (int64_t)page << out->bits)
            next++;
        out->pages[page] = (uint32_t)next;
    }
    return 0;
}

void aims_free(aims *one) {
    free(one->parts);
    free(one->pages);
    memset(one, 0, sizeof *one);
}

/* Returns by how much the byte at `offset` has moved; `moved` has a part. */
static int64_t shift_of(const aims *moved, int64_t offset) {
    const size_t page = (size_t)(offset >> moved->bits);
    size_t low = moved->pages[page];
    size_t high = page + 1 < moved->page_count ? moved->pages[page + 1] + 1u
                                               : moved->count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (moved->parts[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return moved->parts[low].shift;
}

/* Returns what an old address is in the new program, or -1: unaimed. */
int64_t aims_address(const aims *moved, const image *old, const image *new,
                     int64_t address) {
    const segment *found;
    const int64_t offset = image_offset(old, address, &found);
    if (!found) return -1;
    if (offset >= 0) return image_address(new, offset + shift_of(moved, offset));
    const size_t index = (size_t)(found - old->segments);
    if (index >= new->segment_count) return -1;
    const segment *same = &new->segments[index];
    return same->address + same->stored + (address - found->address - found->stored);
}

/* As aims_address, with guesses: most references point where one of the last two did
 * that did not point to the same segment. */
static int64_t aimed(passage *one, int64_t address) {
    for (int i = 0; i < 2; i++) {
        const segment *from = one->near[i].old, *to = one->near[i].new;
        if ((uint64_t)(address - from->address) >= (uint64_t)from->stored) continue;
        const int64_t old = address - from->address + from->offset;
        const int64_t offset = old + shift_of(one->moved, old);
        if ((uint64_t)(offset - to->offset) < (uint64_t)to->stored)
            return offset - to->offset + to->address;
        break;
    }
    const int64_t now = aims_address(one->moved, one->old, one->new, address);
    if (now >= 0) {
        const segment *old = image_holder(one->old, address);
        const segment *new = image_holder(one->new, now);
        if (old && new) {
            one->near[1] = one->near[0];
            one->near[0].old = old;
            one->near[0].new = new;
        }
    }
    return now;
}

/* Begin to rewrite a part of a copy. */
void project_begin(passage *one) {
    for (int i = 0; i < 2; i++) {
        one->near[i].old = one->old->segments;
        one->near[i].new = one->new->segments;
    }
    const segment *was = image_storing(one->old, one->start, one->length);
    const segment *now = image_storing(one->new, one->to, one->length);
    one->simple = was && now;
    if (!one->simple) return;
    one->was = was->address - was->offset;
    one->now = now->address - now->offset + one->to - one->start;
}

static int64_t new_address(const passage *one, int64_t place) {
    if (one->simple) return place + one->now;
    return image_address(one->new, one->to + place - one->start);
}

static void project_one(passage *one, int64_t place, int kind, int plain,
                        int64_t base) {
    const int width = kind == ABSOLUTE ? 8 : 4;
    if (place < one->start || place + width > one->start + one->length) return;
    uint8_t *at = one->data + (place - one->start);
    const int64_t now = new_address(one, place);
    const int64_t was =
        one->simple ? place + one->was : image_address(one->old, place);
    if (now < 0) return;
    int64_t target;
    if (kind == ABSOLUTE) {
        const uint64_t value = u64(at);
        if (value > INT64_MAX) return;
        target = (int64_t)value;
    } else if (kind == RELATIVE) {
        target = was + 4 + s32(at);
    } else if (kind == BACK) {
        target = was - (int64_t)u32(at);
    } else {
        target = base + (plain ? (int64_t)u32(at) : (int64_t)s32(at));
    }
    target = aimed(one, target);
    if (target < 0) return;
    if (kind == ABSOLUTE) {
        put64(at, (uint64_t)target);
    } else if (kind == RELATIVE) {
        put32(at, (uint32_t)(uint64_t)(target - (now + 4)));
    } else if (kind == BACK) {
        put32(at, (uint32_t)(uint64_t)(now - target));
    } else {
        base = aimed(one, base);
        if (base >= 0) put32(at, (uint32_t)(uint64_t)(target - base));
    }
}

/* Rewrite a reference in AArch64 code, made as `how` says. */
static void project_step(passage *one, int64_t place, int how) {
    const int64_t before = arm_before(how);
    if (place - before < one->start || place + 4 > one->start + one->length) return;
    uint8_t *at = one->data + (place - one->start);
    const int64_t now = new_address(one, place);
    const int64_t page_from = new_address(one, place - before);
    if (now < 0 || page_from < 0) return;
    const int64_t was =
        one->simple ? place + one->was : image_address(one->old, place);
    const int64_t target = aimed(one, arm_target(at, how, was));
    if (target >= 0) arm_put(at, how, target, now, page_from);
}

/* Rewrite what was found in the chunk that lies at `chunk` in the old file. */
void project_found(passage *one, const uint16_t *found, size_t count,
                   int64_t chunk) {
    size_t low = 0, high = count;
    while (low < high) { /* the first one that may lie inside */
        const size_t middle = low + (high - low) / 2;
        if (chunk + found_place(one->old, found[middle]) < one->start)
            low = middle + 1;
        else
            high = middle;
    }
    const int64_t end = one->start + one->length;
    for (; low < count; low++) {
        const int64_t place = chunk + found_place(one->old, found[low]);
        const int kind = found_kind(one->old, found[low]);
        if (place >= end) break;
        if (kind == STEP)
            project_step(one, place, found_how(found[low]));
        else
            project_one(one, place, kind, 0, 0);
    }
}

/* Rewrite what is listed for the old file. */
void project_listed(passage *one, const listing *known) {
    const listed *items = known->items;
    size_t low = 0, high = known->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (items[middle].place < one->start)
            low = middle + 1;
        else
            high = middle;
    }
    const int64_t end = one->start + one->length;
    for (; low < known->count && items[low].place < end; low++)
        project_one(one, items[low].place, (int)items[low].kind, (int)items[low].plain,
                    known->bases[items[low].base]);
}
