# SPDX-License-Identifier: Apache-2.0
"""Parts of a full bundle, fetched into a sparse file of its length."""

import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from updaterd.errors import MalformedError
from updaterd.pipeline import reuse


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
        with pytest.raises(MalformedError):  # zeros are no bundle
            reuse.fetch_missing(manifest, frozenset({"a"}), services, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20
    assert not list(tmp_path.iterdir())
