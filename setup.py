# SPDX-License-Identifier: Apache-2.0
"""Compile `updaterd.artifact._native`; pyproject.toml says everything else.

The module is optional: without a compiler, or without Python's headers, the build says
so in one line and goes on, and updaterd does the same work in Python.
"""

import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("updaterd/artifact/native")
COMPILE = [
    *("-std=c11", "-O2", "-fwrapv", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-Werror=implicit-function-declaration", "-fstack-protector-strong"),
    *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
]
# One file for every CPython from 3.11, except for builds without its global lock.
LIMITED = sys.implementation.name == "cpython" and not sysconfig.get_config_var(
    "Py_GIL_DISABLED"
)


class BuildOptional(build_ext):
    """Says what it means when nothing was compiled."""

    def run(self) -> None:
        """Compile, or leave a wheel for any machine."""
        super().run()
        if not Path(self.get_ext_fullpath(native.name)).exists():
            self.warn(
                "no C compiler, or no headers of Python: updaterd is built without its "
                "compiled module, which it does not need to work, only to work faster"
            )
            self.distribution.ext_modules = None
            self.get_finalized_command("bdist_wheel").root_is_pure = True


native = Extension(
    "updaterd.artifact._native",
    sources=sorted(map(str, SOURCES.glob("*.c"))),
    depends=sorted(map(str, SOURCES.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    extra_compile_args=COMPILE,
    extra_link_args=["-Wl,-z,relro,-z,now"],
    optional="build_ext" not in sys.argv,  # whoever asks for it alone wants it
)
# In a folder of its own: what an earlier build left would be in the next wheel.
with tempfile.TemporaryDirectory(prefix="updaterd-setup-") as scratch:
    setup(
        cmdclass={"build_ext": BuildOptional},
        ext_modules=[native] if LIMITED else [],
        options={
            "build": {"build_base": scratch},
            "bdist_wheel": {"py_limited_api": "cp311"} if LIMITED else {},
        },
    )
