# SPDX-License-Identifier: Apache-2.0
"""A release's deltas are made side by side; nothing of that shows in what is made."""

import random

import pytest
from fakes.bundles import grow
from fakes.repository import Publisher, manifest_of

from updaterd.errors import RejectedError, TransientError
from updaterd.release import build, tree
from updaterd.release.bundles.packing import exchange

pytestmark = pytest.mark.slow

VERSIONS = ("1.0", "1.1", "1.2")


@pytest.fixture
def space(tmp_path):
    return Publisher(tmp_path / "ops").space


@pytest.fixture
def releases(tmp_path, space):
    """Manifests of three releases, newest first; the newest is the most work."""
    draw = random.Random(3)
    code = bytearray(draw.randbytes(1_300_000))
    made = []
    for number, version in enumerate(VERSIONS):
        for at in range(number, 1_000_000, 20_000 // (number + 1)):
            code[at] = (code[at] + 1) % 256
        more = {"big": draw.randbytes(600_000)} if number == 2 else {}
        files = grow(tmp_path / version, {"code": bytes(code), "t": b"t", **more})
        built = build.build(
            space, tmp_path / version, files, version=version, previous=()
        )
        made.append(
            manifest_of("acme", version, number + 1, files=files, full=built.full)
        )
    code[5:5] = b"something new"
    (tmp_path / "2.0").mkdir()
    grow(tmp_path / "2.0", {"code": bytes(code), "t": b"t"})
    return made[::-1]


def _build(tmp_path, space, previous, progress=None):
    files = grow(tmp_path / "2.0", {})
    return build.build(
        space,
        tmp_path / "2.0",
        files,
        version="2.0",
        previous=previous,
        progress=progress,
    )


def test_side_by_side_makes_what_one_after_another_makes(tmp_path, space, releases):
    """Newest first whichever is done first; each the bytes that it is alone."""
    together = _build(tmp_path, space, releases).deltas
    alone = [_build(tmp_path, space, [old]).deltas[0] for old in releases]

    assert [edge.from_version for edge in together] == ["1.2", "1.1", "1.0"]
    assert list(together) == alone
    assert all(space.blob(edge.sha256).stat().st_size for edge in together)
    assert not list(space.work.iterdir())


@pytest.mark.parametrize(("name", "codec"), [("bytes", "xz"), ("cpu", "zstd")])
def test_the_full_bundle_is_packed_at_the_rate_that_was_asked_for(
    tmp_path, space, name, codec
):
    draw = random.Random(5)
    words = [draw.randbytes(draw.randrange(2, 7)) for _ in range(2000)]
    text = b"".join(draw.choices(words, k=70_000))
    files = grow(tmp_path / "2.0", {"text": text})
    rate = exchange.RATES[name]
    built = build.build(
        space, tmp_path / "2.0", files, version="2.0", previous=(), rate=rate
    )

    assert built.full.codec == f"full1+{codec}"


def test_progress_is_one_bar_that_only_grows_and_ends(tmp_path, space, releases):
    """The deltas share it, by the bytes that each has to make."""
    seen = []
    _build(tmp_path, space, releases, lambda *now: seen.append(now))

    told = [(done, total) for what, done, total in seen if what != "bundle"]
    assert {what for what, _, _ in seen} == {"bundle", "deltas from 3 releases"}
    assert told == sorted(told)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]


def test_one_that_cannot_be_made_leaves_the_others(tmp_path, space, releases):
    """An old bundle that rotted: its machines take the whole, and it is said."""
    space.blob(releases[1].full.sha256).write_bytes(b"rotten")
    seen = []
    built = _build(tmp_path, space, releases, lambda *now: seen.append(now))

    assert [edge.from_version for edge in built.deltas] == ["1.2", "1.0"]
    assert [told.split(":")[0] for told in built.skipped] == ["1.1"]
    assert seen[-1][1] == seen[-1][2]
    assert not list(space.work.iterdir())


def test_a_machine_without_room_makes_no_release_without_its_deltas(
    tmp_path, space, releases
):
    """It would go without them for ever: a release never changes."""

    def make(*_, **__):
        raise TransientError("no space left", code="disk_full")

    files = grow(tmp_path / "2.0", {})
    with pytest.raises(TransientError, match="no space"):
        build.build(
            space,
            tmp_path / "2.0",
            files,
            version="2.0",
            previous=releases,
            make=make,
        )
    assert not list(space.work.iterdir())


def test_what_dead_runs_left_is_swept_and_what_lives_is_not(space):
    """A push that is killed leaves a tree's worth of files; nobody else clears them."""
    left = space.work / "tmpdead"
    left.mkdir()
    (left / "full").write_bytes(b"half")
    with space.scratch() as living:
        assert not left.exists()
        with space.scratch() as other:
            assert living.is_dir()
            assert other != living
    assert not list(space.work.iterdir())


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("a\nb", None, "rename"),
        ("a\\b", None, "rename"),
        ("l", "/etc/passwd", "'/etc/passwd'"),
        ("l", "../up", "relative and inside"),
    ],
)
def test_what_no_release_may_hold_is_named_with_a_way_out(tmp_path, name, target, says):
    """At three in the morning somebody has to find it in a tree of 10,000 files."""
    if target is None:
        (tmp_path / name).touch()
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(RejectedError) as caught:
        tree.scan(tmp_path)
    assert repr(name) in caught.value.cause
    assert says in caught.value.means + caught.value.do
