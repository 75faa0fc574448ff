/* Image and Projector for Python: see updaterd/artifact/references.py, which is the
 * same without a compiler and says what they do. */
#include "native.h"

#include <stdlib.h>
#include <string.h>

#include "aim.h"
#include "find_tables.h"

#define SLOTS 2048 /* chunks whose references are kept: 32 MiB of program */
#define WINDOW 65536
#define MAX_KNOWN (1 << 20) /* listed references kept of other files: 8 MiB */
#define MAX_PARTS (1 << 20) /* of the copies into one file */

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
} ProjectorObject;

static PyTypeObject *image_type; /* set once: there is one interpreter in a worker */

/* A column of int64, borrowed from any buffer. */
typedef struct {
    Py_buffer view;
    const int64_t *items;
    size_t count;
} column;

static int column_of(PyObject *object, size_t width, column *out) {
    if (PyObject_GetBuffer(object, &out->view, PyBUF_SIMPLE)) return -1;
    /* An empty array may lie anywhere. */
    if (out->view.len % (Py_ssize_t)(8 * width) ||
        (out->view.len && (uintptr_t)out->view.buf % 8)) {
        PyBuffer_Release(&out->view);
        PyErr_SetString(PyExc_ValueError, "not a column of int64");
        return -1;
    }
    out->items = out->view.buf;
    out->count = (size_t)out->view.len / (8 * width);
    return 0;
}

/* Three columns of one length, or none. */
static int columns_of(PyObject *objects[3], column out[3]) {
    for (int i = 0; i < 3; i++)
        if (column_of(objects[i], 1, &out[i])) {
            while (i--) PyBuffer_Release(&out[i].view);
            return -1;
        }
    if (out[0].count == out[1].count && out[0].count == out[2].count) return 0;
    for (int i = 0; i < 3; i++) PyBuffer_Release(&out[i].view);
    PyErr_SetString(PyExc_ValueError, "columns of different lengths");
    return -1;
}

static void release(column columns[3]) {
    for (int i = 0; i < 3; i++) PyBuffer_Release(&columns[i].view);
}

/* ---- Image ---- */

/* Returns a copy of rows of `width` numbers, or NULL with an exception set. */
static void *rows(PyObject *object, size_t width, size_t most, size_t *count) {
    column given;
    if (column_of(object, width, &given)) return NULL;
    void *copy = NULL;
    if (given.count > most)
        PyErr_SetString(PyExc_ValueError, "an image has too many parts");
    else if (!(copy = malloc((size_t)given.view.len + 1)))
        PyErr_NoMemory();
    else
        memcpy(copy, given.items, (size_t)given.view.len);
    *count = given.count;
    PyBuffer_Release(&given.view);
    return copy;
}

static int image_init(PyObject *self, PyObject *args, PyObject *names) {
    image *it = &((ImageObject *)self)->it;
    PyObject *segments, *regions, *tables;
    static char *keywords[] = {"segments", "regions", "tables", NULL};
    if (it->segments) {
        PyErr_SetString(PyExc_ValueError, "an image does not change");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, names, "OOO", keywords, &segments, &regions,
                                     &tables))
        return -1;
    if (!(it->segments = rows(segments, 5, MAX_SEGMENTS, &it->segment_count)) ||
        !(it->regions = rows(regions, 3 + PARAMETERS, MAX_REGIONS, &it->region_count)) ||
        !(it->tables = rows(tables, 2, MAX_TABLES, &it->table_count)))
        return -1;
    const char *wrong = image_check(it);
    if (wrong) PyErr_SetString(PyExc_ValueError, wrong);
    return wrong ? -1 : 0;
}

