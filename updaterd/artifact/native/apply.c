/* SPDX-License-Identifier: Apache-2.0 */
/* Applying deltas: what operations.py and sparse.py do for each operation
   or run, done for a whole block or batch of them.

   Every function works on the buffers it is handed and keeps nothing. What is in them
   comes from a bundle and may be hostile: each length is checked against its buffer
   before it is used, and each sum for overflow. A ValueError says what is malformed, in
   the words of the Python code.

   A column is a buffer of int64, in the machine's own order and at any alignment. */

#include "native.h"

#include <stdint.h>
#include <string.h>

#define OUTSIDE "operations: one reads outside the old data"
#define WIDEST 6
#define LONGEST_GAP ((1 << 24) - 1)

static inline void
put(void *column, Py_ssize_t index, int64_t value)
{
    memcpy((char *)column + 8 * index, &value, 8);
}

static PyObject *
malformed(const char *text)
{
    PyErr_SetString(PyExc_ValueError, text);
    return NULL;
}

/* Returns how many numbers each of two columns holds; -1: not the same number. */
static Py_ssize_t
items(const Py_buffer *a, const Py_buffer *b)
{
    return a->len == b->len && a->len % 8 == 0 ? a->len / 8 : -1;
}

/* Returns the number whose bytes are `width` planes, lowest first. */
static inline int64_t
plane(const uint8_t *first, Py_ssize_t count, int width, Py_ssize_t index)
{
    uint64_t value = 0;
    for (int i = 0; i < width; i++)
        value |= (uint64_t)first[i * count + index] << 8 * i;
    return (int64_t)value;
}

/* --- operations: columns starts, ends, lengths, extras and made in one piece --- */

/* Fills starts, ends and made. Lengths and extras are there, and the skips where the
   ends will be. Returns what is wrong, or NULL and where the last operation ends. */
static const char *
place(char *columns, Py_ssize_t count, int64_t *position, int64_t old_size)
{
    char *starts = columns, *ends = starts + 8 * count, *made = columns + 32 * count;
    const char *lengths = ends + 8 * count, *extras = lengths + 8 * count;
    int64_t at = *position, total = 0;
    int too_much = 0; /* what reads outside, even later, is told of first */

    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t length = get(lengths, i), skip = get(ends, i), end;
        if (at < 0 || __builtin_add_overflow(at, length, &end) || end > old_size)
            return OUTSIDE;
        put(starts, i, at);
        put(ends, i, end);
        put(made, i, total);
        if (__builtin_add_overflow(end, skip, &at))
            return OUTSIDE;
        too_much |= __builtin_add_overflow(total, length, &total);
        too_much |= __builtin_add_overflow(total, get(extras, i), &total);
    }
    if (at < 0 || at > old_size)
        return OUTSIDE;
    if (too_much)
        return "operations: a block makes too much";
    /* One may only move (the first does); blocks of idle ones would just burn time. */
    if (total < (count > 1 ? count - 1 : 1))
        return "operations: a block makes nothing";
    put(made, count, total);
    *position = at;
    return NULL;
}

/* Steals `columns`. */
static PyObject *
placed(PyObject *columns, Py_ssize_t count, int64_t position, int64_t old_size)
{
    const char *wrong = place(PyBytes_AsString(columns), count, &position, old_size);
    if (wrong != NULL) {
        Py_DECREF(columns);
        return malformed(wrong);
    }
    return Py_BuildValue("(NL)", columns, (long long)position);
}

static PyObject *
new_columns(Py_ssize_t count)
{
    return PyBytes_FromStringAndSize(NULL, 8 * (5 * count + 1));
}

PyDoc_STRVAR(operations_doc,
             "operations(planes, lengths, extras, skips, position, old_size)\n--\n\n"
             "Return the columns of a block (starts, ends, lengths, extras, made) in\n"
             "one piece, and where it ends. The widths are in bytes.");

static PyObject *
operations(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer planes;
    int width[3];
    long long position, old_size;
    PyObject *columns = NULL;

    if (!PyArg_ParseTuple(args, "y*iiiLL", &planes, &width[0], &width[1], &width[2],
                          &position, &old_size))
        return NULL;
    for (int i = 0; i < 3; i++)
        if (width[i] < 0 || width[i] > WIDEST) {
            malformed("operations: a block is too large");
            goto done;
        }
    Py_ssize_t each = width[0] + width[1] + width[2] + 1;
    Py_ssize_t count = planes.len / each;
    const uint8_t *from = planes.buf, *signs = from + count * (each - 1);
    if (count == 0 || planes.len % each) {
        malformed("operations: a block is cut short");
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (signs[i] > 1) {
            malformed("operations: a sign is neither 0 nor 1");
            goto done;
        }
    columns = new_columns(count);
    if (columns == NULL)
        goto done;
    char *to = PyBytes_AsString(columns);
    const uint8_t *extras = from + count * width[0];
    const uint8_t *skips = extras + count * width[1];
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t skip = plane(skips, count, width[2], i);
        put(to, count + i, signs[i] ? -skip : skip);
        put(to, 2 * count + i, plane(from, count, width[0], i));
        put(to, 3 * count + i, plane(extras, count, width[1], i));
    }
    columns = placed(columns, count, position, old_size);
done:
    PyBuffer_Release(&planes);
    return columns;
}

