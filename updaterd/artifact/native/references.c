/* SPDX-License-Identifier: Apache-2.0 */
/* Image and Projector for Python: see artifact/programs/projector.py, which is the
 * same without a compiler and says what they do. */
#include "arm.h"
#include "projector.h"

#include <stdlib.h>
#include <string.h>

PyTypeObject *image_type;

int column_of(PyObject *object, size_t width, column *out) {
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
int columns_of(PyObject *objects[3], column out[3]) {
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

void release(column columns[3]) {
    for (int i = 0; i < 3; i++) PyBuffer_Release(&columns[i].view);
}

/* Returns a bytearray's memory, checked to be `size` long. */
uint8_t *bytes_of(PyObject *object, int64_t size, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE)) return NULL;
    if (view->len == size) return view->buf;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "the data have another length");
    return NULL;
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
    Py_XDECREF(it->ahead);
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

static PyObject *shifted(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object;
    long long less;
    column given;
    if (!PyArg_ParseTuple(args, "OL", &object, &less) || column_of(object, 1, &given))
        return NULL;
    PyObject *out = PyBytes_FromStringAndSize(NULL, given.view.len);
    if (out) {
        char *to = PyBytes_AsString(out);
        for (size_t i = 0; i < given.count; i++) {
            const int64_t value =
                (int64_t)((uint64_t)given.items[i] - (uint64_t)less);
            memcpy(to + 8 * i, &value, 8);
        }
    }
    PyBuffer_Release(&given.view);
    return out;
}

static PyMethodDef methods[] = {
    {"shifted", shifted, METH_VARARGS, "Return a column, each number so much less."},
    {"tables", tables, METH_VARARGS, "Find the jump tables of a program."},
    {NULL, NULL, 0, NULL},
};

static const number numbers[] = {
    {"PIECE", PIECE},
    {"CHUNK", CHUNK},
    {"MAX_SEGMENTS", MAX_SEGMENTS},
    {"MAX_REGIONS", MAX_REGIONS},
    {"MAX_TABLES", MAX_TABLES},
    {"MAX_LISTED", MAX_LISTED},
    {"MAX_PARTS", MAX_PARTS},
    {"PARAMETERS", PARAMETERS},
    {"CODE", CODE},
    {"WORDS", WORDS},
    {"FRAMES", FRAMES},
    {"TABLE", TABLE},
    {"FUNCTIONS", FUNCTIONS},
    {"ARM", ARM},
    {"RELATIVE", RELATIVE},
    {"ABSOLUTE", ABSOLUTE},
    {"OFFSET", OFFSET},
    {"BACK", BACK},
    {"STEP", STEP},
    {"WINDOW", WINDOW},
    {NULL, 0},
};

int native_add_references(PyObject *module) {
    if (native_add_numbers(module, numbers) < 0) return -1;
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
