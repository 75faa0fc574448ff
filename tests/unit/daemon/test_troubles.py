# SPDX-License-Identifier: Apache-2.0
"""The journal says what goes wrong: once, with what to do, and when it is over."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from updaterd.core import codes
from updaterd.daemon.troubles import Looks, Outage
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state


@pytest.fixture
def journal(tmp_path):
    connection = open_state(tmp_path / "state.db")
    yield Journal(connection)
    connection.close()


def fail(journal, code):
    journal.note_failure(
        "acme",
        code=code,
        reason=f"{code}, as it was",
        next_attempt_at=2.0,
        now=1.0,
        looked_up_to=0,
    )


class TestLooks:
    @pytest.mark.parametrize(
        ("code", "event", "level"),
        [
            ("dns", "look_failed", "warning"),
            ("tls", "look_failed", "warning"),
            ("disk_full", "look_failed", "warning"),
            ("no_such_channel", "look_failed", "warning"),
            ("metadata_forged", "trust_failed", "error"),
            ("metadata_expired", "trust_failed", "error"),
            ("wrong_target", "trust_failed", "error"),
            ("bad_root", "trust_failed", "error"),
            ("worker_died", "worker_died", "error"),
        ],
    )
    def test_failure_is_told_once_with_code_cause_and_remedy(
        self, journal, code, event, level
    ):
        looks = Looks()
        with capture_logs() as told:
            for now in (10.0, 20.0, 30.0):
                fail(journal, code)
                looks.note(journal, "acme", now=now)

        (line,) = told
        assert (event, level) == (line["event"], line["log_level"])
        assert ("acme", code) == (line["product"], line["code"])
        assert f"{code}, as it was" == line["cause"]
        assert codes.table()[code].remedy == line["remedy"]

    def test_end_is_told_with_how_long_it_took(self, journal):
        looks = Looks()
        for now in (10.0, 20.0):
            fail(journal, "dns")
            looks.note(journal, "acme", now=now)
        journal.remember("acme", failures=0, last_error="", last_error_code="")
        with capture_logs() as told:
            looks.note(journal, "acme", now=70.0)
            looks.note(journal, "acme", now=80.0)

        (line,) = told
        assert ("look_recovered", "info") == (line["event"], line["log_level"])
        assert ("dns", 60, 2) == (line["code"], line["lasted_s"], line["times"])

    def test_another_failure_is_news(self, journal):
        looks = Looks()
        with capture_logs() as told:
            for code in ("dns", "metadata_forged", "metadata_forged"):
                fail(journal, code)
                looks.note(journal, "acme", now=10.0)

        assert ["look_failed", "trust_failed"] == [line["event"] for line in told]

    def test_decision_not_to_believe_is_an_error_too(self, journal):
        """A replay is answered by a decision, without an exception."""
        journal.remember("acme", decision="metadata_rollback", decision_reason="older")
        with capture_logs() as told:
            Looks().note(journal, "acme", now=10.0)

        assert ["trust_failed"] == [line["event"] for line in told]


class TestTheFeed:
    def test_restart_of_a_server_is_no_warning(self):
        outage = Outage()
        with capture_logs() as told:
            for now in (0.0, 10.0, 59.0):
                outage.failed("refused", "nobody listens", now=now)
            outage.over(now=60.0)

        assert [] == told

    def test_feed_that_stays_away_is_told_once(self):
        outage = Outage()
        with capture_logs() as told:
            for now in (0.0, 10.0, 70.0, 300.0):
                outage.failed("refused", "nobody listens", now=now)
            outage.over(now=400.0)

        down, back = told
        assert ("feed_down", "warning") == (down["event"], down["log_level"])
        assert ("refused", "nobody listens") == (down["code"], down["cause"])
        assert down["remedy"]
        assert ("feed_back", 400) == (back["event"], back["lasted_s"])

    @pytest.mark.parametrize("code", ["tls", "http_401", "content_type"])
    def test_what_does_not_pass_by_itself_is_told_at_once(self, code):
        with capture_logs() as told:
            Outage().failed(code, "why", now=0.0)

        assert ["feed_down"] == [line["event"] for line in told]


@pytest.mark.slow
def test_command_that_fails_under_systemd_is_one_entry_with_fields(tmp_path):
    """Not three lines of text, of which none says that it is an error."""
    (tmp_path / "updaterd.toml").write_text("[feed")
    script = (
        "import sys\n"
        "from updaterd import log\n"
        "log.JOURNAL = sys.argv.pop(1)\n"
        "log.configure.__kwdefaults__['journal'] = log.JOURNAL\n"
        "from updaterd.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as journald:
        journald.bind(str(tmp_path / "journal"))
        journald.settimeout(60)
        with (tmp_path / "stderr").open("wb") as stderr:
            there = os.fstat(stderr.fileno())
            done = subprocess.run(
                [
                    *(sys.executable, "-c", script, str(tmp_path / "journal")),
                    *("update", f"--config={tmp_path}/updaterd.toml"),
                ],
                stderr=stderr,
                check=False,
                env={**os.environ, "JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"},
            )
        entry = dict(
            line.partition(b"=")[::2] for line in journald.recv(65536).splitlines()
        )

    assert 1 == done.returncode
    assert b"" == (tmp_path / "stderr").read_bytes()
    assert b"3" == entry[b"PRIORITY"]
    assert b"config" == entry[b"UPDATERD_CODE"]
    assert b"not valid TOML" in entry[b"UPDATERD_CAUSE"]
    assert entry[b"UPDATERD_REMEDY"]


def test_codes_of_trust_are_codes():
    assert all(codes.find(code) for code in (*codes.NOT_THERE, *codes.OF_TRUST))
