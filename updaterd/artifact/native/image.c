/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is made of, and where its references are (docs/formats.md). */
#include "arm.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define LARGEST ((int64_t)1 << 53)
#define AHEAD 69 /* bytes that 64 are searched with: the last one's reference */

/* Returns the segment that stores [offset, offset + length) of the file, or NULL. */
const segment *image_storing(const image *program, int64_t offset, int64_t length) {
    for (size_t i = 0; i < program->segment_count; i++) {
        const segment *one = &program->segments[i];
        if (offset >= one->offset && offset < one->offset + one->stored)
            return length <= one->offset + one->stored - offset ? one : NULL;
    }
    return NULL;
}

/* Returns the segment whose memory an address lies in, or NULL. */
const segment *image_holder(const image *program, int64_t address) {
    for (size_t i = 0; i < program->segment_count; i++) {
        const segment *one = &program->segments[i];
        if (address >= one->address && address - one->address < one->memory)
            return one;
    }
    return NULL;
}

static int sane(int64_t value) { return value >= 0 && value < LARGEST; }

static const char *check_segments(image *program) {
    if (!program->segment_count || program->segment_count > MAX_SEGMENTS)
        return "an image has too few or too many segments";
    program->code_low = program->memory_low = LARGEST;
    program->code_high = program->memory_high = 0;
    program->end = 0;
    for (size_t i = 0; i < program->segment_count; i++) {
        const segment *one = &program->segments[i];
        if (!sane(one->offset) || !sane(one->address) || !sane(one->stored) ||
            !sane(one->memory) || one->memory < one->stored ||
            !sane(one->offset + one->stored) || !sane(one->address + one->memory) ||
            (one->code != 0 && one->code != 1))
            return "an image has an impossible segment";
        int64_t high = one->address + one->memory;
        for (size_t j = 0; j < i; j++) {
            const segment *other = &program->segments[j];
            if (other->offset + other->stored > one->offset)
                return "an image has segments out of order";
            if (one->address < other->address + other->memory && other->address < high)
                return "an image has overlapping segments";
        }
        program->end = one->offset + one->stored;
        if (one->address < program->memory_low) program->memory_low = one->address;
        if (high > program->memory_high) program->memory_high = high;
        if (one->code && one->address < program->code_low)
            program->code_low = one->address;
        if (one->code && high > program->code_high) program->code_high = high;
    }
    return NULL;
}

/* Check what came from a bundle; set what follows from it.
 *
 * Returns what is wrong, or NULL. */
const char *image_check(image *program) {
    const char *wrong = check_segments(program);
    if (wrong) return wrong;
    if (program->region_count > MAX_REGIONS || program->table_count > MAX_TABLES)
        return "an image has too many parts";
    int64_t end = 0, count = 0;
    int others = 0; /* regions of code that is not AArch64 */
    program->arm = 0;
    for (size_t i = 0; i < program->region_count; i++) {
        const region *one = &program->regions[i];
        program->arm |= one->kind == ARM;
        others |= one->kind == CODE;
        if (one->kind < 0 || one->kind >= REGION_KINDS || !sane(one->length) ||
            one->start < end || !image_storing(program, one->start, one->length))
            return "an image has an impossible region";
        for (size_t p = 0; p < PARAMETERS; p++)
            if (!sane(one->parameter[p])) return "an image has an impossible region";
        if (one->kind == TABLE) count += one->length / 4;
        if (one->kind == FUNCTIONS) {
            if (one->parameter[0] > one->length / 8)
                return "an image has more functions than its region";
            count += 2 * one->parameter[0];
        }
        end = one->start + one->length;
    }
    if (program->arm && others) return "an image has code of two processors";
    end = 0;
    for (size_t i = 0; i < program->table_count; i++) {
        const table *one = &program->tables[i];
        if (one->entries < 1 || one->entries > MAX_LISTED || one->offset < end ||
            !image_storing(program, one->offset, 4 * one->entries))
            return "an image has an impossible table";
        count += one->entries;
        end = one->offset + 4 * one->entries;
        for (size_t r = 0; r < program->region_count; r++) {
            const region *other = &program->regions[r];
            if (other->kind != WORDS && one->offset < other->start + other->length &&
                other->start < end)
                return "an image has a table in another region";
        }
    }
    if (count > MAX_LISTED) return "an image lists too many references";
    return NULL;
}

