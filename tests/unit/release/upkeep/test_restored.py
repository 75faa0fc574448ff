# SPDX-License-Identifier: Apache-2.0
"""A repository restored from a backup: refused, then taken past what is out."""

import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes.origin import Origin
from fakes.repository import Client
from fakes.trees import make_tree
from freezegun import freeze_time

from updaterd import cli
from updaterd.cli.release.parts import opening
from updaterd.errors import RejectedError
from updaterd.release.upkeep import recovery
from updaterd.release.workspace import Workspace

pytestmark = pytest.mark.slow

ON = ["--product", "acme", "--channel", "stable"]


class World:
    """A workspace, what is out at an address, and a machine that looks at that."""

    def __init__(self, folder, capsys, origin):
        self.folder, self.capsys, self.origin = folder, capsys, origin
        self.ops, self.out = folder / "ops", folder / "out"
        words = ["init", self.ops, "--profile", "demo", "--product", "acme"]
        assert cli.main(["release", *map(str, words)]) == 0
        self.upload()
        root = (self.ops / "public/metadata/1.root.json").read_bytes()
        self.client = Client(folder / "trust", root, origin)
        self.client.now = None

    def __call__(self, *words, at=True, expect=0):
        address = ["--served-at", self.origin.url] if at else []
        words = [*words, *address, "--repo", self.ops]
        code = cli.main(["release", *map(str, words)])
        said = "".join(self.capsys.readouterr())
        assert code == expect, said
        return said

    def push(self, version, *more, contents="", **how):
        tree = make_tree(
            self.folder / "trees" / f"{version}{contents}",
            {"bin/app": f"{version} {contents}"},
        )
        said = self("push", tree, *ON, "--version", version, *more, **how)
        if not how.get("expect"):
            self.upload()
        return said

    def upload(self):
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.ops / "public", self.out)
        self.origin.root = self.out

    def backup(self):
        shutil.copytree(self.ops / "public", self.folder / "backup")

    def restore(self):
        shutil.rmtree(self.ops / "public")
        shutil.copytree(self.folder / "backup", self.ops / "public")


@pytest.fixture
def world(tmp_path, capsys):
    with Origin(tmp_path) as origin:
        made = World(tmp_path, capsys, origin)
        yield made
        made.client.close()


@pytest.fixture
def restored(world):
    """1.0.0 is in the backup; 1.1.0 was pushed since, and a machine has seen it."""
    world.push("1.0.0")
    world.backup()
    world.push("1.1.0")
    assert world.client.offered() == "1.1.0"
    world.restore()
    return world


def test_nothing_is_published_from_behind_what_is_out(restored):
    """The same versions a second time: machines would say "current" and ignore it."""
    stamp = restored.ops / "public/metadata/timestamp.json"
    before = stamp.read_bytes()
    for words in (
        ["publish", *ON, "--version", "1.0.0"],
        ["rollout", *ON, "--permille", "1000"],
        ["yank", "--product", "acme", "--version", "1.0.0"],
        ["pause", *ON],
        ["refresh"],
        ["keys", "add-product", "other"],
    ):
        said = restored(*words, expect=1)
        assert "serves a newer repository" in said
        assert "release recover" in said
    said = restored.push("1.2.0", expect=1)
    assert "building" not in said
    assert stamp.read_bytes() == before


def test_recovery_past_the_last_number_changes_nothing(restored):
    """A stolen key may have signed a version that leaves none for later ones."""
    stamp = restored.ops / "public/metadata/timestamp.json"
    before = stamp.read_bytes()
    workspace = Workspace(restored.ops)
    repository = opening.published(workspace)

    with pytest.raises(RejectedError, match="no number is left") as caught:
        recovery.jump(workspace, repository, None, None, ahead=2**53)

    assert "numbers_exhausted" == caught.value.code
    assert stamp.read_bytes() == before


def test_what_was_refreshed_since_is_behind_all_the_same(restored):
    """A timer signs every day: the timestamp is newer, the rest is not."""
    for _ in range(5):
        restored("refresh", "--no-compare")
    assert "acme.stable" in restored.push("1.2.0", expect=1)


