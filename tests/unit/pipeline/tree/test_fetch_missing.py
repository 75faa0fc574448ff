# SPDX-License-Identifier: Apache-2.0
"""Parts of a full bundle, fetched into a sparse file of its length."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from fakes.bundles import grow

from updaterd.artifact.verify import verify_tree
from updaterd.core.manifest import tree_id
from updaterd.errors import TransientError
from updaterd.pipeline.tree import reuse
from updaterd.release.bundles import full as release_bundle

pytestmark = pytest.mark.slow


class Server:
    """Answers every range with zeros."""

    @contextmanager
    def stream(self, url, *, start, end):
        yield SimpleNamespace(status=206, chunks=iter([bytes(end - start)]))


def test_head_of_a_long_bundle_is_read_not_all_of_it(tmp_path):
    """The rest of the file is a hole: read, it would be as many bytes of memory."""
    full = SimpleNamespace(sha256="0" * 64, length=64 << 20, codec="zip")
    manifest = SimpleNamespace(full=full, files=(), tree="0" * 64)
    services = SimpleNamespace(
        bases=["http://127.0.0.1"],
        bundles=lambda _: tmp_path,
        fetcher=Server(),
        teller=SimpleNamespace(progress=lambda *_: None),
    )

    tracemalloc.start()
    try:
        with pytest.raises(reuse.NoRangesError) as caught:  # zeros are no bundle
            reuse.fetch_missing(manifest, frozenset({"a"}), services, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "hash_mismatch" == caught.value.code, "the whole bundle may be right"
    assert peak < 4 << 20
    assert not list(tmp_path.iterdir())


@pytest.fixture
def release(tmp_path):
    """A release that runs, hard-linked into what is staged; one file is missing."""
    files = grow(tmp_path / "new", {"a/b": b"b" * 900, "a/l": "b", "kept": b"kept"})
    built = release_bundle.build_full(tmp_path / "new", files, tmp_path / "full")
    running, staging = tmp_path / "running", tmp_path / "stage-1"
    grow(running, {"kept": b"kept"})
    staging.mkdir()
    os.link(running / "kept", staging / "kept")
    data = (tmp_path / "full").read_bytes()

    class Whole(Server):
        @contextmanager
        def stream(self, url, *, start, end):
            yield SimpleNamespace(status=206, chunks=iter([data[start:end]]))

    manifest = SimpleNamespace(
        full=built, files=files, tree=tree_id(files), version="2"
    )
    services = SimpleNamespace(
        bases=["http://127.0.0.1"],
        bundles=lambda _: tmp_path / "cache",
        fetcher=Whole(),
        teller=SimpleNamespace(progress=lambda *_: None),
        download=SimpleNamespace(min_free=0),
    )
    return SimpleNamespace(
        running=running, staging=staging, manifest=manifest, services=services
    )


def _fetch(release):
    lost = frozenset({"a/b", "a/l"})
    reuse.fetch_missing(release.manifest, lost, release.services, release.staging)


def test_what_is_missing_is_put_into_what_is_staged(tmp_path, release):
    """Files, links and their directories; nothing is left beside it."""
    _fetch(release)

    assert not verify_tree(release.staging, release.manifest.files)
    assert ["stage-1"] == [path.name for path in tmp_path.glob("stage-*")]


def test_a_hijacked_opener_cannot_write_into_the_running_release(
    tmp_path, monkeypatch, release
):
    """Its folder has no hard link of it, though what is staged has."""
    stub = tmp_path / "python"
    stub.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        "for fd in /proc/self/fd/*; do\n"
        '  if [ -e "$fd/kept" ]; then echo evil >>"$fd/kept"; fi\n'
        "done\n"
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))

    with pytest.raises(TransientError):
        _fetch(release)

    assert b"kept" == (release.running / "kept").read_bytes()


def test_a_server_whose_answer_is_cut_short_in_writing_is_written_whole(tmp_path):
    """A pipe or a network file system may take fewer bytes than it is given."""
    data = bytes(range(256)) * 999
    code = (
        "import os, sys; from types import SimpleNamespace as N;"
        "from contextlib import contextmanager\n"
        "from updaterd.pipeline.tree import reuse\n"
        "real = os.pwrite\n"
        "os.pwrite = lambda fd, data, at: real(fd, bytes(data[:1000]), at)\n"
        "data = bytes(range(256)) * 999\n"
        "@contextmanager\n"
        "def stream(url, *, start, end):\n"
        "    yield N(status=206, chunks=iter([data[start:end]]))\n"
        "services = N(fetcher=N(stream=stream), teller=N(progress=lambda *_: None))\n"
        "reuse._copy_range(services, 'u', 1, 0, len(data))\n"
    )
    with (tmp_path / "file").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)

    assert data == (tmp_path / "file").read_bytes()
