/* SPDX-License-Identifier: Apache-2.0 */
/* References in AArch64 code: found, read, written (docs/formats.md). */
#include "arm.h"

#include <string.h>

/* What an instruction may be, by its highest byte. */
enum { OTHER, BRANCH, NEAR, TEST, LITERAL, ADDRESS, PAGE, SUM, STORE };

static const uint8_t forms[256] = {
    [0x14] = BRANCH,  [0x15] = BRANCH,  [0x16] = BRANCH,  [0x17] = BRANCH,
    [0x94] = BRANCH,  [0x95] = BRANCH,  [0x96] = BRANCH,  [0x97] = BRANCH,
    [0x54] = NEAR,    [0x34] = NEAR,    [0x35] = NEAR,    [0xB4] = NEAR,
    [0xB5] = NEAR,    [0x36] = TEST,    [0x37] = TEST,    [0xB6] = TEST,
    [0xB7] = TEST,    [0x18] = LITERAL, [0x1C] = LITERAL, [0x58] = LITERAL,
    [0x5C] = LITERAL, [0x98] = LITERAL, [0x9C] = LITERAL, [0xD8] = LITERAL,
    [0xDC] = LITERAL, [0x10] = ADDRESS, [0x30] = ADDRESS, [0x50] = ADDRESS,
    [0x70] = ADDRESS, [0x90] = PAGE,    [0xB0] = PAGE,    [0xD0] = PAGE,
    [0xF0] = PAGE,    [0x91] = SUM,     [0x39] = STORE,   [0x3D] = STORE,
    [0x79] = STORE,   [0x7D] = STORE,   [0xB9] = STORE,   [0xBD] = STORE,
    [0xF9] = STORE,   [0xFD] = STORE,
};

/* Returns bits [low, low + count) of a word, with their sign. */
static int64_t bits(uint32_t word, int low, int count) {
    return (int32_t)(word << (32 - low - count)) >> (32 - count);
}

static uint32_t field(int64_t value, int low, int count) {
    return ((uint32_t)value & ((1u << count) - 1)) << low;
}

/* The 21 bits that ADR and ADRP have in two places. */
static int64_t parted(uint32_t word) {
    return bits(word, 5, 19) * 4 + (word >> 29 & 3);
}

static uint32_t part(int64_t value) {
    return field(value >> 2, 5, 19) | field(value, 29, 2);
}

#define PARTED 0x60FFFFE0u
#define LOW_BITS 0x003FFC00u

/* Returns by how many bits a load or a store shifts its offset; ADD: none. */
static int scale(uint32_t word) {
    if (forms[word >> 24] == SUM) return 0;
    const int wide = (word >> 23 & 9) == 9 && word >> 30 == 0; /* a whole register Q */
    return wide ? 4 : (int)(word >> 30);
}

/* Tells whether an instruction adds low bits to what is in register `number`. */
static int takes(uint32_t word, uint32_t number) {
    const int form = forms[word >> 24];
    return (word >> 5 & 31) == number &&
           (form == STORE || (form == SUM && !(word >> 22 & 3)));
}

/* Tells whether it then puts something else into the register. */
static int replaces(uint32_t word, uint32_t number) {
    if ((word & 31) != number) return 0;
    return forms[word >> 24] == SUM || (!(word >> 26 & 1) && (word >> 22 & 3));
}

/* Note who takes the page that is loaded at `at`; returns how many do. */
static int pair(const uint8_t *chunk, size_t at, size_t high, uint8_t *how) {
    const uint32_t number = u32(chunk + at) & 31;
    size_t last = 0;
    int count = 0;
    for (size_t d = 1; d <= WINDOW && at + 4 * d + 4 <= high; d++) {
        const uint32_t word = u32(chunk + at + 4 * d);
        const int form = forms[word >> 24];
        if ((form == ADDRESS || form == PAGE) && (word & 31) == number) break;
        if (!takes(word, number)) continue;
        how[(at >> 2) + d] = (uint8_t)(LOW + d);
        last = d;
        count++;
        if (replaces(word, number)) break;
    }
    if (count) how[(at >> 2) + last] = (uint8_t)(LAST + last);
    return count;
}

