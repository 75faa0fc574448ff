/* SPDX-License-Identifier: Apache-2.0 */
/* updaterd.artifact._native: the loops of the update worker that cost most in Python.

   Optional: whoever imports it has the same in Python. */

#include "native.h"

static int
add_all(PyObject *module)
{
    if (native_add_apply(module) < 0 || native_add_gather(module) < 0)
        return -1;
    return native_add_references(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_all},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "updaterd.artifact._native",
    .m_doc = "What costs the update worker most, compiled.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