static void image_dealloc(PyObject *self) {
    image *it = &((ImageObject *)self)->it;
    free(it->segments);
    free(it->regions);
    free(it->tables);
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot image_slots[] = {
    {Py_tp_init, image_init},
    {Py_tp_dealloc, image_dealloc},
    {Py_tp_doc, "What a program is made of."},
    {0, NULL},
};
static PyType_Spec image_spec = {
    .name = "updaterd.artifact._native.Image",
    .basicsize = sizeof(ImageObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = image_slots,
};

/* ---- Projector ---- */

static int projector_traverse(PyObject *self, visitproc visit, void *arg) {
    ProjectorObject *it = (ProjectorObject *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(it->read);
    return 0;
}

static int projector_clear(PyObject *self) {
    ProjectorObject *it = (ProjectorObject *)self;
    Py_CLEAR(it->read);
    return 0;
}

static void projector_dealloc(PyObject *self) {
    ProjectorObject *it = (ProjectorObject *)self;
    PyObject_GC_UnTrack(self);
    projector_clear(self);
    for (size_t i = 0; i < it->count; i++) {
        Py_XDECREF((PyObject *)it->sources[i].program);
        listing_free(&it->sources[i].known);
        aims_free(&it->sources[i].moved);
    }
    free(it->sources);
    free(it->programs);
    for (size_t i = 0; it->slots && i < SLOTS; i++) free(it->slots[i].found);
    free(it->slots);
    Py_XDECREF((PyObject *)it->target);
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Take over the old files. Returns -1 with an exception set. */
static int set_sources(ProjectorObject *it, const column *starts, const column *lengths,
                       PyObject *images) {
    const size_t count = starts->count;
    it->sources = calloc(count + 1, sizeof *it->sources);
    it->programs = calloc(count + 1, sizeof *it->programs);
    it->slots = calloc(SLOTS, sizeof *it->slots);
    if (!it->sources || !it->programs || !it->slots) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < SLOTS; i++) it->slots[i].chunk = -1;
    int64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        source *one = &it->sources[i];
        one->start = starts->items[i];
        one->length = lengths->items[i];
        if (one->start != end || one->length < 0 || one->length > INT64_MAX - end) {
            PyErr_SetString(PyExc_ValueError, "files do not follow each other");
            return -1;
        }
        end += one->length;
        PyObject *program = PySequence_GetItem(images, (Py_ssize_t)i);
        if (!program) return -1;
        if (program == Py_None) {
            Py_DECREF(program);
        } else if (!PyObject_TypeCheck(program, image_type)) {
            Py_DECREF(program);
            PyErr_SetString(PyExc_TypeError, "not an Image");
            return -1;
        } else {
            one->program = (ImageObject *)program; /* takes over the reference */
            one->rank = it->program_count;
            it->programs[it->program_count++] = i;
        }
        it->count = i + 1;
        if (one->program &&
            (one->program->it.end > one->length || one->length > UINT32_MAX)) {
            PyErr_SetString(PyExc_ValueError, "an image does not fit its file");
            return -1;
        }
    }
    return 0;
}

static int projector_init(PyObject *self, PyObject *args, PyObject *names) {
    ProjectorObject *it = (ProjectorObject *)self;
    PyObject *read, *starts, *lengths, *images;
    static char *keywords[] = {"read", "starts", "lengths", "images", NULL};
    if (it->read) {
        PyErr_SetString(PyExc_ValueError, "a projector does not change");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, names, "OOOO", keywords, &read, &starts,
                                     &lengths, &images))
        return -1;
    Py_INCREF(read);
    it->read = read;
    column begin, length;
    if (column_of(starts, 1, &begin)) return -1;
    int failed = column_of(lengths, 1, &length);
    if (!failed) {
        const Py_ssize_t given = PySequence_Size(images);
        if (given >= 0 &&
            ((size_t)given != begin.count || length.count != begin.count))
            PyErr_SetString(PyExc_ValueError, "columns of different lengths");
        failed = PyErr_Occurred() || set_sources(it, &begin, &length, images);
        PyBuffer_Release(&length.view);
    }
    PyBuffer_Release(&begin.view);
    return failed ? -1 : 0;
}

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
        int64_t size = one->of->length - at < WINDOW ? one->of->length - at : WINDOW;
        Py_CLEAR(one->held);
        one->held = bytes_at(one->it, one->of->start + at, size, &one->data);
        one->low = one->high = at;
        if (!one->held) return NULL;
        one->high = at + size;
    }
    return one->data + (at - one->low);
}

/* Give back the list of a file. */
static void forget(source *one) {
    listing_free(&one->known);
    one->is_known = 0;
}

