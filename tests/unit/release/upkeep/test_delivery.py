# SPDX-License-Identifier: Apache-2.0
"""A destination is right at every moment, whatever is cut, whoever else publishes."""

import shutil
from contextlib import suppress
from datetime import timedelta

import pytest
from fakes.cloud import offered
from fakes.origin import Origin
from fakes.repository import Publisher
from tuf.api.exceptions import RepositoryError

from updaterd.errors import BrokenError
from updaterd.release.destinations.contract import UnreachableError
from updaterd.release.destinations.folder import Folder
from updaterd.release.repository.lifetimes import TIMESTAMP_DAYS
from updaterd.release.upkeep import delivery, garbage
from updaterd.release.workspace import Workspace

POINTER = "metadata/timestamp.json"


class Cut(Folder):
    """A directory that something happens to right before its n-th write."""

    def __init__(self, path, at=0, happens=None):
        super().__init__(path)
        self.writes = []
        self.at = at
        self.happens = happens or self._fail

    def _fail(self):
        raise UnreachableError("the network is gone")

    def _write(self, path):
        self.writes.append(path)
        if len(self.writes) == self.at:
            self.happens()

    def send(self, path, source, sent):
        self._write(path)
        super().send(path, source, sent)

    def replace(self, path, data, before):
        self._write(path)
        return super().replace(path, data, before)


class Mirror:
    """A directory, and the client that goes by it."""

    def __init__(self, folder, publisher):
        self.path = folder / "mirror"
        self.path.mkdir()
        self.folder = folder
        self.publisher = publisher
        self.origin = Origin(self.path).__enter__()
        self.clients = 0

    def deliver(self, publisher=None, *, to=None, **how):
        publisher = publisher or self.publisher
        return delivery.deliver(
            publisher.space, to or Folder(self.path), publisher.open, **how
        )

    def offered(self):
        """Return what a machine that never looked before is offered."""
        self.clients += 1
        cache = self.folder / f"client-{self.clients}"
        cache.mkdir()
        return offered(self.origin.url, self.publisher.bootstrap, cache)


@pytest.fixture
def publisher(tmp_path):
    made = Publisher(tmp_path / "ops", channels=("stable", "beta"))
    made.release("1.0.0", blob=True)
    return made


@pytest.fixture
def mirror(tmp_path, publisher):
    made = Mirror(tmp_path, publisher)
    made.deliver()
    yield made
    made.origin.__exit__(None, None, None)


@pytest.fixture
def clone(tmp_path, publisher):
    """Return the same repository at another publisher's."""
    shutil.copytree(publisher.folder, tmp_path / "clone")
    made = Publisher.__new__(Publisher)
    made.folder, made.now = tmp_path / "clone", publisher.now
    made.space = Workspace(made.folder)
    return made


def test_a_first_delivery_that_is_cut_anywhere_is_finished_by_the_next(mirror):
    for at in range(1, 99):
        shutil.rmtree(mirror.path)
        mirror.path.mkdir()
        try:
            mirror.deliver(to=Cut(mirror.path, at=at))
        except UnreachableError:
            assert not (mirror.path / POINTER).exists()
            assert mirror.deliver().moved
        else:
            break
    assert at > 9
    assert mirror.offered() == "1.0.0"


def test_a_client_is_right_wherever_an_update_is_cut(mirror, publisher):
    publisher.release("1.1.0", blob=True)
    for at in range(1, 99):
        to = Cut(mirror.path, at=at)
        try:
            mirror.deliver(to=to)
        except UnreachableError:
            assert mirror.offered() == "1.0.0"
        else:
            break
    assert mirror.offered() == "1.1.0"


def test_what_is_there_is_not_sent_again(mirror, publisher):
    to = Cut(mirror.path)
    again = mirror.deliver(to=to)
    assert (to.writes, again.files, again.bytes, again.moved) == ([], 0, 0, False)

    publisher.release("1.1.0", blob=True)
    sent = mirror.deliver(to=to)
    assert sent.files == len(to.writes) - 1 == 6
    assert to.writes[-1] == POINTER


def test_a_release_of_another_publisher_is_not_lost(mirror, publisher, clone):
    """Both go on from 1.0.0 and give the same versions to their own release."""
    clone.release("1.1.0", blob=True)
    mirror.deliver(clone)
    publisher.now += timedelta(seconds=5)
    publisher.release("2.0.0", blob=True)
    for _ in range(2):  # not with the same version of everything, nor with later ones
        with pytest.raises(BrokenError) as refused:
            mirror.deliver()
        assert refused.value.code in ("repository_behind", "destination_parted")
        assert mirror.offered() == "1.1.0"
        publisher.refresh()


@pytest.mark.parametrize("at", range(1, 8))
def test_two_publishers_at_once_leave_one_release_whole(
    mirror, publisher, clone, at, tmp_path
):
    """The other comes right before our n-th write, and is done before we go on."""
    clone.release("1.1.0", blob=True)
    publisher.now += timedelta(seconds=5)
    publisher.release("2.0.0", blob=True)
    refused = []

    def other():
        with suppress(BrokenError):
            mirror.deliver(clone)
            refused.append("2.0.0")

    with suppress(BrokenError):
        mirror.deliver(to=Cut(mirror.path, at=at, happens=other))
        refused.append("1.1.0")
    # never both, and neither only where each had written before the other
    assert len(refused) <= 1
    left = {"2.0.0": "1.1.0", "1.1.0": "2.0.0"}
    assert mirror.offered() == (left[refused[0]] if refused else "1.0.0")


