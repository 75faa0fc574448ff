/* SPDX-License-Identifier: Apache-2.0 */
/* For the release side: all references of a file, rewritten in place; jump tables. */
#include "arm.h"
#include "find_tables.h"
#include "projector.h"

#include <stdlib.h>
#include <string.h>

typedef void (*rewrite)(const source *one, const image *target, uint8_t *data,
                        int64_t place, int kind, int plain, int64_t base);

static void write_mask(const source *one, const image *target, uint8_t *data,
                       int64_t place, int kind, int plain, int64_t base) {
    (void)one, (void)target, (void)plain;
    if (kind == STEP) {
        arm_blank(data + place, (int)base);
        return;
    }
    memset(data + place, 0, kind == ABSOLUTE ? 8 : 4);
    data[place] = (uint8_t)kind;
}

static void write_label(const source *one, const image *target, uint8_t *data,
                        int64_t place, int kind, int plain, int64_t base) {
    uint8_t *at = data + place;
    const int64_t was = image_address(&one->program->it, place);
    int64_t value;
    if (kind == STEP)
        value = arm_target(at, (int)base, was);
    else if (kind == ABSOLUTE)
        value = (int64_t)u64(at);
    else if (kind == RELATIVE)
        value = was + 4 + s32(at);
    else if (kind == BACK)
        value = was - (int64_t)u32(at);
    else
        value = base + (plain ? (int64_t)u32(at) : (int64_t)s32(at));
    if (target && one->moved.count) {
        const int64_t now = aims_address(&one->moved, &one->program->it, target, value);
        if (now >= 0) value = now;
    }
    if (kind == STEP)
        arm_put(at, (int)base, value, 0, 0);
    else if (kind == ABSOLUTE)
        put64(at, (uint64_t)value);
    else
        put32(at, (uint32_t)(uint64_t)value);
}

static int rewrite_all(ProjectorObject *it, source *one, uint8_t *data,
                       const image *target, rewrite write) {
    if (know(it, one)) return -1;
    uint16_t found[MAX_FOUND];
    for (int64_t at = 0; at < one->length; at += CHUNK) {
        const int64_t length = one->length - at < CHUNK ? one->length - at : CHUNK;
        const image *program = &one->program->it;
        const size_t count =
            image_search(program, data + at, at, (size_t)length, found);
        for (size_t i = 0; i < count; i++)
            write(one, target, data, at + found_place(program, found[i]),
                  found_kind(program, found[i]), 0, found_how(found[i]));
    }
    for (size_t i = 0; i < one->known.count; i++) {
        const listed *item = &one->known.items[i];
        write(one, target, data, item->place, (int)item->kind, (int)item->plain,
              one->known.bases[item->base]);
    }
    return 0;
}

static PyObject *rewritten(ProjectorObject *it, PyObject *object, Py_ssize_t index,
                           const image *target, rewrite write) {
    if (index < 0 || (size_t)index >= it->count || !it->sources[index].program) {
        PyErr_SetString(PyExc_ValueError, "no such image");
        return NULL;
    }
    source *one = &it->sources[index];
    const source *last = &it->sources[it->count - 1];
    Py_buffer view;
    uint8_t *data = bytes_of(object, last->start + last->length, &view);
    if (!data) return NULL;
    const int failed = rewrite_all(it, one, data + one->start, target, write);
    PyBuffer_Release(&view);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

PyObject *projector_mask(PyObject *self, PyObject *args) {
    PyObject *data;
    Py_ssize_t index;
    if (!PyArg_ParseTuple(args, "On", &data, &index)) return NULL;
    return rewritten((ProjectorObject *)self, data, index, NULL, write_mask);
}

PyObject *projector_label(PyObject *self, PyObject *args) {
    ProjectorObject *it = (ProjectorObject *)self;
    PyObject *data;
    Py_ssize_t index;
    int aimed;
    if (!PyArg_ParseTuple(args, "Onp", &data, &index, &aimed)) return NULL;
    if (aimed && !it->target) {
        PyErr_SetString(PyExc_ValueError, "aim comes first");
        return NULL;
    }
    return rewritten(it, data, index, aimed ? &it->target->it : NULL, write_label);
}

PyObject *tables(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object, *program, *out = NULL;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "OO!", &object, image_type, &program) ||
        PyObject_GetBuffer(object, &view, PyBUF_SIMPLE))
        return NULL;
    const image *it = &((ImageObject *)program)->it;
    if (view.len < it->end) {
        PyErr_SetString(PyExc_ValueError, "an image does not fit its file");
    } else {
        size_t count;
        table *found = find_tables(it, view.buf, (int64_t)view.len, &count);
        if (found)
            out = PyBytes_FromStringAndSize((char *)found,
                                            (Py_ssize_t)(count * sizeof *found));
        else
            PyErr_NoMemory();
        free(found);
    }
    PyBuffer_Release(&view);
    return out;
}
