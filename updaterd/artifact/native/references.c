/* Projecting references of machine code. */

#include "native.h"

static PyMethodDef methods[] = {
    {NULL, NULL, 0, NULL},
};

int
native_add_references(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
