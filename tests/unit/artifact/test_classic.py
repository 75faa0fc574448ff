# SPDX-License-Identifier: Apache-2.0
"""A machine whose zlib makes other bytes is never given what needs the very bytes."""

import zlib

import pytest

from updaterd.artifact import classic, codecs

INFLATED = "delta3+xz"


@pytest.fixture
def other(monkeypatch):
    """A zlib that is no worse, and other: what zlib-ng is."""
    real = zlib.compressobj

    def compressobj(level=-1, method=8, window=15, memory=8, strategy=0):
        return real(level, method, window, max(1, memory - 1), strategy)

    monkeypatch.setattr(classic, "_checked", [])
    monkeypatch.setattr(zlib, "compressobj", compressobj)


def test_another_zlib_is_known_by_what_it_makes(other):
    assert not classic.is_here()
    assert INFLATED not in codecs.available([INFLATED])
    assert "delta2+xz" in codecs.available([INFLATED])


def test_zlib_itself_is_known(monkeypatch):
    monkeypatch.setattr(classic, "_checked", [])
    if not classic.is_here():
        pytest.skip("this Python has another zlib")
    assert INFLATED in codecs.available([INFLATED])


def test_nobody_pays_for_it_who_is_not_offered_any(monkeypatch):
    monkeypatch.setattr(classic, "_checked", [])

    assert INFLATED not in codecs.available(["delta1+xz"])
    assert not classic._checked


def test_a_publisher_with_another_zlib_makes_none(other, tmp_path):
    from fakes.archives import release
    from fakes.bundles import grow

    from updaterd.release import tree
    from updaterd.release.bundles.delta import build_inflated

    for name, changed in (("old", 0), ("new", 1)):
        grow(tmp_path / name, release(changed))
    old, new = (tmp_path / name for name in ("old", "new"))
    made = build_inflated(
        old, tree.scan(old), new, tree.scan(new), tmp_path / "delta",
        from_version="1", to_version="2",
    )  # fmt: skip

    assert made is None
