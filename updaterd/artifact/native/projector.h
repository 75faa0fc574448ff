/* SPDX-License-Identifier: Apache-2.0 */
/* What references.c, projector.c and labels.c share: Image, Projector, columns. */
#ifndef UPDATERD_PROJECTOR_H
#define UPDATERD_PROJECTOR_H

#include "aim.h"
#include "native.h"

#define MAX_PARTS (1 << 20) /* of the copies into one file */
#define SLOTS 2048 /* chunks whose references are kept: 32 MiB of program */

typedef struct {
    PyObject_HEAD
    image it;
} ImageObject;

/* An old file in the address space. */
typedef struct {
    int64_t start, length;
    ImageObject *program; /* or NULL */
    size_t rank;          /* among those with a program */
    listing known;
    int is_known;
    aims moved;
} source;

typedef struct {
    size_t file;
    int64_t chunk; /* -1: empty */
    size_t count;
    uint16_t *found;
} slot;

typedef struct {
    PyObject_HEAD
    PyObject *read;
    source *sources;
    size_t count;
    size_t *programs; /* which of them have one: there may be many that do not */
    size_t program_count;
    ImageObject *target; /* of the last aim(), or NULL */
    slot *slots;
    PyObject *ahead; /* what was read last for chunks, or NULL: [low, high) */
    const uint8_t *bytes;
    int64_t low, high;
} ProjectorObject;

/* A column of int64, borrowed from any buffer. */
typedef struct {
    Py_buffer view;
    const int64_t *items;
    size_t count;
} column;

extern PyTypeObject *image_type; /* set once: there is one interpreter in a worker */

int column_of(PyObject *object, size_t width, column *out);
int columns_of(PyObject *objects[3], column out[3]);
void release(column columns[3]);
uint8_t *bytes_of(PyObject *object, int64_t size, Py_buffer *view);

/* These return -1 with an exception set. */
int know(ProjectorObject *it, source *one);
int check_copies(const ProjectorObject *it, const column given[3]);
int aim(ProjectorObject *it, ImageObject *program, const column given[3]);
int project(ProjectorObject *it, uint8_t *data, const column given[3]);

/* For the release side. */
PyObject *projector_mask(PyObject *self, PyObject *args);
PyObject *projector_label(PyObject *self, PyObject *args);
PyObject *tables(PyObject *module, PyObject *args);

#endif
