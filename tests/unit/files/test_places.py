# SPDX-License-Identifier: Apache-2.0
"""Folders of our own that were deleted are back, and belong to whom they should."""

import os
import shutil
import stat

import pytest
from fakes.tools import need_root

from updaterd.cli import main
from updaterd.errors import BrokenError
from updaterd.exits import ended
from updaterd.files import places

DAEMON = 4321


@pytest.fixture
def options(tmp_path):
    (tmp_path / "root.json").write_text("{}")
    (tmp_path / "updaterd.toml").write_text(
        f"""
[feed]
url = "http://127.0.0.1:9/"
[trust]
root = "{tmp_path}/root.json"
repository = "http://127.0.0.1:9"
[products.acme]
root = "{tmp_path}/opt/acme"
"""
    )
    places_ = {kind: tmp_path / kind for kind in ("state", "cache", "runtime")}
    return places_, [
        f"--config={tmp_path}/updaterd.toml",
        *(f"--{kind}-dir={path}" for kind, path in places_.items()),
    ]


def test_cache_that_root_makes_again_is_the_daemons(options):
    """Who deletes it as root and then types `update` must not lock the daemon out."""
    need_root()
    where, words = options
    main(["update", *words])
    os.chown(where["state"], DAEMON, DAEMON)
    shutil.rmtree(where["cache"])

    main(["update", *words])

    found = where["cache"].stat()
    assert (DAEMON, DAEMON, 0o700) == (
        found.st_uid,
        found.st_gid,
        stat.S_IMODE(found.st_mode),
    )


def test_every_folder_on_the_way_is_closed_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        places.make(tmp_path / "cache/bundles/acme")
    finally:
        os.umask(old)

    for folder in ("cache", "cache/bundles", "cache/bundles/acme"):
        assert 0o700 == stat.S_IMODE((tmp_path / folder).stat().st_mode)


def test_folder_that_cannot_be_made_is_told_with_what_helps(options, tmp_path, capsys):
    """A file in its place: nobody is told to become root who is."""
    where, words = options
    where["cache"].write_text("in the way")

    assert 1 == main(["update", *words])

    told = capsys.readouterr().err
    assert f"cannot make {where['cache']}" in told
    assert "run it as root" not in told
    assert "install -d -m 0700" in told


def test_root_who_was_refused_is_not_told_to_become_root(capsys):
    need_root()
    with pytest.raises(BrokenError) as refused:
        places.require(places.Path("/sys/kernel/updaterd"), code="cache_unusable")

    def work() -> int:
        raise PermissionError(1, "Operation not permitted", "/var/lib/x")

    assert 1 == ended(work)
    for told in (str(refused.value), capsys.readouterr().err):
        assert "ran as root already" in told
        assert "run it as root" not in told