/* See that the listed references of a file are there. -1 with an exception set. */
static int know(ProjectorObject *it, source *one) {
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
    const uint8_t *data;
    PyObject *held = bytes_at(it, one->start + at, length, &data);
    if (!held) return NULL;
    uint16_t found[MAX_FOUND];
    const size_t count =
        image_search(&one->program->it, data, at, (size_t)length, found);
    Py_DECREF(held);
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
static int check_copies(const ProjectorObject *it, const column given[3]) {
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

static int aim(ProjectorObject *it, ImageObject *program, const column given[3]) {
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

static PyObject *projector_aim(PyObject *self, PyObject *args) {
    ProjectorObject *it = (ProjectorObject *)self;
    PyObject *program, *objects[3];
    column given[3];
    if (!PyArg_ParseTuple(args, "O!OOO", image_type, &program, &objects[0],
                          &objects[1], &objects[2]) ||
        columns_of(objects, given))
        return NULL;
    const int failed =
        check_copies(it, given) || aim(it, (ImageObject *)program, given);
    release(given);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

/* Returns a bytearray's memory, checked to be `size` long. */
static uint8_t *bytes_of(PyObject *object, int64_t size, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE)) return NULL;
    if (view->len == size) return view->buf;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "the data have another length");
    return NULL;
}

static int project(ProjectorObject *it, uint8_t *data, const column given[3]) {
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

static PyObject *projector_project(PyObject *self, PyObject *args) {
    ProjectorObject *it = (ProjectorObject *)self;
    PyObject *object, *objects[3];
    column given[3];
    if (!PyArg_ParseTuple(args, "OOOO", &object, &objects[0], &objects[1],
                          &objects[2]) ||
        columns_of(objects, given))
        return NULL;
    int failed = check_copies(it, given);
    int64_t size = 0;
    for (size_t i = 0; !failed && i < given[0].count; i++) {
        failed = given[1].items[i] > INT64_MAX - size;
        if (!failed) size += given[1].items[i];
    }
    Py_buffer view;
    uint8_t *data = NULL;
    if (!failed) data = bytes_of(object, size, &view);
    if (data) {
        if (!it->target)
            PyErr_SetString(PyExc_ValueError, "aim comes first");
        else
            project(it, data, given);
        PyBuffer_Release(&view);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "a copy leaves the old files");
    }
    release(given);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* ---- for the release side: all references of a file, rewritten in place ---- */

typedef void (*rewrite)(const source *one, const image *target, uint8_t *data,
                        int64_t place, int kind, int plain, int64_t base);

static void write_mask(const source *one, const image *target, uint8_t *data,
                       int64_t place, int kind, int plain, int64_t base) {
    (void)one, (void)target, (void)plain, (void)base;
    memset(data + place, 0, kind == ABSOLUTE ? 8 : 4);
    data[place] = (uint8_t)kind;
}

static void write_label(const source *one, const image *target, uint8_t *data,
                        int64_t place, int kind, int plain, int64_t base) {
    uint8_t *at = data + place;
    const int64_t was = image_address(&one->program->it, place);
    int64_t value;
    if (kind == ABSOLUTE)
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
    if (kind == ABSOLUTE)
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
        const size_t count = image_search(&one->program->it, data + at, at,
                                          (size_t)length, found);
        for (size_t i = 0; i < count; i++)
            write(one, target, data, at + PLACE(found[i]), KIND(found[i]), 0, 0);
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

static PyObject *projector_mask(PyObject *self, PyObject *args) {
    PyObject *data;
    Py_ssize_t index;
    if (!PyArg_ParseTuple(args, "On", &data, &index)) return NULL;
    return rewritten((ProjectorObject *)self, data, index, NULL, write_mask);
}

static PyObject *projector_label(PyObject *self, PyObject *args) {
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

static PyObject *tables(PyObject *module, PyObject *args) {
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

static PyMethodDef projector_methods[] = {
    {"aim", projector_aim, METH_VARARGS, "Learn where a new file's copies come from."},
    {"project", projector_project, METH_VARARGS, "Re-aim references in copies."},
    {"mask", projector_mask, METH_VARARGS, "Blank a file's references."},
    {"label", projector_label, METH_VARARGS, "Put targets for a file's references."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot projector_slots[] = {
    {Py_tp_init, projector_init},
    {Py_tp_dealloc, projector_dealloc},
    {Py_tp_traverse, projector_traverse},
    {Py_tp_clear, projector_clear},
    {Py_tp_methods, projector_methods},
    {Py_tp_doc, "Re-aims the references in what is copied."},
    {0, NULL},
};
static PyType_Spec projector_spec = {
    .name = "updaterd.artifact._native.Projector",
    .basicsize = sizeof(ProjectorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = projector_slots,
};

static PyMethodDef methods[] = {
    {"tables", tables, METH_VARARGS, "Find the jump tables of a program."},
    {NULL, NULL, 0, NULL},
};

int native_add_references(PyObject *module) {
    if (!image_type) {
        PyObject *type = PyType_FromModuleAndSpec(module, &image_spec, NULL);
        if (!type) return -1;
        image_type = (PyTypeObject *)type;
    }
    if (PyModule_AddType(module, image_type)) return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &projector_spec, NULL);
    if (!type) return -1;
    const int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed ? failed : PyModule_AddFunctions(module, methods);
}
