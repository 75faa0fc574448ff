# SPDX-License-Identifier: Apache-2.0
import io
import json
import logging
import socket
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from updaterd import log

SECRET = "hunter2" * 2


@pytest.fixture(autouse=True)
def restore():
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    root.handlers[:] = before
    structlog.reset_defaults()


@pytest.fixture
def journald(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(5)
        yield server


def entry(datagram):
    """Parse the native protocol the way journald does."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            datagram = rest
        else:
            name, size = line, int.from_bytes(rest[:8], "little")
            value, datagram = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


def human(**how):
    out = io.StringIO()
    log.configure("human", file=out, **how)
    return out


def throw(error):
    raise error


def fail(event, error):
    try:
        throw(error)
    except type(error):
        log.get().exception(event)


def test_journal_entries_have_a_field_for_each_key(journald):
    """An administrator filters by event, product, release and event id."""
    log.configure("journal", journal=journald.getsockname())

    log.get().bind(product="acme").warning(
        "release_rolled_back", release="1.2.0", event_id="e.5-0", state="ROLLED_BACK"
    )

    fields = entry(journald.recv(65536))
    assert {
        "MESSAGE": "release_rolled_back product=acme release=1.2.0 event_id=e.5-0 "
        "state=ROLLED_BACK",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "updaterd",
        "UPDATERD_EVENT": "release_rolled_back",
        "UPDATERD_PRODUCT": "acme",
        "UPDATERD_RELEASE": "1.2.0",
        "UPDATERD_EVENT_ID": "e.5-0",
        "UPDATERD_STATE": "ROLLED_BACK",
    } == fields


def test_a_traceback_is_one_entry_of_several_lines(journald):
    """The binary form of the protocol carries newlines; the message has none."""
    log.configure("journal", journal=journald.getsockname())
    fail("worker_failed", RuntimeError("disk says no"))
    fields = entry(journald.recv(65536))
    assert "\n" not in fields["MESSAGE"]
    assert fields["UPDATERD_EXCEPTION"].endswith("RuntimeError: disk says no")
    assert fields["UPDATERD_EXCEPTION"].startswith("Traceback")


def test_a_value_cannot_forge_a_journal_field(journald):
    """A release's name comes from the network."""
    log.configure("journal", journal=journald.getsockname())
    log.get().info("release_found", release="1\nPRIORITY=0\nMESSAGE=root logged in")
    fields = entry(journald.recv(65536))
    assert "6" == fields["PRIORITY"]
    assert fields["MESSAGE"].startswith("release_found ")


def test_without_a_journal_lines_go_to_stderr_with_their_level(tmp_path):
    """Better a plain line than none; systemd reads the level from `<N>`."""
    out = io.StringIO()
    log.configure("journal", file=out, journal=str(tmp_path / "none"))
    log.get().error("feed_lost")
    assert "<3>feed_lost\n" == out.getvalue()


def test_a_journal_that_is_behind_costs_entries_never_time(journald):
    """The next entry that gets through tells how many were lost."""
    log.configure("journal", journal=journald.getsockname())
    for number in range(5000):  # more than any socket's queue
        log.get().info("tick", n=number)
    kept = 0
    journald.setblocking(False)
    try:
        while True:
            journald.recv(65536)
            kept += 1
    except BlockingIOError:
        pass
    assert kept < 5000
    journald.settimeout(5)
    log.get().info("tick")
    assert 5000 - kept == int(entry(journald.recv(65536))["UPDATERD_LOST_BEFORE"])


@pytest.mark.parametrize(
    "fields",
    [
        {"token": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"publish_password": SECRET},
        {"Cookie": SECRET},
        {"url": f"https://me:{SECRET}@example.com/v1/events"},
        {"url": f"https://example.com/x?a=1&token={SECRET}&b=2"},
        {"url": f"https://example.com/x?X-Amz-Signature={SECRET}"},
        {"error": f"401 for Authorization: Bearer {SECRET}"},
        {"error": f"sent 'Basic {SECRET}'"},
        {"error": ValueError(f"https://me:{SECRET}@example.com refused")},
        {"detail": {"nested": {"api_key": SECRET}}},
        {"argv": ["--header", f"Authorization: Bearer {SECRET}"]},
        {"body": f"token={SECRET}".encode()},
    ],
)
@pytest.mark.parametrize("stream", ["human", "json"])
def test_secrets_are_never_logged(stream, fields):
    """By name of the field, and by their looks inside of any text."""
    out = io.StringIO()
    log.configure(stream, file=out)
    log.get().info("feed_failed", **fields)
    assert "hidden" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_secrets_in_a_traceback_are_hidden():
    """An exception's text often holds the address that failed."""
    out = human()
    fail("feed_failed", ValueError(f"https://me:{SECRET}@example.com"))
    assert "ValueError: https://[hidden]@example.com" in out.getvalue()


def test_what_is_not_secret_stays_readable():
    """Redaction that eats addresses and versions would make the log useless."""
    out = human()
    url = "https://updates.example.com/v1/events?product=acme&channel=stable"
    log.get().info("feed_open", url=url, release="1.1.0", tokens_left=None)
    assert url in out.getvalue()
    assert "release=1.1.0" in out.getvalue()


@given(st.text())
def test_an_event_is_one_printable_line(text):
    """Nothing from the network can move a cursor or fake a second line."""
    out = human()
    log.get().info("release_found", release=text)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue()[:-1].isprintable()


def test_json_lines_can_be_read_back():
    """For the machines that ship logs elsewhere."""
    out = io.StringIO()
    log.configure("json", file=out)
    log.get().info("fetched", bytes=5, ratio=0.5, full=False, path=io)
    found = json.loads(out.getvalue())
    assert (5, 0.5, False) == (found["bytes"], found["ratio"], found["full"])
    assert {"event": "fetched", "level": "info"}.items() <= found.items()


def test_levels_below_the_one_asked_for_are_dropped():
    out = human(level="warning")
    log.get().info("tick")
    log.get().warning("tock")
    assert "tick" not in out.getvalue()
    assert "tock" in out.getvalue()


def test_warnings_of_libraries_come_through_cleaned():
    """asyncio tells of a lost exception only through logging."""
    out = human()
    human_again = human()
    logging.getLogger("asyncio").error("token=%s was lost", SECRET)
    logging.getLogger("httpx").info("HTTP Request: GET ...")
    assert "" == out.getvalue()
    assert 1 == human_again.getvalue().count("library_message")
    assert SECRET not in human_again.getvalue()


def test_a_stream_that_is_gone_does_not_stop_the_caller(tmp_path):
    with open(tmp_path / "log", "w") as out:
        log.configure("human", file=out)
    log.get().info("still_here")


def test_under_systemd_the_journal_is_found_by_itself():
    """JOURNAL_STREAM names stderr's device and inode; a redirected one is not it."""
    code = (
        "import os, sys; from updaterd import log;"
        "there = os.fstat(2);"
        "inode = there.st_ino + int(sys.argv[1]);"
        "os.environ['JOURNAL_STREAM'] = f'{there.st_dev}:{inode}';"
        "log.configure(journal='/nonexistent'); log.get().info('hello')"
    )
    for off, begins in ((0, "<6>hello"), (1, "20")):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, str(off)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.startswith(begins)


def test_the_log_drags_in_no_console_library():
    """The daemon's memory is the owner's; rich alone would cost 5 MB."""
    code = (
        "import sys, updaterd.log;"
        "bad = {'rich', 'twisted', 'better_exceptions', 'pygments'} & {*sys.modules};"
        "print(bad or 'none')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert "none\n" == done.stdout
