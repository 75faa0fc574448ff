/* SPDX-License-Identifier: Apache-2.0 */
/* Where references are in old files, and what copies make of them. */
#include "projector.h"

#include <stdlib.h>
#include <string.h>

#define AHEAD 65536
#define MAX_KNOWN (1 << 20) /* listed references kept of other files: 8 MiB */

/* Returns [at, at + count) of the address space, as a new reference. */
static PyObject *bytes_at(const ProjectorObject *it, int64_t at, int64_t count,
                          const uint8_t **data) {
    PyObject *got = PyObject_CallFunction(it->read, "LL", (long long)at,
                                          (long long)(at + count));
    char *bytes;
    Py_ssize_t length;
    if (got && PyBytes_AsStringAndSize(got, &bytes, &length)) {
        Py_CLEAR(got);
    } else if (got && length != count) {
        PyErr_SetString(PyExc_ValueError, "read gave another number of bytes");
        Py_CLEAR(got);
    }
    if (got) *data = (const uint8_t *)bytes;
    return got;
}

/* A window of a file, for `walker`. */
typedef struct {
    const ProjectorObject *it;
    const source *of;
    PyObject *held;
    const uint8_t *data;
    int64_t low, high;
} window;

static const uint8_t *look(void *opaque, int64_t at, size_t count) {
    window *one = opaque;
    if (at < 0 || (int64_t)count > one->of->length || at > one->of->length - (int64_t)count)
        return NULL;
    if (at < one->low || at + (int64_t)count > one->high) {
        int64_t size = one->of->length - at < AHEAD ? one->of->length - at : AHEAD;
        Py_CLEAR(one->held);
        one->held = bytes_at(one->it, one->of->start + at, size, &one->data);
        one->low = one->high = at;
        if (!one->held) return NULL;
        one->high = at + size;
    }
    return one->data + (at - one->low);
}

/* Returns a chunk of a file, or NULL with an exception set. After one that follows the
 * last one comes a whole window: copies that go on read few bytes for nothing. */
static const uint8_t *chunk_at(ProjectorObject *it, const source *one, int64_t at,
                               int64_t length) {
    const int64_t low = one->start + at;
    if (!it->ahead || low < it->low || low + length > it->high) {
        const int64_t left = one->length - at;
        const int64_t most = low == it->high ? AHEAD : length;
        const int64_t size = left < most ? left : most;
        Py_CLEAR(it->ahead);
        it->ahead = bytes_at(it, low, size, &it->bytes);
        if (!it->ahead) return NULL;
        it->low = low;
        it->high = low + size;
    }
    return it->bytes + (low - it->low);
}

/* Give back the list of a file. */
static void forget(source *one) {
    listing_free(&one->known);
    one->is_known = 0;
}

/* See that the listed references of a file are there. -1 with an exception set. */
int know(ProjectorObject *it, source *one) {
    if (one->is_known) return 0;
    window here = {.it = it, .of = one}, there = {.it = it, .of = one};
    walker file = {look, &here, &there};
    forget(one);
    size_t others = 0;
    for (size_t i = 0; i < it->program_count; i++)
        others += it->sources[it->programs[i]].known.count;
    for (size_t i = 0; others > MAX_KNOWN && i < it->program_count; i++) {
        others -= it->sources[it->programs[i]].known.count;
        forget(&it->sources[it->programs[i]]);
    }
    const int failed = image_list(&one->program->it, &file, &one->known);
    Py_XDECREF(here.held);
    Py_XDECREF(there.held);
    one->is_known = !failed;
    if (!failed) {
        listed *less = realloc(one->known.items, one->known.count * sizeof *less + 1);
        if (less) one->known.items = less;
        one->known.room = one->known.count;
        return 0;
    }
    if (one->known.starved) {
        forget(one);
        PyErr_NoMemory();
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "an image lists too many references");
    }
    return -1;
}

/* Returns the slot with a chunk's references, or NULL with an exception set. */
static const slot *search(ProjectorObject *it, size_t file, int64_t chunk) {
    source *one = &it->sources[file];
    slot *kept = &it->slots[(size_t)(one->start / CHUNK + chunk) % SLOTS];
    if (kept->chunk == chunk && kept->file == file) return kept;
    const int64_t at = chunk * CHUNK;
    const int64_t length = one->length - at < CHUNK ? one->length - at : CHUNK;
    const uint8_t *data = chunk_at(it, one, at, length);
    if (!data) return NULL;
    uint16_t found[MAX_FOUND];
    const size_t count =
        image_search(&one->program->it, data, at, (size_t)length, found);
    uint16_t *room = realloc(kept->found, count * sizeof *found + 1);
    if (!room) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(room, found, count * sizeof *found);
    *kept = (slot){file, chunk, count, room};
    return kept;
}