/* Returns the address of a file offset, or -1 where no segment stores it. */
int64_t image_address(const image *program, int64_t offset) {
    for (size_t i = 0; i < program->segment_count; i++) {
        const segment *one = &program->segments[i];
        if (offset >= one->offset && offset - one->offset < one->stored)
            return one->address + offset - one->offset;
    }
    return -1;
}

/* Returns the file offset of an address, or -1 where no file has its bytes.
 *
 * `found` is the segment whose memory holds the address, or NULL. */
int64_t image_offset(const image *program, int64_t address, const segment **found) {
    const segment *one = *found = image_holder(program, address);
    if (!one || address - one->address >= one->stored) return -1;
    return one->offset + address - one->address;
}

/* Returns a bit for each of 64 bytes that may start a reference: E8, E9, 0F before 8x,
 * and what is 05 but for the bits of C7; where the highest byte of what follows is that
 * of a distance of at most `reach` * 2^24. Nothing else is looked at. Reads 69 bytes. */
#ifdef __SSE2__
static __m128i load(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

static uint64_t may_start(const uint8_t *at, int reach) {
    const __m128i one = _mm_set1_epi8(1), jump = _mm_set1_epi8((char)0xE9);
    const __m128i escape = _mm_set1_epi8(0x0F), modrm = _mm_set1_epi8(0x05);
    const __m128i fields = _mm_set1_epi8((char)0xC7), upper = _mm_set1_epi8((char)0xF0);
    const __m128i branch = _mm_set1_epi8((char)0x80);
    const __m128i above = _mm_set1_epi8((char)(reach + 1));
    const __m128i most = _mm_set1_epi8((char)(2 * reach + 1));
    uint64_t out = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const uint8_t *here = at + 16 * i;
        const __m128i some = load(here);
        __m128i hit = _mm_cmpeq_epi8(_mm_or_si128(some, one), jump);
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_and_si128(some, fields), modrm));
        __m128i top = _mm_add_epi8(load(here + 4), above);
        hit = _mm_and_si128(hit, _mm_cmpeq_epi8(_mm_min_epu8(top, most), top));
        __m128i two = _mm_cmpeq_epi8(_mm_and_si128(load(here + 1), upper), branch);
        two = _mm_and_si128(two, _mm_cmpeq_epi8(some, escape));
        top = _mm_add_epi8(load(here + 5), above);
        two = _mm_and_si128(two, _mm_cmpeq_epi8(_mm_min_epu8(top, most), top));
        hit = _mm_or_si128(hit, two);
        out |= (uint64_t)(uint32_t)_mm_movemask_epi8(hit) << 16 * i;
    }
    return out;
}
#else
static int is_near(uint8_t top, int reach) {
    return (uint8_t)(top + reach + 1) <= 2 * reach + 1;
}

static uint64_t may_start(const uint8_t *at, int reach) {
    uint64_t out = 0;
    for (int i = 0; i < 64; i++) {
        const uint8_t byte = at[i];
        int hit = 0;
        if (byte == 0x0F)
            hit = (at[i + 1] & 0xF0) == 0x80 && is_near(at[i + 5], reach);
        else if ((byte | 1) == 0xE9 || (byte & 0xC7) == 0x05)
            hit = is_near(at[i + 4], reach);
        out |= (uint64_t)hit << i;
    }
    return out;
}
#endif

/* What code is searched with. */
typedef struct {
    const image *program;
    uint64_t code, memory; /* how large they are */
    int64_t shift;         /* makes an address of an index in the chunk */
} searcher;

