# SPDX-License-Identifier: Apache-2.0
"""Applications ask over Varlink: what each method does, and for whom."""

import asyncio
import math
import os
import tomllib
from pathlib import Path

import pytest
from fakes.desk import DAY, NOW, listener, nobody
from fakes.varlink import Client

from updaterd.api import callers, interface, wire
from updaterd.api.callers import Caller
from updaterd.api.methods import Connection, Inhibitors, World
from updaterd.core.lifecycle import State
from updaterd.store.journal import Note
from updaterd.system import inhibitions

SERVICE = "org.varlink.service"
OURS = "io.updaterd.Updater"


def ask(settings, caller, method, polkit=nobody, inhibitors=None, **parameters):
    """Return the answer to one call, or the name of its error."""
    world = World(load=lambda: settings, now=lambda: NOW, polkit=polkit)

    async def first():
        connection = Connection(world, caller, inhibitors or Inhibitors())
        name = method if "." in method else f"{OURS}.{method}"
        async for answer in connection.answers(wire.Call(name, parameters)):
            return answer
        return None

    try:
        return asyncio.run(first())
    except wire.CallError as error:
        return error.name


ROOT = Caller(1, 0, frozenset({0}))
OWN = Caller(1, os.geteuid(), frozenset({0}))
USER = Caller(1, 12345, frozenset({100}))
MEMBER = Caller(1, 4000, frozenset({100, 54321}))
STRANGER = Caller(1, 4001, frozenset({100}))

CALLS = {
    "List": {},
    "Status": {"product": "acme"},
    "Monitor": {"product": "acme"},
    "Update": {"product": "acme"},
    "Postpone": {"product": "acme", "until": int(NOW + DAY)},
    "Apply": {"product": "acme"},
    "Hold": {"product": "acme"},
    "Unhold": {"product": "acme"},
    "Inhibit": {"product": "acme", "why": "a call is on"},
    "Check": {"product": "acme"},
}
CHANGES = sorted(CALLS.keys() - callers.FREE)


def test_every_method_that_is_described_is_one_of_these():
    described = {
        line.split("(")[0].removeprefix("method ")
        for line in interface.DESCRIPTION.splitlines()
        if line.startswith("method ")
    }
    assert described == CALLS.keys()


@pytest.mark.parametrize("method", sorted(CALLS.keys() - {"Check"}))
@pytest.mark.parametrize(
    "caller", [ROOT, OWN, USER, MEMBER], ids=["root", "own", "user", "group"]
)
def test_who_has_a_say_may_call_each_method(settings, ready, method, caller):
    assert isinstance(ask(settings, caller, method, **CALLS[method]), dict)


@pytest.mark.parametrize("method", CHANGES)
def test_a_stranger_changes_nothing(settings, ready, method):
    before = ready.product("acme")
    answer = ask(settings, STRANGER, method, **CALLS[method])

    assert answer == f"{SERVICE}.PermissionDenied"
    assert ready.product("acme") == before
    assert not inhibitions.asked_for(Path(settings.directories.state), "acme")


@pytest.mark.parametrize("method", sorted(callers.FREE))
def test_a_stranger_may_look_without_polkit_being_asked(settings, ready, method):
    async def never(caller, product):
        raise AssertionError("asked")

    assert isinstance(ask(settings, STRANGER, method, never, **CALLS[method]), dict)


@pytest.mark.parametrize("method", sorted(set(CHANGES) - {"Check"}))
def test_polkit_lets_a_session_call_each_method(settings, ready, method):
    asked = []

    async def session(caller, product):
        asked.append((caller, product))
        return True

    answer = ask(settings, STRANGER, method, session, **CALLS[method])

    assert isinstance(answer, dict)
    assert asked == [(STRANGER, "acme")]


def test_a_name_in_a_message_gives_no_rights(settings, ready):
    answer = ask(settings, STRANGER, "Hold", product="acme", uid=0)
    assert answer == f"{SERVICE}.InvalidParameter"


def test_what_is_ready_is_shown_with_its_deadline(settings, ready):
    status = ask(settings, STRANGER, "Status", product="acme")["status"]

    assert (status["state"], status["installed"], status["ready"]) == (
        "ready",
        "1.0.0",
        "1.1.0",
    )
    assert status["deadline"] == int(NOW + 7 * DAY)


def test_apply_asks_for_exactly_what_is_ready(settings, ready):
    assert ask(settings, USER, "Apply", product="acme") == {"version": "1.1.0"}
    facts = ready.product("acme")
    assert (facts.apply_seq, facts.next_attempt_at) == (2, NOW)


@pytest.mark.parametrize("method", ["Apply", "Postpone"])
def test_without_a_release_that_is_ready_there_is_nothing_to_say(
    settings, journal, method
):
    answer = ask(settings, USER, method, **CALLS[method])
    assert answer == f"{OURS}.NothingReady"


def test_nobody_postpones_beyond_the_deadline(settings, ready):
    answer = ask(settings, USER, "Postpone", product="acme", until=int(NOW + 30 * DAY))
    assert answer == {"until": int(NOW + 7 * DAY)}
    assert ready.product("acme").postponed_until == NOW + 7 * DAY