def test_a_copy_of_the_same_version_is_another_one(restored):
    """As many publications since the backup as were lost: nothing is newer."""
    restored.push("1.1.1", "--no-compare")
    held = shutil.copytree(restored.out, restored.folder / "held")
    restored.restore()
    with freeze_time(datetime.now(UTC) + timedelta(minutes=1)):
        restored.push("1.1.2", "--no-compare")
    restored.origin.root = held
    assert ": timestamp" in restored("pause", *ON, expect=1)


def test_recover_goes_on_past_what_is_out(restored):
    """Versions, places and labels; then a machine that was ahead takes what comes."""
    said = json.loads(restored("recover", "--dry-run", "--json"))
    assert said["lost"] == [{"product": "acme", "version": "1.1.0"}]
    said = restored("recover")
    assert "1.1.0 was published and is missing here" in said
    assert said.index("1.0.0 (seq 1)") < said.index("recovered")
    restored.upload()
    assert restored.client.offered() == "1.0.0", "what the backup says"
    refused = restored.push("1.1.0", contents="other", expect=1)
    assert "had other contents" in refused
    restored.push("1.1.0")
    assert restored.client.offered() == "1.1.0", "the same, in its old place"
    restored.push("1.2.0")
    view = restored.client.refresh()
    (top,) = view.channel("acme", "stable").releases
    assert (top.version, top.seq > 1000) == ("1.2.0", True)
    assert "all well" in restored("verify", "--deep", at=False)


def test_recover_takes_the_keys_that_changed_since(world):
    """A root, its delegations and a product that the backup does not know."""
    world.push("1.0.0")
    world.backup()
    world("keys", "rotate", "online")
    world("keys", "add-product", "other")
    world.upload()
    assert world.client.offered() == "1.0.0"
    world.restore()
    assert "root" in world("refresh", expect=1)
    world("recover")
    world.upload()
    assert world.client.offered() == "1.0.0"
    world.push("1.1.0")
    assert world.client.offered() == "1.1.0"
    assert "other: releases" in world("status", at=False)


def test_what_lies_behind_is_no_reason_to_stop(world):
    """Nothing uploaded yet, or a mirror that is slow."""
    world.origin.root = world.folder / "nothing"
    world("refresh")
    world.push("1.0.0")
    world("refresh")
    world.push("1.1.0")


@pytest.mark.parametrize("wrong", ["foreign", "gone"])
def test_what_cannot_be_compared_is_told(world, tmp_path, wrong):
    """An address that was named must answer, with this repository."""
    world.push("1.0.0")
    other = ["init", str(tmp_path / "other"), "--profile", "demo"]
    assert cli.main(["release", *other]) == 0
    world.origin.root = tmp_path / "other" / "public"
    if wrong == "gone":
        world.origin.server_close()
    said = world("pause", *ON, expect=1)
    assert "cannot be compared" in said
    world("pause", *ON, "--no-compare")


class _Knowing(BaseHTTPRequestHandler):
    """A feed that has announced newer metadata than what it is shown."""

    def do_GET(self):
        self._answer(404, b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(409, b"pushed timestamp has version 3, 9 is already served")

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_feed_that_knows_newer_metadata_is_believed(world, monkeypatch):
    """The server was restored, too: what is out, only its log remembers."""
    world.push("1.0.0")
    monkeypatch.setenv("UPDATERD_FEED_TOKEN", "token")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Knowing) as feed:
        thread = threading.Thread(target=feed.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{feed.server_port}/v1/events"
            said = world("refresh", "--feed", url, expect=1)
        finally:
            feed.shutdown()
            thread.join()
    assert "restored from a backup" in said
    assert "release recover" in said
    said = world("recover", "--ahead", "50", at=False)
    assert "the published copy cannot be read" in said


def test_a_backup_made_after_a_recovery_is_recovered_from_twice(world):
    """Each recovery is past the publications after the one before, all unseen."""

    def recover(at):
        with freeze_time(at):
            world("recover", at=False)
            for _ in range(3):  # what only machines see
                world("refresh", "--no-compare", at=False)
            stamp = world.ops / "public/metadata/timestamp.json"
            return json.loads(stamp.read_bytes())["signed"]["version"]

    start = datetime.now(UTC)
    first = recover(start)
    world.backup()
    highest = [first]
    for minutes in (1, 2):
        world.restore()
        highest.append(recover(start + timedelta(minutes=minutes)))
    assert highest == sorted(set(highest))
