# SPDX-License-Identifier: Apache-2.0
"""The release commands, as typed: a whole life of a repository, and mistakes."""

import argparse
import getpass
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes.repository import Publisher
from fakes.trees import make_tree

from updaterd import cli
from updaterd.cli.release import run as run_release
from updaterd.cli.release.parts import opening, passphrases
from updaterd.errors import BrokenError
from updaterd.release import workspace

pytestmark = pytest.mark.slow

NOBODY = "http://127.0.0.1:1/v1/events"


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
    said = release("yank", *on, "--version", "1.1.0")
    assert "nothing that acme/beta offered before is left" in said
    assert pointer(release, "beta")["releases"] == [], "1.0.0 was never in beta"
    assert pointer(release, "stable")["releases"][0]["version"] == "1.0.0"
    assert "all well" in release("verify", "--deep")
    assert "signed: timestamp" in release("refresh")
    said = release("gc", "--older-than-days", "0")
    assert "deleted 0 files" in said
    assert "of the last 7 days names was not deleted" in said, (
        "machines may go by what they loaded"
    )
    assert "all well" in release("verify", "--deep")


def test_the_same_push_again_changes_nothing(release, tmp_path):
    """Run again after whatever happened: published once, told as such."""
    words = ["push", tree(tmp_path, "1.0.0"), "--product", "acme", "--version",
             "1.0.0", "--channel", "stable"]  # fmt: skip
    release(*words)
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    assert "already released" in release(*words)
    said = release(*words, "--for", "cpu", "--memory", "1GiB")
    assert "--for and --memory changed nothing" in said
    assert stamp.read_bytes() == before


def test_another_platform_joins_its_release(release, tmp_path):
    """`add` gives it the seq of the first; it is listed beside it."""
    one = tree(tmp_path, "1.0.0")
    on = ["--product", "acme", "--version", "1.0.0"]
    release("push", one, *on, "--channel", "stable")
    release("add", one, *on, "--platform", "linux-riscv64")
    found = json.loads(release("status", "--json"))["products"]["acme"]["releases"]
    assert [each["seq"] for each in found] == [1, 1]


def test_platforms_go_out_together(release, tmp_path):
    """One command, one release; a later one that lacks one of them is refused."""
    on = ["--product", "acme", "--channel", "stable"]
    x86, arm = tree(tmp_path, "x86"), tree(tmp_path, "arm")
    both = ["--tree", f"linux-x86_64={x86}", "--tree", f"linux-aarch64={arm}"]
    said = release("push", *both, *on, "--version", "1.0.0", "--json")
    found = json.loads(said.splitlines()[0])
    assert list(found["platforms"]) == ["linux-x86_64", "linux-aarch64"]
    assert found["changed"] == ["stable"]
    offered = pointer(release, "stable")["releases"]
    assert offered[0]["platforms"] == ["linux-aarch64", "linux-x86_64"]
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    one = ["push", "--tree", f"linux-aarch64={arm}", *on, "--version", "1.1.0"]
    said = release(*one, expect=1)
    assert "linux-x86_64" in said
    assert "building" not in said, "it was built before it was refused"
    assert stamp.read_bytes() == before
    release(*one, "--without", "linux-x86_64")
    offered = pointer(release, "stable")["releases"]
    assert [(each["version"], each["platforms"]) for each in offered] == [
        ("1.1.0", ["linux-aarch64"]),
        ("1.0.0", ["linux-x86_64"]),
    ]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--platform", "linux-x86_64"),
        ("--tree", "linux-x86_64=a", "--tree", "linux-x86_64=b"),
        ("--tree", "a=x", "--tree", "b=y", "--bsdiff", "1.0.0=patch"),
    ],
)
def test_directories_that_make_no_sense_are_wrong_usage(release, words):
    """None, or two for one platform."""
    on = ["--product", "acme", "--version", "1.0.0", "--channel", "stable"]
    assert "updaterd release push:" in release("push", *words, *on, expect=2)


def test_a_build_log_gets_a_line_at_the_start_and_one_at_the_end(release, tmp_path):
    """However long it takes, and however many stages it has."""
    on = ["--product", "acme", "--channel", "stable"]
    release("push", tree(tmp_path, "1.0.0"), *on, "--version", "1.0.0")
    said = release("push", tree(tmp_path, "1.1.0"), *on, "--version", "1.1.0")
    lines = [line for line in said.splitlines() if line.startswith("buil")]
    assert lines == [
        "building acme 1.1.0 (linux-x86_64): bundle and deltas",
        "built acme 1.1.0 (linux-x86_64)",
    ]


