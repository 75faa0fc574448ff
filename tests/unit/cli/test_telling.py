# SPDX-License-Identifier: Apache-2.0
"""What a person is told: why, how far, and what goes to who helps."""

import io
import json
import tarfile
import time
from contextlib import closing

import pytest
from fakes.machine import Machine, cli

from updaterd.cli import build_parser
from updaterd.cli.desktop import why
from updaterd.cli.parts import page
from updaterd.core import secrecy
from updaterd.store.journal import Journal, Note, Release
from updaterd.store.schema import open_state
from updaterd.system import progress

NOW = 1_800_000_000.0
SECRETS = ["hunter2secret", "t0pheader", "pr0xypass", "querytoken99"]


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "root.json").write_text("{}")
    headers = tmp_path / "headers"
    headers.write_text("X-Key: fr0mafile\n")
    headers.chmod(0o600)
    return Machine(
        tmp_path / "machine",
        feed="https://me:hunter2secret@updates.example.com/v1/events?key=querytoken99",
        repository="https://updates.example.com/repo",
        bootstrap=tmp_path / "root.json",
        extra=f"""
[trust.headers]
Authorization = "Bearer t0pheader"
[reports]
headers_file = "{headers}"
proxy = "http://me:pr0xypass@proxy.example.com:8080"
""",
    )


def write(machine, **facts):
    with closing(open_state(machine.root / "state/state.db")) as opened:
        journal = Journal(opened)
        journal.remember("acme", checked_at=NOW, **facts)
        return journal.product("acme")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ["acme is not installed", "not running", "updaterd run --config"]),
        (
            {"hold_until": 9e18, "hold_reason": "travelling"},
            ["on hold", "travelling", "updaterd unhold acme"],
        ),
        (
            {"failures": 3, "last_error_code": "disk_full", "last_error": "no room"},
            ["the last attempt failed", "no room", "free space"],
        ),
    ],
)
def test_why_is_three_lines(machine, facts, words):
    write(machine, **facts)
    lines = machine("why", "acme").stdout.splitlines()

    assert len(lines) == 3
    assert all(word in line for word, line in zip(words, lines, strict=True)), lines


def test_a_product_that_nobody_looked_at_has_no_finding(machine):
    (_, cause, _) = machine("why", "acme").stdout.splitlines()

    assert cause == "the daemon is not running"


def test_a_removal_is_shown_as_one():
    row = {"trigger": "remove", "state": "SKIPPED", "from_version": "1.0.0",
           "version": "1.0.0", "bytes_fetched": 0, "bytes_planned": 0,
           "reason": "1.0.0: removed by hand"}  # fmt: skip

    assert page.outcome(row) == "removed: 1.0.0"


def ready(**changes):
    return {
        "name": "acme",
        "installed": {"version": "1.0.0"},
        "decision": {"code": "waits_for_exit", "reason": "1.1.0 is ready: ..."},
        "deployment": {"version": "1.1.0", "state": "STAGED"},
        "failures": 0,
        "last_error": None,
        "hold": None,
        "deadline": "2027-01-15T08:00:00+00:00",
        "next_attempt_at": None,
        "progress": None,
        **changes,
    }


def test_why_of_what_is_ready_names_its_deadline_and_what_ends_the_wait():
    decision, cause, remedy = why.answer({"daemon": {"running": True}}, ready())

    assert "1.1.0 is ready and waits, at the latest at 2027-01-15" in decision
    assert cause == "1.1.0 is ready: ..."
    assert "end the application" in remedy


def test_why_of_a_download_says_how_far_it_is():
    product = ready(
        decision={"code": "upgrade", "reason": "1.0.0 -> 1.1.0"},
        deployment={"version": "1.1.0", "state": "FETCHING"},
        progress={"done": 5 * 2**20, "total": 10 * 2**20, "percent": 50},
    )
    decision, *_ = why.answer({"daemon": {"running": True}}, product)

    assert "fetching (50 %, 5.0 MiB of 10.0 MiB)" in decision


def test_why_of_an_unknown_product_names_the_known(machine):
    done = machine("why", "acne", expect=1)
    assert "configured products: acme" in done.stderr


def test_status_shows_how_far_a_download_is_and_not_what_a_dead_worker_left(machine):
    with closing(open_state(machine.root / "state/state.db")) as opened:
        Journal(opened).begin(
            "acme", "stable", Release("1.1.0", 2, "t" * 64), "event", Note(NOW)
        )
    (machine.root / "run").mkdir()
    published = progress.Published(machine.root / "run", "acme", lambda: 0.0)
    now = time.time()
    published.tell(512, 1024, now=now)

    assert machine.product_status()["progress"] == {
        "done": 512, "total": 1024, "percent": 50,
    }  # fmt: skip
    assert (
        "now       1.1.0: queued, 50 %, 512 B of 1.0 KiB"
        in machine("status", expect=None).stdout
    )

    published.tell(1024, 1024, now=now - 3600)
    assert machine.product_status()["progress"] is None
    published.end()
    assert not list((machine.root / "run").glob("progress*"))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"done": 9, "total": 1, "at": 0}', b'{"done": "x"}', b"\xff"],
)
def test_a_strange_progress_file_says_nothing(tmp_path, text):
    (tmp_path / "progress-acme.json").write_bytes(text)
    assert progress.read(tmp_path, "acme", 0.0) is None


