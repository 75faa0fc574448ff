# SPDX-License-Identifier: Apache-2.0
"""What a release command refuses is said, to people and to programs, and is true."""

import json
import os
import shutil

import pytest
from fakes.disk import Dying
from fakes.trees import make_tree

from updaterd import cli, durable
from updaterd.release.destinations.contract import UnreachableError
from updaterd.release.destinations.folder import Folder

ON = ("--product", "acme", "--channel", "stable")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a repository with one release, once."""
    folder = tmp_path_factory.mktemp("refusals")
    make_tree(folder / "tree", {"bin/app": "echo 1\n"})
    notes = folder / "notes.md"
    notes.write_text("It is *new*.\n")
    ops = str(folder / "ops")
    words = [
        "init",
        ops,
        "--profile",
        "demo",
        "--product",
        "acme",
        "--channel",
        "stable",
    ]
    assert cli.main(["release", *words]) == 0
    words = ["push", str(folder / "tree"), "--repo", ops, *ON, "--version", "1.0.0"]
    assert cli.main(["release", *words, "--notes", str(notes)]) == 0
    return folder


@pytest.fixture
def place(made, tmp_path):
    """Return a copy of it."""
    return shutil.copytree(made, tmp_path / "place")


@pytest.fixture
def release(place, capsys):
    """Run `updaterd release ... --json`; return what it answers and what it says."""

    def call(*words, expect=1):
        repo = [] if words[0] == "subject" else ["--repo", str(place / "ops")]
        capsys.readouterr()
        code = cli.main(["release", *map(str, words), *repo, "--json"])
        out, err = capsys.readouterr()
        assert code == expect, (words, out, err)
        return json.loads(out), err

    return call


@pytest.mark.parametrize(
    ("option", "value", "was"),
    [
        ("--floor-seq", "1", "none"),
        ("--from-seq-min", "7", "none"),
        ("--min-updater", "99.1", "0.1.0"),
        ("--seq", "9", "1"),
    ],
)
def test_what_is_asked_of_a_release_that_stands_is_not_dropped(
    release, place, option, value, was
):
    """Silently, the floor of a security release would never be."""
    push = ["push", place / "tree", *ON, "--version", "1.0.0"]
    release(*push, expect=0)
    answer, said = release(*push, option, value)
    assert answer["error"]["code"] == "release_exists"
    assert f"{option} {value}, published with {was}" in said


def test_notes_asked_of_a_release_that_stands_are_compared(release, place):
    push = ["push", place / "tree", *ON, "--version", "1.0.0", "--notes"]
    release(*push, place / "notes.md", expect=0)
    (place / "other.md").write_text("It is old.\n")
    answer, _ = release(*push, place / "other.md")
    assert "--notes" in answer["error"]["what"]


def test_a_destination_that_vanishes_stops_no_other(place, release, tmp_path):
    """A disk that is taken out midway: the others get it, and the answer says so."""
    gone, there = tmp_path / "gone", tmp_path / "there"
    gone.mkdir()
    there.mkdir()
    (gone / "blobs").symlink_to(tmp_path / "nowhere" / "else")
    answer, _ = release("sync", "--no-compare", "--to", gone, "--to", there)
    assert [one["to"] for one in answer["undelivered"]] == [str(gone)]
    assert [one["to"] for one in answer["delivered"]] == [str(there)]
    assert answer["error"]["code"] == "destination_unreachable"


def test_a_directory_that_vanished_is_unreachable_and_not_made_anew(tmp_path):
    """A mount that is gone: what is written to its name would be hidden by it."""
    path, source = tmp_path / "mount", tmp_path / "file"
    source.write_bytes(b"x")
    gone = Folder(path)
    for use in (
        lambda: gone.send("a/b", source, lambda _: None),
        lambda: gone.replace("a/b", b"x", None),
        lambda: gone.create("a/b", b"x"),
        lambda: gone.read("a/b", 9),
    ):
        with pytest.raises(UnreachableError, match="gone"):
            use()
    assert not path.exists()


def test_programs_hear_of_a_disk_that_refuses(release, place):
    """The answer holds the error; what publishes nothing does not speak of it."""
    answer, said = release("subject", place / "tree", "--listing", "/proc/nothing")
    assert answer["error"]["code"] == "disk"
    assert "/proc/" in answer["error"]["what"]
    assert "finishes the publication" not in said


def test_programs_hear_of_wrong_usage(release):
    answer, _ = release("sync", expect=2)
    assert "where to?" in answer["error"]["what"]


@pytest.mark.parametrize("kind", ["fifo", "folder", "orphan", "device"])
@pytest.mark.parametrize("command", ["subject", "build", "sign"])
def test_what_is_no_file_is_not_replaced(release, place, tmp_path, command, kind):
    """A named pipe that a reader waits at, a device: refused before any work."""
    out = tmp_path / "out"
    if kind == "fifo":
        os.mkfifo(out)
    elif kind == "folder":
        out.mkdir()
    elif kind == "orphan":
        out = tmp_path / "nowhere" / "out"
    else:
        out.symlink_to("/dev/null")
    words = {
        "subject": (place / "tree", "--listing"),
        "build": (place / "tree", *ON[:2], "--version", "2", "-o"),
        "sign": (place / "no.release", "-o"),
    }[command]
    before = sorted(tmp_path.iterdir())
    answer, _ = release(command, *words, out)
    assert answer["error"]["code"] == "output_refused"
    assert str(out) in answer["error"]["what"]
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_leads_to_the_file_that_is_written(release, place, tmp_path):
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    release("subject", place / "tree", "--listing", link, expect=0)
    assert link.is_symlink()
    assert json.loads(file.read_bytes())


def test_keys_and_addresses_are_spoken_of_as_a_publisher_knows_them(release, place):
    on = ("--product", "acme", "--version", "2.0.0")
    root = place / "ops/public/metadata/1.root.json"
    answer, _ = release(
        "build", place / "tree", *on, "-o", place / "out", "--from",
        "http://127.0.0.1:1/repo", "--root", root,
    )  # fmt: skip
    assert "nothing was built" in answer["error"]["means"]
    assert "--from" in answer["error"]["do"]


def test_who_is_not_told_is_told_by_the_same_feed(release, place):
    """`refresh` alone knows no feed that was an argument."""
    token = place / "token"
    token.write_text("udt_x_y")
    token.chmod(0o600)
    feed = "http://127.0.0.1:1/v1/events"
    answer, _ = release(
        "refresh", "--feed", feed, "--token-file", token, "--no-compare"
    )
    assert f"`updaterd release refresh --feed {feed}`" in answer["error"]["do"]


def test_gc_frees_a_disk_that_takes_no_journal(release, place, monkeypatch):
    """What the last journal says still counts; a dry run writes nothing."""
    journal = place / "ops" / "unreferenced.json"
    extra = place / "ops/public/blobs/sha256/ab" / ("ab" * 32)
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_bytes(b"x")
    os.utime(extra, (0, 0))
    release("gc", "--dry-run", expect=0)
    assert not journal.exists()
    name = extra.relative_to(place / "ops/public").as_posix()
    journal.write_text(json.dumps({"schema": 1, "since": {name: 0, "other": 0}}))
    monkeypatch.setattr(durable, "write_file", Dying(0))
    answer, _ = release("gc", expect=0)
    assert answer["files"] == [str(extra)]
    assert not extra.exists()