PyDoc_STRVAR(triples_doc,
             "triples(control, position, old_size)\n--\n\n"
             "Return the same of bsdiff's control triples.");

static PyObject *
triples(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer control;
    long long position, old_size;
    PyObject *columns = NULL;

    if (!PyArg_ParseTuple(args, "y*LL", &control, &position, &old_size))
        return NULL;
    Py_ssize_t count = control.len / 24;
    const uint8_t *from = control.buf;
    if (count == 0 || control.len % 24) {
        malformed("operations: a block is cut short");
        goto done;
    }
    columns = new_columns(count);
    if (columns == NULL)
        goto done;
    char *to = PyBytes_AsString(columns);
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t word[3];
        for (int j = 0; j < 3; j++)
            word[j] = plane(from + 24 * i + 8 * j, 1, 8, 0);
        if (word[0] < 0 || word[1] < 0) {
            malformed("operations: a length is negative");
            Py_CLEAR(columns);
            goto done;
        }
        /* Sign and magnitude, as bsdiff writes them. */
        put(to, count + i, word[2] < 0 ? -(word[2] & INT64_MAX) : word[2]);
        put(to, 2 * count + i, word[0]);
        put(to, 3 * count + i, word[1]);
    }
    columns = placed(columns, count, position, old_size);
done:
    PyBuffer_Release(&control);
    return columns;
}

/* --- runs: columns begins and ends in one piece --- */

PyDoc_STRVAR(runs_doc,
             "runs(planes, at)\n--\n\n"
             "Return where the runs of a block begin and end, which starts at `at`.");

static PyObject *
runs(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer planes;
    long long start;
    PyObject *columns = NULL;

    if (!PyArg_ParseTuple(args, "y*L", &planes, &start))
        return NULL;
    Py_ssize_t count = planes.len / 5;
    const uint8_t *from = planes.buf;
    int64_t at = start;
    if (planes.len % 5) {
        malformed("runs: a block is cut short");
        goto done;
    }
    columns = PyBytes_FromStringAndSize(NULL, 16 * count);
    if (columns == NULL)
        goto done;
    char *begins = PyBytes_AsString(columns), *ends = begins + 8 * count;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t gap = plane(from, count, 3, i);
        int64_t length = plane(from + 3 * count, count, 2, i);
        if ((length == 0 && gap != LONGEST_GAP) || at < 0 ||
            __builtin_add_overflow(at, gap + length, &at)) {
            malformed("runs: one changes nothing");
            Py_CLEAR(columns);
            goto done;
        }
        put(begins, i, at - length);
        put(ends, i, at);
    }
done:
    PyBuffer_Release(&planes);
    return columns;
}

/* Returns how much of run `index` lies in [at, stop), and where that begins. */
static inline int64_t
part(const char *columns, Py_ssize_t count, Py_ssize_t index, int64_t at, int64_t stop,
     int64_t *begin)
{
    int64_t end = get(columns, count + index);
    *begin = get(columns, index);
    if (*begin < at)
        *begin = at;
    if (end > stop)
        end = stop;
    return end > *begin ? end - *begin : 0;
}

PyDoc_STRVAR(changed_doc,
             "changed(runs, first, at, stop)\n--\n\n"
             "Return how many bytes of [at, stop) lie in runs from `first` on, and the\n"
             "first run that goes on after that.");

static PyObject *
changed(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer columns;
    Py_ssize_t first;
    long long at, stop;

    if (!PyArg_ParseTuple(args, "y*nLL", &columns, &first, &at, &stop))
        return NULL;
    Py_ssize_t count = columns.len / 16;
    int64_t sum = 0, begin;
    if (columns.len % 16 || first < 0 || at < 0 || stop < at) {
        PyBuffer_Release(&columns);
        return malformed("runs: a block is cut short");
    }
    Py_ssize_t next = first;
    for (Py_ssize_t i = first; i < count && get(columns.buf, i) < stop; i++) {
        int64_t some = part(columns.buf, count, i, at, stop, &begin);
        if (__builtin_add_overflow(sum, some, &sum)) {
            PyBuffer_Release(&columns);
            return malformed("runs: they overlap");
        }
    }
    while (next < count && get(columns.buf, count + next) <= stop)
        next++;
    PyBuffer_Release(&columns);
    return Py_BuildValue("(Ln)", (long long)sum, next);
}

