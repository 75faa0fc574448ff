/* SPDX-License-Identifier: Apache-2.0 */
/* References in AArch64 code (docs/formats.md); artifact/programs/arm.py is the same. */
#ifndef UPDATERD_ARM_H
#define UPDATERD_ARM_H

#include "image.h"

/* How a reference is made, as a search finds it: 1 is an instruction by itself; then
 * the low bits of an address whose page is loaded 1 to 7 instructions before, by one
 * that others follow (2 to 8) or as the last one (9 to 15), which has the page with it. */
enum { ALONE = 1, LOW = 1, LAST = 8, WINDOW = 7 };

/* Returns how many bytes before its place a reference begins. */
static inline int64_t arm_before(int how) {
    return how == ALONE ? 0 : 4 * (how - (how > LAST ? LAST : LOW));
}

size_t arm_search(const image *program, const uint8_t *chunk, size_t low, size_t high,
                  int64_t shift, uint16_t *out);
int64_t arm_target(const uint8_t *at, int how, int64_t address);
void arm_put(uint8_t *at, int how, int64_t target, int64_t address, int64_t page_from);
void arm_blank(uint8_t *at, int how);
int arm_is_address(const uint8_t *at);

#endif