def test_the_later_of_two_deliveries_from_one_place_wins(mirror, publisher):
    """A slow upload ends after a fast one of a later state, and takes nothing back."""
    publisher.release("1.1.0", blob=True)

    def later():
        publisher.release("1.2.0", blob=True)
        mirror.deliver()

    mirror.deliver(to=Cut(mirror.path, at=7, happens=later))
    assert mirror.offered() == "1.2.0"


def test_a_restored_backup_does_not_overwrite_what_is_out(mirror, publisher, clone):
    publisher.release("1.1.0", blob=True)
    mirror.deliver()
    with pytest.raises(BrokenError, match="newer repository than this one"):
        mirror.deliver(clone)
    assert mirror.offered() == "1.1.0"


def test_editions_that_a_lost_publisher_left_count_as_newer(mirror, publisher, clone):
    """Nothing refers to them yet; with the same names they would be mixed up."""
    publisher.release("1.1.0", blob=True)
    with pytest.raises(UnreachableError):
        mirror.deliver(to=Cut(mirror.path, at=7))
    with pytest.raises(BrokenError, match="newer repository than this one"):
        mirror.deliver(clone)


def test_another_repository_is_left_alone(mirror, tmp_path):
    other = Publisher(tmp_path / "other")
    other.release("9.0.0", blob=True)
    with pytest.raises(Exception, match="was not signed by the keys") as refused:
        mirror.deliver(other)
    assert refused.value.code == "not_compared"
    assert mirror.offered() == "1.0.0"


@pytest.mark.parametrize("name", ["2.acme.stable.json", "1.root.json"])
def test_a_damaged_edition_is_mended_by_a_thorough_look(mirror, publisher, name):
    path = mirror.path / "metadata" / name
    right = path.read_bytes()
    path.write_bytes(right[:-2] + b" }")

    assert mirror.deliver().files == 0
    assert mirror.deliver(thorough=True).files == 1
    assert path.read_bytes() == right


def test_a_short_blob_is_mended_by_any_delivery(mirror):
    blob = next((mirror.path / "blobs").rglob("*/*/*"))
    right = blob.read_bytes()
    blob.write_bytes(right[:-1])

    assert mirror.deliver().files == 1
    assert blob.read_bytes() == right


def test_a_blob_that_is_damaged_here_is_not_sent(mirror, publisher):
    release = publisher.release("1.1.0", blob=True)
    publisher.space.blob(release.full.sha256).write_bytes(b"flipped")
    with pytest.raises(BrokenError, match="is damaged"):
        mirror.deliver()
    assert mirror.offered() == "1.0.0"


def test_gc_there_waits_as_long_as_metadata_counts_and_knows_what_is_its_own(
    mirror, publisher
):
    foreign = [mirror.path / "index.html", mirror.path / "metadata/notes.json"]
    for path in foreign:
        path.write_text("a site's own")
    half = mirror.path / "metadata/.timestamp.json.0123abcd.new"
    half.write_text("half")
    before = set(mirror.path.rglob("*.json"))
    publisher.release("1.1.0", blob=True)
    mirror.deliver()

    def collectable(days):
        publisher.now += timedelta(days=days)
        repository = publisher.open()
        stored = Folder(mirror.path).stored()
        return garbage.collectable_at(
            publisher.space,
            repository,
            str(mirror.path),
            stored,
            publisher.now - timedelta(days=TIMESTAMP_DAYS),
        )

    assert collectable(0) == []
    assert collectable(TIMESTAMP_DAYS - 1) == []
    publisher.now += timedelta(days=4)  # the fake clock is behind the disk's
    names = collectable(1)
    assert "metadata/.timestamp.json.0123abcd.new" in names
    assert {"metadata/2.snapshot.json", "metadata/2.acme.stable.json"} <= set(names)
    for name in names:
        Folder(mirror.path).delete(name)
    assert mirror.offered() == "1.1.0"
    assert all(path.exists() for path in foreign)
    assert before - set(mirror.path.rglob("*.json"))


class Edge:
    """A cache in front that keeps what it once had of the pointer, however old."""

    def __init__(self, origin):
        self.origin = origin
        self.kept = None
        origin.misbehave("timestamp", self)

    def __call__(self, handler):
        if self.kept is None:
            self.kept = (self.origin.root / POINTER).read_bytes()
        handler.whole(self.kept)

    def let_go(self):
        self.kept = None


def test_a_stale_edge_costs_time_and_nothing_else(mirror, publisher, tmp_path):
    edge = Edge(mirror.origin)
    assert mirror.offered() == "1.0.0"
    publisher.release("1.1.0", blob=True)
    mirror.deliver()

    assert mirror.offered() == "1.0.0", "all that the old pointer leads to is there"
    edge.let_go()
    assert mirror.offered() == "1.1.0"


def test_who_has_seen_more_than_a_stale_edge_takes_nothing_back(
    mirror, publisher, tmp_path
):
    (tmp_path / "client").mkdir()

    def again():
        url = mirror.origin.url
        return offered(url, publisher.bootstrap, tmp_path / "client")

    old = (mirror.path / POINTER).read_bytes()
    publisher.release("1.1.0", blob=True)
    mirror.deliver()
    assert again() == "1.1.0"
    edge = Edge(mirror.origin)
    edge.kept = old
    with suppress(RepositoryError):
        assert again() == "1.1.0", "not what the old pointer offers"
    edge.let_go()
    assert again() == "1.1.0"