def test_every_command_answers_programs(release, tmp_path):
    """One object on stdout, also when it is refused."""
    on = ["--product", "acme"]
    stable = [*on, "--channel", "stable"]
    one = ["push", tree(tmp_path, "1.0.0"), *stable, "--version", "1.0.0"]
    for words in (
        one,
        ["add", tree(tmp_path, "1.1.0"), *on, "--version", "1.1.0"],
        ["publish", *stable, "--version", "1.1.0"],
        ["promote", *on, "--from", "stable", "--to", "beta"],
        ["rollout", *stable, "--permille", "100", "--force"],
        ["pause", *stable],
        ["resume", *stable],
        ["yank", *on, "--version", "1.1.0", "--dry-run"],
        ["yank", *on, "--version", "1.1.0"],
        ["refresh"],
        ["verify"],
        ["gc"],
        ["status"],
        ["keys", "list"],
    ):
        said = release(*words, "--json").splitlines()
        found = json.loads(said[0])
        assert (found["schema"], len(found) > 1) == (1, True), words
        assert "{" not in "".join(said[1:]), words
    said = release("publish", *stable, "--version", "9.9", "--json", expect=1)
    assert json.loads(said.splitlines()[0])["error"]["code"] == "no_such_release"


def test_a_yank_says_first_what_comes_of_it(release, tmp_path):
    """`--dry-run` says it and does nothing."""
    on = ["--product", "acme"]
    for version in ("1.0.0", "1.1.0"):
        release("push", tree(tmp_path, version), *on, "--version", version,
                "--channel", "stable")  # fmt: skip
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    said = release("yank", *on, "--version", "1.1.0", "--dry-run")
    assert "1.0.0 (seq 1): 1000 of 1000 machines" in said
    assert "yanked" not in said
    assert stamp.read_bytes() == before
    said = release("yank", *on, "--version", "1.1.0")
    assert said.index("1.0.0 (seq 1)") < said.index("yanked acme 1.1.0")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("push", "{tree}", "--version", "1.0.0", "--channel", "nope"),
            "no channel 'nope'",
        ),
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
             "--min-updater", "latest"),
            "is not a version of updaterd",
        ),
        (
            ("push", "{tree}", "--version", "1", "--channel", "stable",
             "--floor-seq", "9"),
            "every machine would refuse it",
        ),
        (("publish", "--version", "9.9", "--channel", "stable"), "no release"),
        (("yank", "--version", "9.9"), "no release"),
        (("promote", "--from", "beta", "--to", "stable"), "offers nothing"),
        (("rollout", "--channel", "stable", "--permille", "1"), "offers nothing"),
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
    assert "building" not in said, "it was built before it was refused"
    assert stamp.read_bytes() == before


def test_a_second_init_does_not_pretend(release, capsys):
    """The same again is fine; what it does not have is told how to add."""
    words = ["release", "init", str(release.folder), "--profile", "demo"]
    assert cli.main([*words, "--product", "acme"]) == 0
    for more, says in (
        (["--product", "beta"], "add-product beta"),
        (["--product", "acme", "--channel", "nightly"], "add-channel acme nightly"),
        (["--product", "acme", "--feed", "https://f.example"], "release.toml"),
    ):
        assert cli.main([*words, *more]) == 1
        assert says in capsys.readouterr().err


def test_init_remembers_the_token_it_was_shown(tmp_path, monkeypatch):
    """A path is the one that was typed, wherever later commands are run."""
    monkeypatch.chdir(tmp_path)
    words = ["release", "init", "ops", "--profile", "demo", "--token-file", "token"]
    assert cli.main(words) == 0
    settings = workspace.Workspace(tmp_path / "ops").settings
    assert settings.token_file == str(tmp_path / "token")


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


@pytest.mark.parametrize(
    "words",
    [
        ("--permille", "1001"),
        ("--permille", "many"),
        ("--window-s", "-1"),
        ("--deltas", "-1"),
        ("--seq", "0"),
    ],
)
def test_a_number_out_of_bounds_is_wrong_usage(release, tmp_path, words):
    """Exit code 2, before anything is read or built."""
    push = ["release", "push", str(tmp_path), "--repo", str(release.folder),
            "--product", "acme", "--version", "1", "--channel", "stable"]  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        cli.main([*push, *words])
    assert caught.value.code == 2


def test_a_key_that_is_not_here_is_missed_before_the_build(release, tmp_path):
    """It is named; hours of building are not lost on it."""
    (release.folder / "keys" / "release-acme.pem").unlink()
    said = release("push", tree(tmp_path, "1.0.0"), "--product", "acme", "--version",
                   "1.0.0", "--channel", "stable", expect=1)  # fmt: skip
    assert "not here: release-acme" in said
    assert "keys rotate" in said, "if it is lost"
    assert "building" not in said