/* Search code [low, high) of a chunk; `shift` makes an address of an index. */
size_t arm_search(const image *program, const uint8_t *chunk, size_t low, size_t high,
                  int64_t shift, uint16_t *out) {
    uint8_t how[CHUNK / 4];
    size_t count = 0;
    memset(how, 0, sizeof how);
    for (size_t at = (low + 3) & ~(size_t)3; at + 4 <= high; at += 4) {
        const uint32_t word = u32(chunk + at);
        const int form = forms[word >> 24];
        if (form != OTHER && form < SUM) {
            const int64_t address = (int64_t)at + shift;
            const int64_t target = arm_target(chunk + at, ALONE, address);
            int64_t least = program->memory_low, most = program->memory_high;
            int good = 1;
            if (form < LITERAL) {
                least = program->code_low;
                most = program->code_high;
                good = word >> 24 != 0x54 || !(word & 16);
            } else if (form == LITERAL) {
                good = target != address;
            } else if (form == PAGE) { /* some of it is enough: that is its middle */
                least -= 2047;
                most += 2048;
            }
            if (good && target >= least && target < most &&
                (form != PAGE || !pair(chunk, at, high, how)))
                how[at >> 2] = ALONE;
        }
        if (how[at >> 2]) out[count++] = (uint16_t)(at << 2 | how[at >> 2]);
    }
    return count;
}

/* Returns what the reference at `at` refers to; that is its address. */
int64_t arm_target(const uint8_t *at, int how, int64_t address) {
    const uint32_t word = u32(at);
    if (how != ALONE) {
        const int64_t before = arm_before(how);
        const int64_t page = ((address - before) >> 12) + parted(u32(at - before));
        return page * 4096 + ((int64_t)(word >> 10 & 0xFFF) << scale(word));
    }
    switch (forms[word >> 24]) {
    case BRANCH: return address + 4 * bits(word, 0, 26);
    case NEAR:
    case LITERAL: return address + 4 * bits(word, 5, 19);
    case TEST: return address + 4 * bits(word, 5, 14);
    case ADDRESS: return address + parted(word);
    default: return ((address >> 12) + parted(word)) * 4096 + 2048;
    }
}

/* Have the reference at `at`, which comes to lie at `address`, refer to a target; the
 * instruction that loads its page comes to lie at `page_from`. */
void arm_put(uint8_t *at, int how, int64_t target, int64_t address, int64_t page_from) {
    uint32_t word = u32(at);
    if (how != ALONE) {
        const int64_t low = (target & 0xFFF) >> scale(word);
        put32(at, (word & ~LOW_BITS) | field(low, 10, 12));
        if (how <= LAST) return;
        at -= arm_before(how);
        const int64_t page = (target >> 12) - (page_from >> 12);
        put32(at, (u32(at) & ~PARTED) | part(page));
        return;
    }
    const int64_t by = target - address;
    switch (forms[word >> 24]) {
    case BRANCH: word = (word & 0xFC000000u) | field(by >> 2, 0, 26); break;
    case NEAR:
    case LITERAL: word = (word & 0xFF00001Fu) | field(by >> 2, 5, 19); break;
    case TEST: word = (word & 0xFFF8001Fu) | field(by >> 2, 5, 14); break;
    case ADDRESS: word = (word & ~PARTED) | part(by); break;
    default: word = (word & ~PARTED) | part((target >> 12) - (address >> 12));
    }
    put32(at, word);
}

/* Blank the reference at `at`. */
void arm_blank(uint8_t *at, int how) {
    const int64_t before = arm_before(how);
    arm_put(at, how, 0, 0, 0);
    if (before) put32(at - before, u32(at - before) & ~PARTED);
}

/* Tells whether the instruction at `at` leaves an address in a register. */
int arm_is_address(const uint8_t *at) {
    const int form = forms[u32(at) >> 24];
    return form == ADDRESS || form == SUM;
}
