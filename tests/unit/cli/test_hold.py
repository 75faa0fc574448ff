# SPDX-License-Identifier: Apache-2.0
"""A hold lasts as long as was said, and a slip of the hand is told at once."""

import os
import time

import pytest
from fakes.machine import Machine

from updaterd.cli import EXIT_USAGE, build_parser, main
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("said", ["", "0s", "nonsense", "9999999w", "7dd"])
def test_time_that_cannot_be_meant_is_wrong_usage(said, capsys):
    """An empty variable in a script must not hold a machine for ever."""
    with pytest.raises(SystemExit) as left:
        build_parser("hold").parse_args(["hold", "--for", said])

    assert EXIT_USAGE == left.value.code
    assert "--for" in capsys.readouterr().err


def test_time_is_read_with_its_unit():
    arguments = build_parser("hold").parse_args(["hold", "--for", "7d"])

    assert 7 * 86400 == arguments.duration


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2027-01-07", 1_799_280_000 - 3600),
        ("2027-01-07 06:00", 1_799_280_000 + 5 * 3600),
        ("2027-01-07T06:00+00:00", 1_799_280_000 + 6 * 3600),
        ("2027-07-01", 1_814_400_000 - 2 * 3600),
    ],
)
def test_end_date_is_read_by_this_machines_clocks(monkeypatch, said, meant):
    """Midnight in Berlin, in winter and in summer, unless an offset is written."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        arguments = build_parser("hold").parse_args(["hold", "--until", said])
    finally:
        monkeypatch.undo()
        time.tzset()

    assert meant == arguments.until


@pytest.mark.parametrize(
    "said",
    [["--until", "soon"], ["--until", ""], ["--until", "2027-01-07", "--for", "1d"]],
)
def test_end_date_that_cannot_be_meant_is_wrong_usage(said, capsys):
    with pytest.raises(SystemExit) as left:
        build_parser("hold").parse_args(["hold", *said])

    assert EXIT_USAGE == left.value.code
    assert "--until" in capsys.readouterr().err


def test_hold_that_would_be_over_already_is_told_and_not_set(tmp_path, capsys):
    """A typed year that is past must not look like a hold."""
    machine = Machine(
        tmp_path,
        feed="http://127.0.0.1:9/v1/events",
        repository="http://127.0.0.1:9/repo",
        bootstrap=tmp_path / "root.json",
    )

    code = main(["hold", "acme", "--until", "2019-01-07", *machine.options])

    assert EXIT_USAGE == code
    assert "2019-01-0" in capsys.readouterr().err
    assert not (tmp_path / "state" / "state.db").exists()


def test_reason_in_another_encoding_is_kept_as_far_as_it_is_text(tmp_path):
    """A shell hands on whatever bytes were typed."""
    machine = Machine(
        tmp_path, feed="http://127.0.0.1:9/", repository="http://127.0.0.1:9",
        bootstrap=tmp_path / "root.json",
    )  # fmt: skip

    machine("hold", "--reason", os.fsdecode(b"f\xfcr Messe"))

    assert "f?r Messe" == machine.product_status()["hold"]["reason"]


@pytest.fixture
def machine(tmp_path):
    return Machine(
        tmp_path, feed="http://127.0.0.1:9/", repository="http://127.0.0.1:9",
        bootstrap=tmp_path / "root.json",
    )  # fmt: skip


def hold(machine, capsys, *words, expect=0):
    assert expect == main(["hold", *words, *machine.options])
    return capsys.readouterr().out


def test_hold_alone_shows_and_changes_nothing(machine, capsys):
    """Who wants to know until when must not make it endless."""
    assert "acme: no hold\n" == hold(machine, capsys)
    assert not (machine.root / "state" / "state.db").exists()

    hold(machine, capsys, "--for", "12h", "--reason", "month end")
    before = machine.product_status()["hold"]

    shown = hold(machine, capsys)

    assert "month end" in shown
    assert "on hold until 2" in shown
    assert before == machine.product_status()["hold"]


def test_what_is_not_given_stays_as_it_was(machine, capsys):
    """An end and a reason are somebody's word; another word takes them away."""
    hold(machine, capsys, "--for", "12h", "--reason", "month end")
    before = machine.product_status()["hold"]

    for words, changed in (
        (["acme"], {}),
        (["--reason", "year end"], {"reason": "year end"}),
        (["acme", "--until", "unhold"], {"until": None}),
    ):
        hold(machine, capsys, *words)
        before |= changed
        assert before == machine.product_status()["hold"]
    hold(machine, capsys, "--for", "1h")
    after = machine.product_status()["hold"]
    assert after["until"]
    assert "year end" == after["reason"]


def test_hold_that_is_over_lends_nothing_to_the_next(machine, capsys):
    connection = open_state(machine.root / "state" / "state.db")
    Journal(connection).hold("acme", until=1.0, reason="long ago")
    connection.close()

    assert "you say `updaterd unhold`\n" in hold(machine, capsys, "acme")
    assert {"until": None, "reason": "", "at": None} == machine.product_status()["hold"]


def test_another_release_to_stay_at_does_not_keep_the_word_of_another_command(
    machine, capsys
):
    connection = open_state(machine.root / "state" / "state.db")
    Journal(connection).hold("acme", reason="update --to 1.0.0", at="1.0.0")
    connection.close()

    assert "on hold at 1.1.0 until you say `updaterd unhold`\n" in hold(
        machine, capsys, "acme", "--at", "1.1.0"
    )