def test_postponing_takes_an_apply_back(settings, ready):
    ask(settings, USER, "Apply", product="acme")
    ask(settings, USER, "Postpone", product="acme", until=int(NOW + DAY))
    assert ready.product("acme").apply_seq is None


def test_a_hold_without_end_and_one_with(settings, ready):
    ask(settings, USER, "Hold", product="acme", reason="travelling")
    facts = ready.product("acme")
    assert (facts.hold_until, facts.hold_reason) == (math.inf, "travelling")

    ask(settings, USER, "Hold", product="acme", until=int(NOW + DAY))
    assert ready.product("acme").hold_until == NOW + DAY

    ask(settings, USER, "Unhold", product="acme")
    assert ready.product("acme").hold_until is None


@pytest.mark.parametrize(("ends", "at"), [(NOW - DAY, ""), (NOW + DAY, "1.0.0")])
def test_a_hold_names_no_release_that_a_hold_which_is_over_named(
    settings, ready, ends, at
):
    """Else it would bring the machine back there, a year after an owner wanted it."""
    ready.hold("acme", until=ends, at="1.0.0")
    ask(settings, USER, "Hold", product="acme")
    assert ready.product("acme").hold_at == at


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("Status", {}, f"{SERVICE}.InvalidParameter"),
        ("Status", {"product": 7}, f"{SERVICE}.InvalidParameter"),
        ("Status", {"product": "x" * 5000}, f"{SERVICE}.InvalidParameter"),
        ("Status", {"product": "other"}, f"{OURS}.NoSuchProduct"),
        ("Hold", {"product": "acme", "until": True}, f"{SERVICE}.InvalidParameter"),
        ("Hold", {"product": "acme", "until": 1}, f"{SERVICE}.InvalidParameter"),
        ("Hold", {"product": "acme", "until": 1e300}, f"{SERVICE}.InvalidParameter"),
        ("Hold", {"product": "acme", "until": 10**400}, f"{SERVICE}.InvalidParameter"),
        ("Postpone", {"product": "acme"}, f"{SERVICE}.InvalidParameter"),
        ("Inhibit", {"product": "acme"}, f"{SERVICE}.InvalidParameter"),
        ("Destroy", {"product": "acme"}, f"{SERVICE}.MethodNotFound"),
        ("org.example.Other", {}, f"{SERVICE}.InterfaceNotFound"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(settings, ready, method, parameters, error):
    assert ask(settings, ROOT, method, **parameters) == error


def test_a_surrogate_in_a_reason_is_not_stored(settings, ready):
    ask(settings, ROOT, "Hold", product="acme", reason="\ud800")
    assert ready.product("acme").hold_reason == "?"


# ---- over a real socket


def test_it_ends_by_itself_when_nobody_is_connected(settings, ready, tmp_path):
    with (
        listener(settings, tmp_path, idle_s=0.05) as (path, ended),
        Client(path) as one,
    ):
        assert one.call("List") == {"products": ["acme"]}
        assert not ended.wait(0.2)


def test_it_describes_itself(settings, ready, tmp_path):
    with listener(settings, tmp_path, 0.05) as (path, _), Client(path) as client:
        told = client.call(f"{SERVICE}.GetInfo")
        assert told["interfaces"] == [SERVICE, OURS]
        project = Path(__file__).parents[3] / "pyproject.toml"
        urls = tomllib.loads(project.read_text())["project"]["urls"]
        assert told["url"] == urls["Homepage"]
        for name in told["interfaces"]:
            text = client.call(f"{SERVICE}.GetInterfaceDescription", interface=name)
            assert f"interface {name}" in text["description"]


def test_a_wish_to_wait_lasts_as_long_as_the_connection(settings, ready, tmp_path):
    state = Path(settings.directories.state)
    with listener(settings, tmp_path, idle_s=0.05) as (path, _):
        one, other = Client(path), Client(path)
        one.call("Inhibit", product="acme", why="a call is on")
        other.call("Inhibit", product="acme", why="a document is open")
        assert inhibitions.asked_for(state, "acme") == "a call is on"
        one.close()
        assert other.call("List")
        assert inhibitions.asked_for(state, "acme")
        other.close()
    assert not inhibitions.asked_for(state, "acme")
    assert ready.product("acme").next_attempt_at == NOW


def test_monitor_tells_each_change_once(settings, ready, tmp_path):
    with listener(settings, tmp_path, 0.05) as (path, _), Client(path) as client:
        client.send("Monitor", more=True, product="acme")
        first = client.receive()
        assert first["continues"]
        assert first["parameters"]["status"]["state"] == "ready"

        at_work = ready.open_deployment("acme")
        ready.move(at_work.id, State.ACTIVATING, Note(NOW))
        assert client.receive()["parameters"]["status"]["state"] == "activating"


@pytest.mark.parametrize(
    "message",
    [
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"[]\0",
        b'{"method": 7}\0',
        b'{"method": "x", "parameters": [1]}\0',
        b"[" * 5000 + b"\0",
        b"x" * 200_000,
        b"\xff\0",
    ],
    ids=range(7),
)
def test_what_speaks_something_else_is_left(settings, ready, tmp_path, message):
    with listener(settings, tmp_path, 0.05) as (path, _):
        with Client(path) as client:
            client.send_raw(message)
            assert client.receive() is None
        with Client(path) as another:
            assert another.call("List") == {"products": ["acme"]}
