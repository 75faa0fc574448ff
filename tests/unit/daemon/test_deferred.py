# SPDX-License-Identifier: Apache-2.0
"""What the daemon's libraries import in vain is read when it is used, or never."""

import subprocess
import sys

import pytest

from updaterd.daemon import deferred


def told(work: str) -> str:
    """What an interpreter of its own prints that runs `work`."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", work], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def module(tmp_path):
    """What defers a module `slow_to_read` that counts how often it is read."""
    (tmp_path / "slow_to_read.py").write_text(
        "import builtins\n"
        "builtins.readings = getattr(builtins, 'readings', 0) + 1\n"
        "if builtins.readings in getattr(builtins, 'failing', ()):\n"
        "    raise OSError('no such luck')\n"
        "answer = 42\n"
        "def where(): return globals()\n"
    )
    return (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import builtins; builtins.readings = 0\n"
        "from updaterd.daemon import deferred\n"
        "deferred.defer(['slow_to_read'])\n"
    )


def test_every_deferred_module_would_be_read_without_use():
    """One that nobody imports any more has no place in the list."""
    found = told("import updaterd.daemon.service, updaterd.config, sys\n"
                 f"print(*set({deferred.NAMES!r}) - set(sys.modules))")  # fmt: skip

    assert not found


def test_daemon_starts_without_reading_them():
    found = told(
        "import updaterd.daemon.__main__, sys\n"
        f"print(*[n for n in {deferred.NAMES!r}"
        " if type(sys.modules[n]).__name__ != '_Unread'])"
    )

    assert not found


def test_deferred_module_is_read_once_and_is_one_for_all(module):
    """Who imported it, and who takes a name out of it, get the same module."""
    found = told(
        module + "import slow_to_read\n"
        "import slow_to_read as again\n"
        "print(readings)\n"
        "from slow_to_read import answer\n"
        "print(answer, slow_to_read.answer, again is slow_to_read, readings,\n"
        "      slow_to_read.where() is vars(slow_to_read), hasattr(again, 'absent'))"
    )

    assert "0\n42 42 True 1 True False" == found


def test_module_that_could_not_be_read_may_be_read_later(module):
    """Out of descriptors or memory now is not for the life of the daemon."""
    found = told(
        module + "import slow_to_read\n"
        "builtins.failing = {1}\n"
        "try: slow_to_read.answer\n"
        "except OSError as error: print(error)\n"
        "print(slow_to_read.answer)"
    )

    assert "no such luck\n42" == found


def test_module_that_is_read_already_stays_as_it_is():
    found = told(
        "import textwrap\nbefore = textwrap\n"
        "from updaterd.daemon import deferred\ndeferred.defer()\n"
        "import textwrap\nprint(before is textwrap, type(textwrap).__name__)"
    )

    assert "True module" == found
