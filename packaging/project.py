# SPDX-License-Identifier: Apache-2.0
"""What the packages say of the project; pyproject.toml and the code are its homes."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def run(*argv, **options):
    return subprocess.run([str(word) for word in argv], check=True, **options)


def table():
    """Return `[project]` of pyproject.toml."""
    return tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def version():
    """Return the version, which has one home. (Not imported: that needs httpx.)"""
    text = (REPO / "updaterd/__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def maintainer():
    """Return whom to write to, as packages spell it."""
    (person,) = table()["maintainers"]
    return f"{person['name']} <{person['email']}>"


def epoch():
    """Return the time all files get: SOURCE_DATE_EPOCH, else the last commit's."""
    if seconds := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(seconds)
    log = ("git", "-C", REPO, "log", "-1", "--format=%ct")
    return int(run(*log, capture_output=True, text=True).stdout)
