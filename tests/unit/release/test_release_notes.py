# SPDX-License-Identifier: Apache-2.0
"""What a release brings, from its author to the people who use it."""

import re
import shutil
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from fakes.bundles import grow

from updaterd import cli
from updaterd.core.release_notes import MAX_BYTES
from updaterd.errors import BrokenError, RejectedError
from updaterd.release import appstream, release_notes

MARKDOWN = """\
# Acme 1.1

It is **faster**, see [the page](https://example.com/a?b=1&c=2) or
https://example.com/x.

- first `x < y`
- second & last
  goes on

1. one
2. two
"""

METAINFO = """\
<?xml version="1.0" encoding="UTF-8"?>
<component type="console-application">
<id>com.example.acme</id>
<metadata_license>CC0-1.0</metadata_license>
<project_license>Apache-2.0</project_license>
<name>Acme</name>
<summary>Does what it does</summary>
<developer id="com.example"><name>Example</name></developer>
<description><p>It does what it does, and does it very well indeed.</p></description>
<url type="homepage">https://example.com/acme</url>
<content_rating type="oars-1.1"/>
<provides><binary>acme</binary></provides>
{}
</component>
"""


def refused(tmp_path, data, *more):
    path = tmp_path / "notes.md"
    path.write_bytes(data)
    with pytest.raises(RejectedError) as caught:
        release_notes.read([("und", path), *more])
    assert caught.value.code == "bad_notes"
    return caught.value.cause


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" * (MAX_BYTES + 1), "bytes"),
        (b"good \xff", "not UTF-8 (byte 5)"),
        (b"one\ntwo \x1b[31m", "line 2: U+001B"),
        ("a\u202eb".encode(), "line 1: U+202E"),
        (b"a\x00", "U+0000"),
        (b" \n", "is empty"),
    ],
)
def test_notes_that_are_no_plain_text_are_refused_by_name(tmp_path, data, why):
    assert why in refused(tmp_path, data)


def test_notes_without_end_are_not_read_to_their_end():
    with pytest.raises(RejectedError):
        release_notes.read([("und", Path("/dev/zero"))])


def test_notes_that_are_not_there_or_given_twice_are_refused(tmp_path):
    with pytest.raises(BrokenError):
        release_notes.read([("und", tmp_path / "none")])
    with pytest.raises(BrokenError):
        release_notes.read([("und", tmp_path)])
    assert "twice" in refused(tmp_path, b"x", ("und", tmp_path / "notes.md"))


def test_notes_of_another_system_are_text_as_well(tmp_path):
    path = tmp_path / "notes.md"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert release_notes.read([("de", path)]) == (("de", "one\ntwo"),)


def entry(version, **notes):
    return appstream.Entry(
        version=version,
        at=datetime(2026, 11, 29, tzinfo=UTC),
        notes=tuple(sorted(notes.items())),
    )


def test_markdown_becomes_paragraphs_and_lists_and_all_else_is_text():
    root = ET.fromstring(appstream.document([entry("1.1", und=MARKDOWN)]))  # noqa: S314
    (description,) = root.iter("description")
    shape = [(part.tag, "".join(part.itertext()).strip()) for part in description]
    assert [tag for tag, _ in shape] == ["p", "p", "ul", "ol"]
    assert shape[0][1] == "Acme 1.1"
    assert "faster, see the page or example.com/x." in shape[1][1]
    items = ["".join(item.itertext()) for item in root.iter("li")]
    assert items == ["first x < y", "second & last goes on", "one", "two"]
    assert [part.text for part in root.iter("code")] == ["x < y"]


