# SPDX-License-Identifier: Apache-2.0
"""`updaterd status` answers whoever asks, with what there is."""

import json
import sqlite3
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from updaterd.cli.parts.looking import look
from updaterd.cli.parts.page import local, render
from updaterd.core.settings import Directories, Feed, Product, Reports
from updaterd.status import collect, daemon_section, encode, iso
from updaterd.store.schema import StateError, open_state
from updaterd.system import locks

pytestmark = pytest.mark.slow

NOW = 1_800_000_000.0


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(
        feed=Feed(url="https://updates.example.com/v1/events"),
        reports=Reports(),
        products={"acme": Product(name="acme", root=tmp_path / "opt")},
        directories=Directories(
            config=tmp_path, state=tmp_path, cache=tmp_path, runtime=tmp_path
        ),
    )


@pytest.fixture
def published(settings, tmp_path):
    document = collect(None, settings, daemon=daemon_section(NOW, None), now=NOW)
    (tmp_path / "status.json").write_bytes(encode(document))
    return document


@pytest.mark.parametrize("missing", [[], ["no Landlock: it could write"]])
def test_page_shows_the_layers_of_the_cage(settings, missing):
    """And for each that is missing what is open without it."""
    cage = {"layers": "no landlock, seccomp", "missing": missing}
    daemon = daemon_section(NOW, None, cage=cage)
    page = render(collect(None, settings, daemon=daemon, now=NOW), NOW)

    assert "  cage      no landlock, seccomp\n" in page
    assert page.count("warning: no Landlock") == len(missing)


def damage(tmp_path):
    """Break the tables, not the header: it opens, and no question is answered."""
    open_state(tmp_path / "state.db").close()
    data = bytearray((tmp_path / "state.db").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (tmp_path / "state.db").write_bytes(data)


@pytest.mark.parametrize("running", [True, False])
def test_database_that_cannot_be_read_is_answered_from_what_was_published(
    settings, published, tmp_path, running
):
    damage(tmp_path)

    if running:
        with locks.hold(tmp_path / "lock", subject="this machine"):
            document = look(settings, NOW)
    else:
        document = look(settings, NOW)

    assert ("degraded" if running else "not_running") == document["state"]
    assert document["problems"][0].startswith("this is old: ")
    assert running == document["daemon"]["running"]
    assert render(document, NOW)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}'])
def test_published_document_of_another_layout_is_left_alone(settings, tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    damage(tmp_path)

    with pytest.raises((sqlite3.Error, StateError)):
        look(settings, NOW)


def test_daemon_withdraws_what_the_last_one_published(tmp_path):
    """It names a process that may be anybody's by now."""
    (tmp_path / "status.json").write_text(json.dumps({"daemon": {"pid": 1}}))
    (tmp_path / "state.db").mkdir()  # so that the daemon cannot start
    config = tmp_path / "updaterd.toml"
    config.write_text(
        "[feed]\nurl = 'http://127.0.0.1:9/v1/events'\n"
        "[trust]\nroot = '/root.json'\nrepository = 'http://127.0.0.1:9'\n"
    )
    where = [f"--{kind}-dir={tmp_path}" for kind in ("state", "cache", "runtime")]

    command = [sys.executable, "-I", "-m", "updaterd", "run", f"--config={config}"]
    assert 1 == subprocess.run([*command, *where], check=False).returncode
    assert not (tmp_path / "status.json").exists()


def test_output_that_finds_no_room_is_told(tmp_path):
    """Python would tell it in its own words when it ends, with exit code 120."""
    config = tmp_path / "updaterd.toml"
    config.write_text(
        "[feed]\nurl = 'http://127.0.0.1:9/v1/events'\n"
        "[trust]\nroot = '/root.json'\nrepository = 'http://127.0.0.1:9'\n"
    )
    command = [sys.executable, "-I", "-m", "updaterd", "history", f"--config={config}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, f"--state-dir={tmp_path}"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert 1 == done.returncode
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("zone", "shown"),
    [("UTC", "2027-01-15 08:00:00 UTC"), ("EST+5", "2027-01-15 03:00:00 EST")],
)
def test_people_are_told_the_time_of_their_clocks(monkeypatch, zone, shown):
    """With the zone, so that nobody has to guess; documents stay in UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert shown == local(iso(NOW))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("odd", ["", "soon", "9999-12-31T23:59:59+00:00"])
def test_a_moment_that_no_calendar_has_is_shown_as_it_is(monkeypatch, odd):
    monkeypatch.setenv("TZ", "EST-5")
    time.tzset()
    try:
        assert odd == local(odd)
    finally:
        monkeypatch.undo()
        time.tzset()