/* Adds byte by byte, without a carry from one to the next. */
static void
add_bytes(uint8_t *to, const uint8_t *from, int64_t count)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7f;
    for (; count >= 8; count -= 8, to += 8, from += 8) {
        uint64_t a, b;
        memcpy(&a, to, 8);
        memcpy(&b, from, 8);
        a = ((a & low) + (b & low)) ^ ((a ^ b) & ~low);
        memcpy(to, &a, 8);
    }
    while (count-- > 0)
        *to++ += *from++;
}

PyDoc_STRVAR(add_doc,
             "add(data, done, runs, first, at, stop, changes)\n--\n\n"
             "Add the changes to what of data[done:] stands for [at, stop), in place,\n"
             "where the runs from `first` on say.");

static PyObject *
add(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data, columns, changes;
    Py_ssize_t done, first;
    long long at, stop;
    const char *wrong = "runs: a block is cut short";

    if (!PyArg_ParseTuple(args, "w*ny*nLLy*", &data, &done, &columns, &first, &at,
                          &stop, &changes))
        return NULL;
    Py_ssize_t count = columns.len / 16;
    if (columns.len % 16 || first < 0 || done < 0 || done > data.len || at < 0 ||
        stop < at || stop - at > data.len - done)
        goto out;
    uint8_t *to = (uint8_t *)data.buf + done;
    const uint8_t *from = changes.buf;
    int64_t left = changes.len, begin;
    for (Py_ssize_t i = first; i < count && get(columns.buf, i) < stop; i++) {
        int64_t some = part(columns.buf, count, i, at, stop, &begin);
        if (some > left)
            goto out;
        add_bytes(to + (begin - at), from, some);
        from += some;
        left -= some;
    }
    if (left == 0)
        wrong = NULL;
out:
    PyBuffer_Release(&data);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&changes);
    if (wrong != NULL)
        return malformed(wrong);
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(add_all_doc,
             "add_all(data, diff)\n--\n\n"
             "Add as many bytes, in place.");

static PyObject *
add_all(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data, diff;

    if (!PyArg_ParseTuple(args, "w*y*", &data, &diff))
        return NULL;
    int fits = data.len == diff.len;
    if (fits)
        add_bytes(data.buf, diff.buf, data.len);
    PyBuffer_Release(&data);
    PyBuffer_Release(&diff);
    return fits ? Py_NewRef(Py_None) : malformed("the diff has another length");
}

/* --- bytes --- */

PyDoc_STRVAR(weave_doc,
             "weave(copied, lengths, extra, extras)\n--\n\n"
             "Return both in one: so much of `copied`, so much of `extra`, again and\n"
             "again.");

static PyObject *
weave(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer copied, lengths, extra, extras;
    PyObject *out = NULL;

    if (!PyArg_ParseTuple(args, "y*y*y*y*", &copied, &lengths, &extra, &extras))
        return NULL;
    Py_ssize_t count = items(&lengths, &extras);
    int64_t old_left = copied.len, new_left = extra.len;
    const char *old = copied.buf, *new = extra.buf;
    int fits = count >= 0;
    if (copied.len <= PY_SSIZE_T_MAX - extra.len)
        out = PyByteArray_FromStringAndSize(NULL, copied.len + extra.len);
    else
        PyErr_NoMemory();
    if (out == NULL)
        goto done;
    char *to = PyByteArray_AsString(out);
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t length = get(lengths.buf, i), more = get(extras.buf, i);
        fits = length >= 0 && length <= old_left && more >= 0 && more <= new_left;
        if (!fits)
            break;
        memcpy(to, old, (size_t)length);
        old += length, old_left -= length, to += length;
        memcpy(to, new, (size_t)more);
        new += more, new_left -= more, to += more;
    }
    if (!fits || old_left || new_left) {
        Py_CLEAR(out);
        malformed("operations: lengths that do not add up");
    }
done:
    PyBuffer_Release(&copied);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&extra);
    PyBuffer_Release(&extras);
    return out;
}

static PyMethodDef methods[] = {
    {"operations", operations, METH_VARARGS, operations_doc},
    {"triples", triples, METH_VARARGS, triples_doc},
    {"runs", runs, METH_VARARGS, runs_doc},
    {"changed", changed, METH_VARARGS, changed_doc},
    {"add", add, METH_VARARGS, add_doc},
    {"add_all", add_all, METH_VARARGS, add_all_doc},
    {"weave", weave, METH_VARARGS, weave_doc},
    {NULL, NULL, 0, NULL},
};

static const number numbers[] = {
    {"WIDEST", WIDEST},
    {"LONGEST_GAP", LONGEST_GAP},
    {NULL, 0},
};

int
native_add_apply(PyObject *module)
{
    if (native_add_numbers(module, numbers) < 0)
        return -1;
    return PyModule_AddFunctions(module, methods);
}
