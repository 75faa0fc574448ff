/* SPDX-License-Identifier: Apache-2.0 */
/* Jump tables, for the release side; a reader is told where they are. */
#ifndef UPDATERD_FIND_TABLES_H
#define UPDATERD_FIND_TABLES_H

#include "image.h"

table *find_tables(const image *program, const uint8_t *data, int64_t length,
                   size_t *count);

#endif
