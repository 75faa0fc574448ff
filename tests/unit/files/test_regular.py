# SPDX-License-Identifier: Apache-2.0
"""What an application put where updaterd reads is read only if it is a file."""

import argparse
import os
import signal
import socket
from types import SimpleNamespace

import pytest
from tuf.api.metadata import TargetFile

from updaterd.cli.desktop import launch
from updaterd.cli.parts import looking
from updaterd.errors import BrokenError
from updaterd.files import regular
from updaterd.install import layout, stage
from updaterd.pipeline.tree import reuse
from updaterd.trust.cache import Store
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
                listening.bind(str(short := path.with_name("s")))
            short.rename(path)
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_manifest_that_is_no_file_is_fetched_again(tmp_path, kind):
    target = TargetFile.from_data("acme/1.json", b"signed")
    path = tmp_path / "manifests" / target.hashes["sha256"]
    path.parent.mkdir()
    put(kind, path)
    network = SimpleNamespace(deadline_s=1.0, get=lambda *_, **__: b"signed")
    store = Store(tmp_path, "http://localhost/", network)
    assert b"signed" == store.fetch_target(target, limit=10).whole()


@pytest.mark.parametrize("kind", KINDS)
def test_no_command_waits_for_what_stands_for_the_status(tmp_path, kind, monkeypatch):
    """A daemon of another user owns the folder, and a person types the command."""
    runtime = tmp_path / "updaterd-acme"
    runtime.mkdir()
    put(kind, runtime / "status.json")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert looking.published_in(runtime) is None
    arguments = launch_parser().parse_args(["acme", "bin/acme"])
    with pytest.raises(BrokenError, match="no product"):
        launch.run(arguments)


def launch_parser():
    parser = argparse.ArgumentParser()
    launch.configure(parser)
    return parser


def test_a_file_is_read_up_to_its_bound(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert b"12345" == regular.read(tmp_path / "x", 5)
    with pytest.raises(OSError):
        regular.read(tmp_path / "x", 4)
