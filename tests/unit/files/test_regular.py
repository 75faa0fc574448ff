# SPDX-License-Identifier: Apache-2.0
"""What an application put where updaterd reads is read only if it is a file."""

import os
import signal
import socket

import pytest

from updaterd.files import regular
from updaterd.install import layout, stage
from updaterd.pipeline.tree import reuse
from updaterd.trust.signed import Signed

KINDS = ("fifo", "device", "socket", "link", "folder")


@pytest.fixture(autouse=True)
def _ends():
    """Whoever waits for a FIFO is ended, and that is an error."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(30)
    yield
    signal.alarm(0)


def put(kind, path):
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
            if os.geteuid() == 0:
                path.unlink()
                os.mknod(path, 0o020666, os.makedev(1, 5))
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case "link":
            path.symlink_to(__file__)
        case "folder":
            path.mkdir()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x"
    put(kind, path)
    for read in (Signed.open, regular.opened, lambda p: regular.read(p, 10)):
        with pytest.raises(OSError):
            read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_is_no_file_is_as_good_as_none(tmp_path, kind):
    """Beside a release, where a roll back and a run that goes on look for it."""
    listing = stage.listing_path(tmp_path, "1.0")
    listing.parent.mkdir(parents=True, exist_ok=True)
    put(kind, listing)
    assert {} == layout.saved_manifests(tmp_path, ["1.0"])
    put(kind, tmp_path / "between.json")
    assert reuse.listing(tmp_path / "between", "0" * 64) is None


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert b"12345" == regular.read(tmp_path / "x", 5)
    with pytest.raises(OSError):
        regular.read(tmp_path / "x", 4)
