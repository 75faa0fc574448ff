/* SPDX-License-Identifier: Apache-2.0 */
/* Reading old data: what sources.py does for each operation, for a batch of them.

   Half of a program's operations are shorter than 60 bytes, so what they lie in is read
   in blocks, and a block serves whoever comes next; long ones are read straight to where
   they go. Old files are not mapped: a mapped page is this process's memory, giving
   pages back and faulting them in again took three times as long for a program of 100
   MB, and a file that is cut short while it is mapped kills whoever reads on. */

#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#include "native.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define PIECES 16 /* files at hand; sources.py keeps more of them open */
#define BLOCK 4096
#define BLOCKS 128
#define AHEAD 4 /* blocks that are read at once when they follow the last one */
#define LONG (AHEAD * BLOCK)

/* A file of the virtual concatenation: [low, high), -1 where it cannot be read; it
   begins at `base` of what is open. */
typedef struct {
    int64_t low, high, base;
    int fd;
} piece;

typedef struct {
    piece pieces[PIECES]; /* empty where high is not above low */
    int last;
    char *blocks;          /* BLOCKS of them, or NULL */
    int64_t known[BLOCKS]; /* where each begins, and one more; 0: nowhere */
    int64_t next;          /* what follows the last one read, and one more */
    int64_t cut;           /* the last place where a file had fewer bytes than it should:
                              files of the new tree come last; -1: none */
} reader;

static inline int
holds(const piece *one, int64_t position)
{
    return position >= one->low && position < one->high;
}

/* Finds the file that holds a position; NULL with an error set. */
static const piece *
find(reader *here, PyObject *ask, int64_t position)
{
    if (holds(&here->pieces[here->last], position))
        return &here->pieces[here->last];
    for (int i = 0; i < PIECES; i++)
        if (holds(&here->pieces[i], position))
            return &here->pieces[here->last = i];
    /* The oldest answer goes: what was asked for last is what is still open. */
    memmove(here->pieces + 1, here->pieces, (PIECES - 1) * sizeof *here->pieces);
    piece *one = &here->pieces[here->last = 0];
    one->low = one->high = 0;
    PyObject *answer = PyObject_CallFunction(ask, "L", (long long)position);
    if (answer == NULL)
        return NULL;
    long long low, high, base = 0;
    int fd, found = PyTuple_Check(answer);
    if (found)
        found = PyArg_ParseTuple(answer, "LLi|L", &low, &high, &fd, &base);
    else
        PyErr_SetString(PyExc_TypeError, "a piece is a tuple");
    Py_DECREF(answer);
    if (!found)
        return NULL;
    *one = (piece){low, high, base, fd};
    if (low >= 0 && base >= 0 && holds(one, position))
        return one;
    one->low = one->high = 0;
    PyErr_SetString(PyExc_ValueError, "a piece does not hold what was asked for");
    return NULL;
}

/* Reads [low, low + count) of a file; zeros for what cannot be read, or is not there. */
static void
fill(reader *here, const piece *one, char *to, int64_t low, int64_t count)
{
    while (one->fd >= 0 && count > 0) {
        ssize_t got = pread(one->fd, to, (size_t)count, (off_t)(low - one->low + one->base));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        to += got, low += got, count -= got;
    }
    if (one->fd >= 0 && count > 0 && low > here->cut)
        here->cut = low;
    memset(to, 0, (size_t)count);
}

/* Returns the block of a file that begins at `at`, and is read if it was not. */
static const char *
block(reader *here, const piece *one, int64_t at)
{
    const int slot = (int)(at / BLOCK % BLOCKS);
    if (here->known[slot] != at + 1) {
        int count = here->next == at + 1 ? AHEAD : 1;
        if (count > BLOCKS - slot)
            count = BLOCKS - slot;
        int64_t size = (int64_t)count * BLOCK;
        if (size > one->high - at)
            size = one->high - at;
        fill(here, one, here->blocks + slot * BLOCK, at, size);
        for (int64_t i = 0; i * BLOCK < size; i++)
            here->known[slot + i] = at + i * BLOCK + 1;
        here->next = at + size + 1;
    }
    return here->blocks + slot * BLOCK;
}

/* Reads a range that lies in one file. */
static int
part(reader *here, const piece *one, char *to, int64_t low, int64_t high)
{
    if (high - low >= LONG) {
        fill(here, one, to, low, high - low);
        return 0;
    }
    if (here->blocks == NULL) {
        here->blocks = PyMem_Malloc(BLOCKS * BLOCK);
        if (here->blocks == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    while (low < high) {
        const int64_t offset = (low - one->low) % BLOCK;
        int64_t count = BLOCK - offset;
        if (count > high - low)
            count = high - low;
        memcpy(to, block(here, one, low - offset) + offset, (size_t)count);
        to += count, low += count;
    }
    return 0;
}

/* Reads [low, high); -1 with an error set. */
static int
range(reader *here, PyObject *ask, char *to, int64_t low, int64_t high)
{
    while (low < high) {
        const piece *one = find(here, ask, low);
        if (one == NULL)
            return -1;
        int64_t stop = high < one->high ? high : one->high;
        if (part(here, one, to, low, stop) < 0)
            return -1;
        to += stop - low;
        low = stop;
    }
    return 0;
}

PyDoc_STRVAR(gather_doc,
             "gather(starts, ends, piece)\n--\n\n"
             "Return many ranges, joined, and the last position where a file turned out\n"
             "to have fewer bytes than it should; -1: in none.\n\n"
             "piece(position) returns (low, high, fd) of the file that holds it; -1: it\n"
             "reads as zeros; a fourth number: where in fd it begins. The last 16 that it returned have to stay open.");

static PyObject *
gather(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer starts, ends;
    PyObject *ask, *out = NULL;
    reader here = {.cut = -1};

    if (!PyArg_ParseTuple(args, "y*y*O", &starts, &ends, &ask))
        return NULL;
    Py_ssize_t count = starts.len / 8;
    int64_t size = 0;
    int fits = starts.len == ends.len && starts.len % 8 == 0;
    for (Py_ssize_t i = 0; i < count && fits; i++) {
        int64_t low = get(starts.buf, i), high = get(ends.buf, i);
        fits = low >= 0 && low <= high &&
               !__builtin_add_overflow(size, high - low, &size);
    }
    if (!fits || size > PY_SSIZE_T_MAX) {
        PyErr_SetString(PyExc_ValueError, "operations: ranges that do not add up");
        goto done;
    }
    out = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
    char *to = out == NULL ? NULL : PyByteArray_AsString(out);
    for (Py_ssize_t i = 0; out != NULL && i < count; i++) {
        int64_t low = get(starts.buf, i), high = get(ends.buf, i);
        if (range(&here, ask, to, low, high) < 0)
            Py_CLEAR(out);
        to += high - low;
    }
done:
    PyMem_Free(here.blocks);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&ends);
    return out == NULL ? NULL : Py_BuildValue("(NL)", out, (long long)here.cut);
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, gather_doc},
    {NULL, NULL, 0, NULL},
};

int
native_add_gather(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