def opened(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: archive.extractfile(member).read().decode()
            for member in archive.getmembers()
        }


def test_a_report_tells_what_helps_and_no_secret(machine, tmp_path):
    write(
        machine,
        failures=1,
        last_error_code="http_401",
        last_error="the server said: Authorization: Bearer t0pheader is not known",
    )
    target = tmp_path / "report.tar.gz"
    done = machine("report", "-o", target)
    texts = opened(target.read_bytes())
    everything = "\n".join(texts.values())

    assert target.stat().st_mode & 0o777 == 0o600
    assert "Look into it before you send it" in done.stdout
    assert {name.removeprefix("updaterd-report/") for name in texts} == {
        "versions.txt", "status.json", "status.txt", "history.jsonl",
        "configuration.json", "space.txt",
    }  # fmt: skip
    assert "http_401" in everything
    assert "updates.example.com" in everything
    assert not [secret for secret in [*SECRETS, "fr0mafile"] if secret in everything]
    settings = json.loads(texts["updaterd-report/configuration.json"])
    assert settings["trust"]["network"]["headers"] == {"Authorization": "[left out]"}


def test_a_headers_file_that_cannot_be_read_gives_no_password_away(machine, tmp_path):
    machine.config.write_text(
        machine.config.read_text().replace(str(tmp_path / "headers"), "/none/headers")
    )
    write(
        machine,
        failures=1,
        last_error_code="proxy",
        last_error="the proxy said: who is pr0xypass?",
    )
    target = tmp_path / "report.tar.gz"
    machine("report", "-o", target)
    everything = "\n".join(opened(target.read_bytes()).values())

    assert "the proxy said: who is [left out]?" in everything
    assert "pr0xypass" not in everything


@pytest.mark.parametrize(
    "typed", [["--", "-x"], ["a", "--", "--wait", "3"], ["--help"], []]
)
def test_an_application_gets_its_arguments_as_they_were_typed(typed):
    words = ["launch", "--wait", "0", "acme", "bin/acme", *typed]
    arguments = build_parser("launch").parse_args(words)
    assert arguments.words == ["bin/acme", *typed]
    assert (arguments.product, arguments.wait) == ("acme", 0)


def test_a_report_of_a_machine_whose_configuration_is_wrong(machine, tmp_path):
    machine.config.write_text("[feed\n")
    target = tmp_path / "report.tar.gz"
    machine("report", "-o", target)

    texts = opened(target.read_bytes())
    assert "not valid TOML" in texts["updaterd-report/configuration.json"]
    assert "updaterd " in texts["updaterd-report/versions.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "GET https://me:s3cr3tword@host/x failed",
        "GET https://host/x?sig=s3cr3tword&a=1 failed",
        'headers: {"Authorization": "Bearer s3cr3tword"}',
        "Cookie: session=s3cr3tword",
        "authorization: basic s3cr3tword",
        "X-Api-Key: s3cr3tword",
        "X-Auth-Token: s3cr3tword",
        "GET https://me:p@s3cr3tword@host/x failed",
        '["/bin/hook", "--token=s3cr3tword"]',
        '["/bin/hook", "--deploy-password",\n "s3cr3tword"]',
        "SMTP_PASSWORD=s3cr3tword /bin/hook",
    ],
)
def test_what_looks_like_a_secret_is_left_out(text):
    assert "s3cr3tword" not in secrecy.without(text, [])


def test_a_secret_is_left_out_of_json_as_well():
    for secret in ('a"quoted"word', "pässwörd", "back\\slash"):
        for ascii_only in (True, False):
            text = json.dumps({"error": f"no: {secret}"}, ensure_ascii=ascii_only)
            told = json.loads(secrecy.without(text, [secret]))
            assert told == {"error": "no: [left out]"}


def test_json_without_secrets_is_json_still():
    document = {
        "token": None,
        "secrets": {"a": [1, True]},
        "api_key": 7,
        "password": [],
    }
    for indent in (None, 1):
        text = json.dumps(document, indent=indent)
        assert json.loads(secrecy.without(text, [])) == document


def test_short_words_are_no_secrets():
    assert secrecy.without("a status of acme", ["a", "st"]) == "a status of acme"


def test_commands_of_a_room_have_a_help():
    for name in ("why", "report", "api"):
        assert cli(name, "--help").stdout


def test_a_report_that_cannot_be_written_names_the_file(machine):
    done = machine("report", "-o", machine.root / "none" / "report", expect=1)
    assert "none/report cannot be written" in done.stderr
    assert "--output" in done.stderr


def test_a_daemon_that_is_not_there_is_not_a_wrong_setting():
    done = cli("status", "--daemon", "none-of-ours", expect=1)
    assert "nothing was done" in done.stderr
