"""The release commands, as typed: a whole life of a repository, and mistakes."""

import json

import pytest
from fakes.trees import make_tree

from updaterd import cli


@pytest.fixture
def release(tmp_path, capsys):
    """Run `updaterd release ...` in one workspace; return what it printed."""
    folder = tmp_path / "ops"

    def call(*words, expect=0):
        repo = [] if words[0] == "init" else ["--repo", str(folder)]
        code = cli.main(["release", *map(str, words), *repo])
        out, err = capsys.readouterr()
        assert code == expect, (words, out, err)
        assert "Traceback" not in err
        return out + err

    call("init", folder, "--profile", "demo", "--product", "acme",
         "--channel", "stable", "--channel", "beta")  # fmt: skip
    call.folder = folder
    return call


def tree(tmp_path, version):
    return make_tree(
        tmp_path / "trees" / version,
        {"bin/app": f"echo {version}\n", "data": "same\n" * 9000},
    )


def pointer(release, channel):
    found = json.loads(release("status", "--json"))
    (one,) = [
        each
        for each in found["products"]["acme"]["channels"]
        if each["channel"] == channel
    ]
    return one


def test_a_release_from_beta_to_everyone_and_back(release, tmp_path):
    """push, promote, rollout, pause, resume, publish an older one, yank."""
    on = ["--product", "acme"]
    release("push", tree(tmp_path, "1.0.0"), *on, "--version", "1.0.0",
            "--channel", "stable")  # fmt: skip
    said = release("push", tree(tmp_path, "1.1.0"), *on, "--version", "1.1.0",
                   "--channel", "beta")  # fmt: skip
    assert "delta from 1.0.0" in said
    release("promote", *on, "--from", "beta", "--to", "stable", "--permille", "50")
    assert [o["version"] for o in pointer(release, "stable")["releases"]] == [
        "1.1.0",
        "1.0.0",
    ]
    release("rollout", *on, "--channel", "stable", "--permille", "1000")
    assert len(pointer(release, "stable")["releases"]) == 1
    release("pause", *on, "--channel", "stable")
    assert pointer(release, "stable")["paused"] is True
    release("resume", *on, "--channel", "stable")
    assert pointer(release, "stable")["paused"] is False
    release("publish", *on, "--version", "1.0.0", "--channel", "stable")
    assert pointer(release, "stable")["releases"][0]["seq"] == 1
    release("yank", *on, "--version", "1.1.0")
    assert pointer(release, "beta")["releases"][0]["version"] == "1.0.0"
    assert "all well" in release("verify", "--deep")
    assert "signed: timestamp" in release("refresh")
    assert "deleted" in release("gc", "--older-than-days", "0")
    assert "all well" in release("verify", "--deep")


def test_the_same_push_again_changes_nothing(release, tmp_path):
    """Run again after whatever happened: published once, told as such."""
    words = ["push", tree(tmp_path, "1.0.0"), "--product", "acme", "--version",
             "1.0.0", "--channel", "stable"]  # fmt: skip
    release(*words)
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    assert "already released" in release(*words)
    assert stamp.read_bytes() == before


def test_another_platform_joins_its_release(release, tmp_path):
    """`add` gives it the seq of the first; it is listed beside it."""
    one = tree(tmp_path, "1.0.0")
    on = ["--product", "acme", "--version", "1.0.0"]
    release("push", one, *on, "--channel", "stable")
    release("add", one, *on, "--platform", "linux-riscv64")
    found = json.loads(release("status", "--json"))["products"]["acme"]["releases"]
    assert [each["seq"] for each in found] == [1, 1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("push", "{tree}", "--version", "1.0.0", "--channel", "nope"), "no nope"),
        (("push", "{tree}", "--version", "1 0", "--channel", "stable"), "label"),
        (("push", "{empty}", "--version", "1.0.0", "--channel", "stable"), "empty"),
        (("push", "{none}", "--version", "1.0.0", "--channel", "stable"), ""),
        (
            ("push", "{tree}", "--version", "1", "--channel", "stable", "--feed",
             "http://192.0.2.1/v1/events"),
            "not an https address",
        ),
        (
            ("push", "{tree}", "--version", "1", "--channel", "stable", "--feed",
             "https://feed.example.com/v1/events"),
            "token",
        ),
        (
            ("push", "{tree}", "--version", "1", "--channel", "stable",
             "--permille", "5000"),
            "permille",
        ),
        (("publish", "--version", "9.9", "--channel", "stable"), "no release"),
        (("yank", "--version", "9.9"), "no release"),
        (("promote", "--from", "beta", "--to", "stable"), "nothing yet"),
        (("rollout", "--channel", "stable", "--permille", "1"), "nothing yet"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_and_publishes_nothing(release, tmp_path, words, says):
    """Names, trees, feeds and numbers that will not do: a sentence, exit code 1."""
    (tmp_path / "empty").mkdir()
    places = {
        "tree": tree(tmp_path, "1.0.0"),
        "empty": tmp_path / "empty",
        "none": tmp_path / "none",
    }
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    first, *rest = [word.format(**places) for word in words]
    said = release(first, *rest, "--product", "acme", expect=1)
    assert says in said
    assert stamp.read_bytes() == before


def test_a_second_init_does_not_pretend(release, capsys):
    """The same again is fine; a product it does not have is told how to add."""
    words = ["release", "init", str(release.folder), "--profile", "demo"]
    assert cli.main([*words, "--product", "acme"]) == 0
    assert cli.main([*words, "--product", "beta"]) == 1
    assert "add-product beta" in capsys.readouterr().err


def test_a_workspace_that_is_none_is_told(tmp_path, capsys):
    """With the command that makes one."""
    assert cli.main(["release", "status", "--repo", str(tmp_path)]) == 1
    assert "release init" in capsys.readouterr().err


def test_a_damaged_repository_is_found_by_verify(release, tmp_path):
    """A blob with a flipped byte: exit code 1, and which."""
    release("push", tree(tmp_path, "1.0.0"), "--product", "acme", "--version",
            "1.0.0", "--channel", "stable")  # fmt: skip
    (blob,) = [p for p in (release.folder / "public/blobs").rglob("*") if p.is_file()]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    assert "is damaged" in release("verify", "--deep", expect=1)
    blob.unlink()
    assert blob.name in release("verify", expect=1)