def test_a_feed_that_could_not_be_told_is_told_later(release, tmp_path, monkeypatch):
    """What is published stands and is called so; each command says how to finish."""
    on = ["--product", "acme"]
    feed = ["--feed", NOBODY]
    push = ["push", tree(tmp_path, "1.0.0"), *on, "--version", "1.0.0",
            "--channel", "stable"]  # fmt: skip
    release(*push)
    stamp = release.folder / "public" / "metadata" / "timestamp.json"
    before = stamp.read_bytes()
    said = release("yank", *on, "--version", "1.0.0", *feed, expect=1)
    assert "nothing was published" in said
    assert stamp.read_bytes() == before, "no token: asked for before the yank"
    said = release("refresh", *feed, expect=1)
    assert "it is published, and the feed was not told" in said, "never late for that"
    assert stamp.read_bytes() != before

    monkeypatch.setenv("UPDATERD_FEED_TOKEN", "token")
    said = release(*push, *feed, expect=1)
    assert "it is published, and the feed was not told" in said
    assert "run the same command again" in said
    assert "by itself" not in said, "that is what a machine does"
    said = release("yank", *on, "--version", "1.0.0", *feed, expect=1)
    assert "it is published" in said
    assert "run `updaterd release refresh --feed" in said, (
        "a second yank finds no release"
    )


class _Picky(BaseHTTPRequestHandler):
    """A feed whose token may announce in one channel of two."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = body["channel"] == "stable"
        self.server.told.append(body["channel"])
        answer = b'{"id": "e-1"}'
        self.send_response(201 if allowed else 403)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def test_a_yank_tells_every_channel_it_may(release, tmp_path, monkeypatch):
    """One that is refused keeps nobody else from being told; which, it says."""
    on = ["--product", "acme", "--version", "1.1.0"]
    for version in ("1.0.0", "1.1.0"):
        release("push", tree(tmp_path, version), "--product", "acme", "--version",
                version, "--channel", "beta", "--permille", "500")  # fmt: skip
        release("promote", "--product", "acme", "--from", "beta", "--to", "stable",
                "--permille", "500")  # fmt: skip
    monkeypatch.setenv("UPDATERD_FEED_TOKEN", "token")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Picky) as feed:
        feed.told = []
        thread = threading.Thread(target=feed.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{feed.server_port}/v1/events"
            said = release("yank", *on, "--feed", url, expect=1)
        finally:
            feed.shutdown()
            thread.join()
    assert set(feed.told) == {"beta", "stable"}
    assert f"announced to {url}" in said
    assert "beta: the feed refuses the token" in said
    assert "stable: the feed" not in said


def test_a_push_into_a_paused_channel_says_so(release, tmp_path):
    """Nobody waits all night for machines that were told to wait."""
    on = ["--product", "acme", "--channel", "stable"]
    release("pause", *on)
    said = release("push", tree(tmp_path, "1.0.0"), *on, "--version", "1.0.0")
    assert "the channel is paused" in said


def test_status_lists_every_release(release, tmp_path):
    """The drill for a stolen release key asks: which of them do you not know?"""
    one = tree(tmp_path, "1.0.0")
    on = ["--product", "acme", "--version", "1.0.0"]
    release("add", one, *on)
    release("add", one, *on, "--platform", "linux-riscv64")
    assert "1.0.0 (seq 1): linux-riscv64, linux-x86_64" in release("status")


def test_a_clock_that_cannot_be_right_signs_nothing():
    """What is signed in 1970 has expired before any machine sees it."""
    with pytest.raises(BrokenError) as caught:
        opening.plausible(datetime(1970, 1, 2, tzinfo=UTC))
    assert caught.value.code == "clock_suspect"


def test_a_clock_behind_the_last_publication_is_told(tmp_path, capsys):
    """One of the two was wrong; a person must see which."""
    Publisher(tmp_path / "ops", now=datetime(2100, 1, 1, tzinfo=UTC))
    assert cli.main(["release", "refresh", "--repo", str(tmp_path / "ops")]) == 0
    assert "later than that" in capsys.readouterr().err


def test_a_passphrase_that_is_refused_is_no_traceback(monkeypatch):
    """Ctrl-D at the prompt."""

    def closed(_prompt):
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", closed)
    with pytest.raises(BrokenError) as caught:
        passphrases.ask_passphrase("online")
    assert caught.value.code == "passphrase"


def test_a_reader_that_leaves_is_no_disk_that_refuses():
    """`updaterd release status | head`."""

    def run(_arguments):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_release(argparse.Namespace(release_run=run))


@pytest.mark.parametrize("words", ["release status r", "status --nonsense"])
def test_what_a_command_does_not_know_is_answered_with_its_usage(capsys, words):
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    assert caught.value.code == cli.EXIT_USAGE
    command = words.rpartition(" ")[0]
    assert capsys.readouterr().err.startswith(f"usage: updaterd {command} [")
