/* Applying deltas. */

#include "native.h"

static PyMethodDef methods[] = {
    {NULL, NULL, 0, NULL},
};

int
native_add_apply(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