/* Returns how long the instruction's rest is, up to its reference's end; 0: none. */
static size_t reference_at(const searcher *by, const uint8_t *chunk, size_t i,
                           size_t low, size_t high) {
    const uint8_t byte = chunk[i];
    const int64_t address = (int64_t)i + by->shift;
    if ((byte | 1) == 0xE9) {
        const int64_t target = address + 5 + s32(chunk + i + 1);
        return (uint64_t)(target - by->program->code_low) < by->code ? 5 : 0;
    }
    if (byte == 0x0F) {
        if (i + 6 > high || (chunk[i + 1] & 0xF0) != 0x80) return 0;
        const int64_t target = address + 6 + s32(chunk + i + 2);
        return (uint64_t)(target - by->program->code_low) < by->code ? 6 : 0;
    }
    const int32_t value = s32(chunk + i + 1);
    if (i == low || !value) return 0;
    const int64_t target = address + 5 + value;
    return (uint64_t)(target - by->program->memory_low) < by->memory ? 5 : 0;
}

/* Search code [low, high) of the chunk; `shift` makes an address of an index. */
static size_t search_code(const image *program, const uint8_t *chunk, size_t low,
                          size_t high, int64_t shift, uint16_t *out) {
    const int any = program->code_high > program->code_low;
    const searcher by = {
        program, any ? (uint64_t)(program->code_high - program->code_low) : 0,
        (uint64_t)(program->memory_high - program->memory_low), shift};
    /* No reference reaches farther than the program is long; 16 for its instruction. */
    const int64_t far = (int64_t)((by.memory + 16) >> 24);
    const int reach = far < 127 ? (int)far : 127;
    uint8_t rest[AHEAD] = {0};
    size_t count = 0, next = low;
    for (size_t at = low; at + 5 <= high; at += 64) {
        const uint8_t *some = chunk + at;
        if (high - at < AHEAD) some = memcpy(rest, some, high - at);
        for (uint64_t left = may_start(some, reach); left; left &= left - 1) {
            const size_t i = at + (size_t)__builtin_ctzll(left);
            if (i < next) continue;
            if (i + 5 > high) return count;
            const size_t size = reference_at(&by, chunk, i, low, high);
            if (!size) continue;
            out[count++] = PACKED(i + size - 4, RELATIVE);
            next = i + size;
        }
    }
    return count;
}

static size_t search_words(const image *program, const uint8_t *chunk, size_t low,
                           size_t high, uint16_t *out) {
    const uint64_t least =
        program->memory_low > 4096 ? (uint64_t)program->memory_low : 4096;
    const uint64_t most = (uint64_t)program->memory_high;
    size_t count = 0;
    for (size_t i = (low + 7) & ~(size_t)7; i + 8 <= high; i += 8) {
        uint64_t value = u64(chunk + i);
        if (value >= least && value < most)
            out[count++] = program->arm ? (uint16_t)(i << 2) : PACKED(i, ABSOLUTE);
    }
    return count;
}

/* Find the references that are searched for in a chunk.
 *
 * at: where the chunk lies in the file, a multiple of CHUNK.
 * length: of it; less than CHUNK at the file's end.
 * out: room for MAX_FOUND.
 * Returns how many there are. */
size_t image_search(const image *program, const uint8_t *chunk, int64_t at,
                    size_t length, uint16_t *out) {
    const int64_t end = at + (int64_t)length;
    size_t count = 0;
    for (size_t i = 0; i < program->region_count; i++) {
        const region *one = &program->regions[i];
        if (one->start >= end) break;
        if (one->start + one->length <= at) continue;
        size_t low = one->start > at ? (size_t)(one->start - at) : 0;
        size_t high = one->start + one->length < end
                          ? (size_t)(one->start + one->length - at)
                          : length;
        if (one->kind == CODE)
            count += search_code(program, chunk, low, high,
                                 image_address(program, one->start) - one->start + at,
                                 out + count);
        else if (one->kind == ARM)
            count += arm_search(program, chunk, low, high,
                                image_address(program, one->start) - one->start + at,
                                out + count);
        else if (one->kind == WORDS)
            count += search_words(program, chunk, low, high, out + count);
    }
    return count;
}
