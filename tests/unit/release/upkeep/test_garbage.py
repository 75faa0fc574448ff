# SPDX-License-Identifier: Apache-2.0
"""What may be deleted: long forgotten by everybody, and the repository's own."""

import os
import shutil
from datetime import timedelta

import pytest
from fakes.channel import Channel
from fakes.repository import T0

from updaterd.release.upkeep import garbage, verification

DAY = timedelta(days=1)


@pytest.fixture
def after(publisher):
    """Return what may go so many days after T0; files look as old as can be."""

    def collect(days, *, keep=7):
        publisher.now = T0 + days * DAY
        for path in publisher.public.rglob("*"):
            os.utime(path, (0, 0))
        limit = publisher.now - keep * DAY
        return garbage.collectable(publisher.space, publisher.open(), limit)

    return collect


def test_what_was_referred_to_until_a_moment_ago_stays(publisher, after):
    """Files of a year, out of use since now: machines still go by them for a week."""
    assert after(0) == []
    old = publisher.metadata / "2.acme.stable.json"
    publisher.now = T0 + 10 * DAY
    publisher.release("1.1.0")
    assert old not in after(10), "noted now, however old it is"
    assert old not in after(16.9)
    assert old in after(17.1)


def test_the_daily_refresh_notes_it_too(publisher, after):
    """Nobody has to call `gc` twice, a week apart."""
    old = publisher.metadata / "2.acme.stable.json"
    publisher.release("1.1.0")
    garbage.note(publisher.space, publisher.open())
    assert old in after(8)


def test_what_is_referred_to_again_counts_anew(publisher, after):
    """A release that came back and went again is young."""
    channel = Channel(publisher)
    channel.push("1.1.0")
    (manifest,) = (publisher.public / "targets/acme/releases/1.1.0").iterdir()
    channel.yank("1.1.0")
    assert manifest not in after(5)
    channel.push("1.1.0")
    assert after(6) is not None
    channel.yank("1.1.0")
    assert manifest not in after(12)
    assert manifest in after(20)


def test_what_a_push_has_just_put_there_stays(publisher, after):
    """Its age on disk counts, too: nothing refers to it before the push is done."""
    blob = publisher.space.blob("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"of a push that died")
    assert after(0) == []
    assert blob in after(9)
    os.utime(blob, ((T0 + 8 * DAY).timestamp(),) * 2)
    limit = T0 + 2 * DAY
    assert blob not in garbage.collectable(publisher.space, publisher.open(), limit)


def test_what_is_not_ours_is_never_touched(publisher, after):
    """A site's own pages in the same folder, also where ours are."""
    foreign = [
        "index.html", ".well-known/security.txt", "metadata/README",
        "metadata/5.other.json", "metadata/1.root.json.sig", "targets/acme/notes.json",
        "targets/other/releases/1.0/" + "a" * 64 + ".x.json", "blobs/sha256/ab/short",
        "blobs/sha256/00/" + "ab" * 32, "blobs/md5/x", "metadata/.htaccess",
    ]  # fmt: skip
    for name in foreign:
        path = publisher.public / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody's")
    link = publisher.metadata / "9.acme.stable.json"
    link.symlink_to(publisher.public / "index.html")
    half = publisher.metadata / ".timestamp.json.01234567.new"
    half.write_text("of a publication that was cut short")
    publisher.release("1.1.0")
    after(0)
    gone = after(9000)
    assert half in gone
    assert not {publisher.public / name for name in foreign} & {*gone}
    assert link not in gone
    for path in gone:
        path.unlink()
    assert len(verification.verify(publisher.space, publisher.open(), deep=True)) == 2


def test_a_lost_journal_deletes_nothing(publisher, after):
    """Damaged or gone: everything counts from now on."""
    publisher.release("1.1.0")
    after(0)
    journal = publisher.folder / "unreferenced.json"
    journal.write_text('{"since": 5')
    assert after(30) == []
    journal.unlink()
    assert after(60) == []
    shutil.copy(publisher.folder / "release.toml", journal)
    assert after(90) == []
