/* SPDX-License-Identifier: Apache-2.0 */
/* What every file of updaterd.artifact._native shares.

   The module is built once for all Pythons from 3.11: only what the limited API of that
   version has may be called (the compiler refuses the rest). */

#ifndef UPDATERD_NATIVE_H
#define UPDATERD_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Returns a number of a column, which may lie at any address. */
static inline int64_t
get(const void *column, Py_ssize_t index)
{
    int64_t value;
    memcpy(&value, (const char *)column + 8 * index, 8);
    return value;
}

/* A number of the delta format, which Python and docs/formats.md have too. */
typedef struct {
    const char *name;
    long value;
} number;

static inline int
native_add_numbers(PyObject *module, const number *rows)
{
    for (; rows->name != NULL; rows++)
        if (PyModule_AddIntConstant(module, rows->name, rows->value) < 0)
            return -1;
    return 0;
}

/* Each adds the functions of its file to the module; -1 with an exception set. */
int native_add_apply(PyObject *module);
int native_add_gather(PyObject *module);
int native_add_references(PyObject *module);

#endif
