# SPDX-License-Identifier: Apache-2.0
"""What the machine cannot read is told from what a bundle made wrong."""

import hashlib
import os
import subprocess
import sys
from array import array
from contextlib import closing

import pytest
from fakes.uncompiled import BOTH, use

from updaterd.artifact.apply import loops
from updaterd.artifact.destination import Destination
from updaterd.artifact.folders import Folders
from updaterd.core.tree import File

EMPTY = hashlib.sha256().hexdigest()


def _trees(base):
    old, new = base / "old", base / "new"
    old.mkdir()
    new.mkdir()
    for number in range(3):
        (old / f"o{number}").write_bytes(b"o" * 100)
    (new / "made").write_bytes(b"m" * 100)
    files = [File(f"o{number}", "", 100, 0o644) for number in range(3)]
    return loops.best().Concatenation(old, files, new, [File("made", "", 100, 0o644)])


RANGES = array("q", [10, 110, 210, 310]), array("q", [20, 120, 220, 320])
GONE = {"away": os.unlink, "cut short": lambda path: os.truncate(path, 5)}


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("how", GONE)
def test_a_made_file_that_cannot_be_read_is_the_machines_trouble(
    tmp_path, monkeypatch, which, how
):
    """It was whole when it was written: read as zeros, the release would be blamed."""
    use(which, monkeypatch)
    with closing(_trees(tmp_path)) as data:
        data.allow(1)
        GONE[how](tmp_path / "new" / "made")
        GONE[how](tmp_path / "old" / "o0")
        with pytest.raises(OSError, match="made"):
            data.gather(*RANGES)
        with pytest.raises(OSError, match="made"):
            data.read(310, 320)


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("how", GONE)
def test_an_old_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, which, how):
    """It reads as zeros, and is to blame for what comes out wrong."""
    use(which, monkeypatch)
    with closing(_trees(tmp_path)) as data:
        GONE[how](tmp_path / "old" / "o1")
        ranges = RANGES[0][:3], RANGES[1][:3]
        expected = b"o" * 10 + bytes(10) + b"o" * 10

        assert expected == data.gather(*ranges)
        assert ("o1",) == data.short()


def test_a_machine_without_descriptors_does_not_call_a_made_file_wrong(tmp_path):
    """`bad_output` would block the release for what passes by itself."""
    (tmp_path / "f").write_bytes(b"")
    code = (
        "import os, resource, sys\n"
        "from updaterd.artifact.destination import Destination\n"
        "from updaterd.core.tree import File\n"
        "tree = Destination(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (tree.root + 1,) * 2)\n"
        "tries = (lambda: tree.seal(File('f', '0' * 64, 0, 0o644), shared=False),\n"
        "    lambda: tree.seal_unknown('f', 0, 0o644))\n"
        "for work in tries:\n"
        "    try:\n"
        "        print('told', work())\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ["Too many open files"] * 2 == done.stdout.splitlines()


def test_an_old_file_on_a_bad_sector_is_not_taken_over(tmp_path):
    """It is fetched instead: reading it must not end the run."""
    file = File("mem", EMPTY, 0, 0o644)  # answers EIO, as a bad sector does
    with closing(Destination(tmp_path)) as tree, Folders("/proc/self") as folders:
        assert not tree.share(folders, file, "copy", 0o644, "reflink")
    assert [] == list(tmp_path.iterdir())