@pytest.mark.parametrize(
    "attack",
    [
        "</p></description></release><release version='9'/>",
        "<![CDATA[ x ]]>",
        "<!ENTITY x SYSTEM 'file:///etc/passwd'>&x;",
        "\x00\x0b\ufffe\x1b[2J",
        "`</code>`",
    ],
)
def test_notes_cannot_become_markup(attack):
    text = appstream.document([entry("1.1", und=f"a {attack} b", de=attack)])
    root = ET.fromstring(text)  # noqa: S314 - ours
    assert [each.get("version") for each in root.iter("release")] == ["1.1"]
    tags = {element.tag for element in root.iter()}
    assert tags <= {"releases", "release", "description", "p", "code"}


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "ops"
    assert not cli.main([
        "release", "init", str(folder), "--profile", "demo", "--product", "acme",
        "--channel", "stable",
    ])  # fmt: skip
    (tmp_path / "notes.md").write_text(MARKDOWN)
    (tmp_path / "de.md").write_text("Schneller.\n\n- erstens\n")
    grow(tmp_path / "1.0", {"app+x": b"1", "old": b"gone", "link": "old"})
    grow(tmp_path / "1.1", {"app+x": b"1.1", "new": b"here", "link": "new"})
    for version in ("1.0", "1.1"):
        assert not cli.main([
            "release", "push", str(tmp_path / version), "--repo", str(folder),
            "--product", "acme", "--channel", "stable", "--version", version,
            "--notes", str(tmp_path / "notes.md"),
            "--notes", f"de={tmp_path / 'de.md'}",
        ])  # fmt: skip
    return folder


def said(capsys, *words):
    capsys.readouterr()
    assert not cli.main(["release", *map(str, words)])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "part",
    ["[](", "![", "[](a ", "[]( ", "[a]", "](", "**a", "__a", "`a`*", "* ", "1."],
)
def test_notes_that_take_the_publishers_time(part):
    """Cubic, once: minutes for what a manifest may hold; now milliseconds of CPU."""

    def too_long(number, frame):
        pytest.fail("5 seconds of CPU")

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        text = appstream.document([entry("1.1", und=part * (MAX_BYTES // len(part)))])
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

    assert "<release " in text


@pytest.mark.slow
def test_a_release_is_shown_with_its_notes_and_compared(tmp_path, repository, capsys):
    """Also as AppStream, which its own validator accepts where it is here."""
    there = ("--repo", repository, "--product", "acme")

    shown = said(capsys, "show", *there, "--version", "1.1")
    assert "by release-acme" in shown
    assert "notes (de):\n    Schneller." in shown
    assert "Schneller." in said(capsys, "status", "--notes", "--repo", repository)

    compared = said(capsys, "diff", "1.0", "1.1", *there)
    for line in (
        r"\+ new: 4 bytes, mode 644",
        r"- old: 4 bytes, mode 644",
        r"~ app\+x: 1 -> 3 bytes",
        r"~ link: link to old -> link to new",
        r"1 added, 1 removed, 2 changed",
        r"a machine on 1.0 fetches [\d,]+ bytes",
        r"seq 1\) for \S+: \d{4}-\d\d-\d\d \d\d:\d\d UTC by release-acme",
    ):
        assert re.search(line, compared), (line, compared)

    xml = said(capsys, "appstream", *there, "--channel", "stable")
    root = ET.fromstring(xml)  # noqa: S314 - ours
    assert [each.get("version") for each in root] == ["1.1", "1.0"]
    if shutil.which("appstreamcli"):
        file = tmp_path / "com.example.acme.metainfo.xml"
        file.write_text(METAINFO.format(xml.partition("?>")[2]))
        done = subprocess.run(
            ["appstreamcli", "validate", "--no-net", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_other_notes_for_a_published_release_are_refused(repository, tmp_path, capsys):
    """They would be dropped: a release never changes."""
    (tmp_path / "notes.md").write_text("other")
    code = cli.main([
        "release", "push", str(tmp_path / "1.1"), "--repo", str(repository),
        "--product", "acme", "--channel", "stable", "--version", "1.1",
        "--notes", str(tmp_path / "notes.md"),
    ])  # fmt: skip
    assert code == 1
    assert "made with other options" in capsys.readouterr().err