/* Returns the index of the file that holds an offset of the address space. */
static size_t file_at(const ProjectorObject *it, int64_t at) {
    size_t low = 0, high = it->count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (it->sources[middle].start <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Check that copies read inside the address space. */
int check_copies(const ProjectorObject *it, const column given[3]) {
    const source *last = it->count ? &it->sources[it->count - 1] : NULL;
    const int64_t size = last ? last->start + last->length : 0;
    for (size_t i = 0; i < given[0].count; i++) {
        const int64_t start = given[0].items[i], length = given[1].items[i];
        if (start < 0 || length < 0 || start > size || length > size - start ||
            given[2].items[i] < 0 || given[2].items[i] > INT64_MAX - length) {
            PyErr_SetString(PyExc_ValueError, "a copy leaves the old files");
            return -1;
        }
    }
    return 0;
}

/* Walk the parts of copies, one for each old file that a copy reads. */
typedef struct {
    size_t copy, file;
    int64_t into;                     /* the copy */
    int64_t start, length, to, place; /* in the file, of it, new, in the data */
} step;

static int next_part(const ProjectorObject *it, const column given[3], int64_t most,
                     step *at) {
    at->place += at->length;
    at->into += at->length;
    at->length = 0;
    while (at->copy < given[0].count && at->into >= given[1].items[at->copy]) {
        at->copy++;
        at->into = 0;
    }
    if (at->copy >= given[0].count) return 0;
    const int64_t from = given[0].items[at->copy] + at->into;
    if (!at->into || from >= it->sources[at->file].start + it->sources[at->file].length)
        at->file = file_at(it, from);
    const source *one = &it->sources[at->file];
    at->start = from - one->start;
    int64_t left = given[1].items[at->copy] - at->into;
    if (most && left > most - at->into % most) left = most - at->into % most;
    at->length = one->length - at->start < left ? one->length - at->start : left;
    at->to = given[2].items[at->copy] + at->into;
    return 1;
}

int aim(ProjectorObject *it, ImageObject *program, const column given[3]) {
    size_t *counts = calloc(it->program_count + 1, sizeof *counts);
    copied *copies = NULL;
    int failed = !counts;
    size_t total = 0;
    for (step at = {0}; !failed && next_part(it, given, 0, &at);)
        if (it->sources[at.file].program)
            counts[it->sources[at.file].rank]++, total++;
    if (total > MAX_PARTS) {
        free(counts);
        PyErr_SetString(PyExc_ValueError, "copies read too many programs");
        return -1;
    }
    if (!failed) failed = !(copies = malloc((total + 1) * sizeof *copies));
    if (!failed) {
        size_t begin = 0;
        for (size_t i = 0; i < it->program_count; i++) {
            const size_t count = counts[i];
            counts[i] = begin;
            begin += count;
        }
        for (step at = {0}; next_part(it, given, 0, &at);)
            if (it->sources[at.file].program)
                copies[counts[it->sources[at.file].rank]++] =
                    (copied){at.start, at.start + at.length, at.to - at.start};
    }
    for (size_t i = 0; !failed && i < it->program_count; i++) {
        const size_t begin = i ? counts[i - 1] : 0;
        source *one = &it->sources[it->programs[i]];
        aims_free(&one->moved);
        failed = aims_make(&one->moved, copies + begin, counts[i] - begin, one->length);
        if (counts[i] == begin) forget(one);
    }
    free(counts);
    free(copies);
    if (failed) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF((PyObject *)program);
    Py_XDECREF((PyObject *)it->target);
    it->target = program;
    return 0;
}

int project(ProjectorObject *it, uint8_t *data, const column given[3]) {
    for (step at = {0}; next_part(it, given, PIECE, &at);) {
        source *one = &it->sources[at.file];
        if (!one->program || !one->moved.count) continue;
        if (know(it, one)) return -1;
        passage now = {.moved = &one->moved,
                       .old = &one->program->it,
                       .new = &it->target->it,
                       .data = data + at.place,
                       .start = at.start,
                       .length = at.length,
                       .to = at.to};
        project_begin(&now);
        const int64_t last = (at.start + at.length - 1) / CHUNK;
        for (int64_t chunk = at.start / CHUNK; chunk <= last; chunk++) {
            const slot *kept = search(it, at.file, chunk);
            if (!kept) return -1;
            project_found(&now, kept->found, kept->count, chunk * CHUNK);
        }
        project_listed(&now, &one->known);
    }
    return 0;
}
