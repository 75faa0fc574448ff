# SPDX-License-Identifier: Apache-2.0
"""What was signed stands in the audit log, and nothing in it changes unseen."""

import json

import pytest
from fakes.trees import make_tree

from updaterd import cli
from updaterd.core.json_fields import encode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A repository that had a release, a pause and a resume."""
    folder = tmp_path_factory.mktemp("audit")
    tree = make_tree(folder / "tree", {"bin/app": "1\n"})
    repo = ("--repo", str(folder / "ops"))
    subject = ("--product", "acme", "--channel", "stable")
    for words in (
        ("init", folder / "ops", "--profile", "demo", "--product", "acme",
         "--channel", "stable"),
        ("push", tree, *subject, "--version", "1.0", "--no-announce", *repo),
        ("pause", *subject, "--no-announce", *repo),
        ("resume", *subject, "--no-announce", *repo),
    ):  # fmt: skip
        assert cli.main(["release", *map(str, words)]) == 0
    return folder / "ops"


@pytest.fixture
def log(pushed):
    """Its log, as it was again afterwards."""
    path = pushed / "audit.jsonl"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def verify(log, capsys):
    code = cli.main(["release", "audit", "--verify", "--repo", str(log.parent)])
    return code, "".join(capsys.readouterr())


def lines_of(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_every_act_has_its_line_with_who_and_what(log, capsys, monkeypatch):
    lines = lines_of(log)
    assert [line["act"] for line in lines] == ["push", "pause", "resume"]
    assert [line["paused"] for line in lines] == [False, True, False]
    assert {line["version"] for line in lines} == {"1.0"}
    assert all(line["who"] for line in lines)
    code, said = verify(log, capsys)
    assert (code, "3 lines" in said) == (0, True)


def test_what_changes_nothing_writes_nothing(log, capsys):
    before = log.read_bytes()
    words = ["release", "resume", "--product", "acme", "--channel", "stable"]
    assert cli.main([*words, "--no-announce", "--repo", str(log.parent)]) == 0
    assert log.read_bytes() == before


def rewritten(lines):
    """Return the lines with a chain of hashes that fits, as a forger would write it."""
    import hashlib

    raw, previous = b"", ""
    for number, line in enumerate(lines, 1):
        text = encode(line | {"n": number, "previous": previous})
        raw += text
        previous = hashlib.sha256(text).hexdigest()
    return raw


FORGERIES = {
    "a word is changed": lambda raw: raw.replace(b'"act":"pause"', b'"act":"pardon"'),
    "a line is left out": lambda raw: b"".join(raw.splitlines(keepends=True)[::2]),
    "lines change places": lambda raw: b"".join(raw.splitlines(keepends=True)[::-1]),
    "the end is cut off": lambda raw: b"".join(raw.splitlines(keepends=True)[:-1]),
    "a line is spelled otherwise": lambda raw: raw.replace(b'"n":2', b'"n": 2'),
    "somebody else did it, and the chain is written anew": lambda raw: rewritten([
        json.loads(line) | ({"who": "nobody"} if number == 2 else {})
        for number, line in enumerate(raw.splitlines())
    ]),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_log_is_found_out(log, capsys, forgery):
    log.write_bytes(FORGERIES[forgery](log.read_bytes()))
    code, said = verify(log, capsys)
    assert code != 0
    assert "audit.jsonl" in said


def test_a_log_written_wholly_anew_is_not_the_log_of_this_channel(log, capsys):
    lines = lines_of(log)
    log.write_bytes(rewritten([lines[0] | {"who": "nobody"}, *lines[1:]]))
    code, said = verify(log, capsys)
    assert code != 0
    assert "another log" in said


def test_a_power_cut_in_the_middle_of_a_line_costs_that_line_only(log, capsys):
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"act":"pau')
    code, said = verify(log, capsys)
    assert (code, "torn" in said) == (0, True)
    words = ["release", "pause", "--product", "acme", "--channel", "stable"]
    assert cli.main([*words, "--no-announce", "--repo", str(log.parent)]) == 0
    assert log.read_bytes().startswith(whole)
    assert verify(log, capsys)[0] == 0
    assert lines_of(log)[-1]["act"] == "pause"


def test_a_number_of_lines_that_shows_nothing_is_wrong_usage(log):
    with pytest.raises(SystemExit) as left:
        cli.main(["release", "audit", "--limit", "-3", "--repo", str(log.parent)])
    assert left.value.code == 2
