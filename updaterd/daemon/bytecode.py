# SPDX-License-Identifier: Apache-2.0
"""Load the daemon's modules without docstrings and columns, which it never uses.

    python -I -m updaterd.daemon.bytecode      as root, when the package is installed

Distributions ship byte code of the standard library with its docstrings only, and the
daemon may write none of its own. So the package makes it, of what the daemon loads,
for the very Python that is there; a daemon that finds none does without
(docs/decisions/0012). `-OO` drops assertions too: none may be needed for safety.
"""

import os
import subprocess
import sys
from pathlib import Path

_MADE_FOR = "made-for"
# What an idle daemon has come to load since its start is named here.
_MAKING = """
import importlib, os, pathlib, sys
from updaterd.daemon import deferred
for name in (*deferred.NAMES, "concurrent.futures.thread", "encodings.idna"):
    importlib.import_module(name)
import updaterd.daemon.__main__
os.sync()
pathlib.Path(sys.pycache_prefix, {stamp!r}).write_text(sys.version)
"""


def _folder() -> Path:
    return Path(sys.prefix) / "bytecode"


def _options(folder: Path) -> list[str]:
    return ["-OO", "-X", "no_debug_ranges", "-X", f"pycache_prefix={folder}"]


def options() -> list[str]:
    """Return what lets an interpreter use the byte code; nothing if there is none.

    That of another Python is none: to read sources at each start costs more than it
    saves. Python itself compares the times of single files.
    """
    folder = _folder()
    try:
        fits = (folder / _MADE_FOR).read_bytes() == sys.version.encode()
    except OSError:
        fits = False
    return _options(folder) if fits else []


def make() -> None:
    """Let an interpreter load what the daemon loads, and keep what it compiles.

    Raises:
        subprocess.CalledProcessError: it could not.

    Power cut: the stamp comes last, after all else is on the disk (a file of the right
        length without its bytes would end every start); without it, nothing is used.
    """
    from updaterd.files import deletion  # noqa: PLC0415 - not for the daemon

    folder = _folder()
    (folder / _MADE_FOR).unlink(missing_ok=True)
    deletion.delete_tree(folder)  # an older Python's
    subprocess.run(  # noqa: S603 - ourselves
        [
            *(sys.executable, "-I", *_options(folder)),
            *("-c", _MAKING.format(stamp=_MADE_FOR)),
        ],
        check=True,
        env={"PATH": os.defpath},
    )


if __name__ == "__main__":
    make()
