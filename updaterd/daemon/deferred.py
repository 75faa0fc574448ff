# SPDX-License-Identifier: Apache-2.0
"""Modules that the daemon's libraries import and an idle daemon never uses.

httpx knows how to upload files and to spell foreign host names, structlog how to give
out ids, shutil how to compress: each imports at its start what it needs for
that, and a process that lives for months would keep it (docs/decisions/0012). Here
such a module is put in its place unread. The first look into it reads it, so nothing
is missing; it only comes later, or never.

Not `importlib.util.LazyLoader`: with Python 3.11 it reads a module as soon as a second
one imports it, and these are imported twice or more.
"""

import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType

# No package of which a submodule is imported by name, and nothing of ours.
NAMES = (
    "bz2",
    "idna",
    "ipaddress",
    "locale",
    "lzma",
    "mimetypes",
    "textwrap",
    "tokenize",
    "uuid",
)


class _Unread(ModuleType):
    """A module that is read when something in it is asked for."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment] # a module may
        try:
            spec.loader.exec_module(self)
        except BaseException:
            self.__class__ = _Unread  # the next one who asks may have more luck
            raise
        return getattr(self, name)


def defer(names: Iterable[str] = NAMES) -> None:
    """Put the named modules in their places unread, but those that are read already.

    For the thread that imports; no other may look into them at the same time.
    """
    for name in names:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = _Unread
            sys.modules[name] = module
