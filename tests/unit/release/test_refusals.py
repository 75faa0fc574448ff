# SPDX-License-Identifier: Apache-2.0
"""What a release command refuses is said, to people and to programs, and is true."""

import json
import shutil

import pytest
from fakes.trees import make_tree

from updaterd import cli
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
    answer, said = release("subject", place / "tree", "--listing", "/proc/nothing/here")
    assert answer["error"]["code"] == "disk"
    assert "/proc/nothing" in answer["error"]["what"]
    assert "finishes the publication" not in said


def test_programs_hear_of_wrong_usage(release):
    answer, _ = release("sync", expect=2)
    assert "where to?" in answer["error"]["what"]
