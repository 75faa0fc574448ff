# SPDX-License-Identifier: Apache-2.0
"""A desktop is told by a real bus, and what a person chooses comes back."""

import asyncio
import json
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from fakes.bus import bus
from fakes.desk import NOW, listener
from fakes.repository import manifest_of
from fakes.waiting import eventually

from updaterd.cli.desktop import launch
from updaterd.core.lifecycle import State
from updaterd.install import layout
from updaterd.session.process import Session
from updaterd.store.journal import Journal, Note
from updaterd.store.schema import open_state

pytestmark = pytest.mark.slow

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
MOCK = "org.freedesktop.DBus.Mock"


@pytest.fixture
def desktop(tmp_path, monkeypatch):
    with bus(tmp_path) as running:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", running.address)
        with running.mock("notification_daemon", NAME):
            running.call(
                NAME, PATH, MOCK, "AddMethod", "sssss", NAME, "GetCapabilities", "",
                "as", 'ret = ["body", "actions"]',
            )  # fmt: skip
            yield running


def calls(desktop, method):
    log = desktop.call(NAME, PATH, MOCK, "GetMethodCalls", "s", method).body[0]
    return [[value for _, value in arguments] for _, arguments in log]


NOTES = (("de", "Briefe öffnen schneller."), ("en", "Letters open faster."))


def keep_manifest(settings):
    """Beside the release that is ready, where a person may read it."""
    root = Path(settings.products["acme"].root)
    path = layout.manifest_path(root, "1.1.0")
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest_of("acme", "1.1.0", 2, notes=NOTES).encode())


@asynccontextmanager
async def following(settings, folder, desktop):
    """Run a session that has shown its first notice, which it remembers."""
    memory = folder / "memory" / "session.json"
    with listener(settings, folder, idle_s=0.2) as (path, _):
        session = asyncio.create_task(
            Session(path, memory, now=lambda: NOW).run(), name="session"
        )
        try:
            await asyncio.to_thread(
                eventually, lambda: calls(desktop, "Notify"), within_s=30
            )
            yield
            assert json.loads(memory.read_bytes()) == [["acme", "ready", "1.1.0"]]
        finally:
            session.cancel()
            await asyncio.wait({session})


def choose(desktop, action):
    """Choose what a notice offers, as a person does."""
    desktop.call(
        NAME, PATH, MOCK, "EmitSignal", "sssav", NAME, "ActionInvoked",
        "us", [("u", 1), ("s", action)],
    )  # fmt: skip


async def test_what_is_new_is_shown_to_who_asks_and_chosen_from(
    settings, ready, desktop, tmp_path, monkeypatch
):
    keep_manifest(settings)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    async with following(settings, tmp_path, desktop):
        (first,) = calls(desktop, "Notify")
        assert first[5][-2:] == ["news", "What's new"]
        choose(desktop, "news")
        await asyncio.to_thread(
            eventually, lambda: calls(desktop, "Notify")[1:], within_s=30
        )
        (_, second) = calls(desktop, "Notify")
        assert second[3:6] == [
            "What's new in Acme 1.1.0",
            "Briefe öffnen schneller.",
            ["apply", "Restart now", "tonight", "Tonight"],
        ]


async def test_a_notice_comes_once_a_choice_comes_back_and_it_goes(
    settings, ready, desktop, tmp_path
):
    async with following(settings, tmp_path, desktop):
        (notify,) = calls(desktop, "Notify")
        assert notify[3] == "Acme 1.1.0 is ready"
        assert notify[5] == ["apply", "Restart now", "tonight", "Tonight"]

        def apply():
            choose(desktop, "apply")
            path = Path(settings.directories.state) / "state.db"
            with closing(open_state(path)) as opened:
                return Journal(opened).product("acme").apply_seq == 2

        await asyncio.to_thread(eventually, apply, within_s=30)
        at_work = ready.open_deployment("acme")
        ready.move(at_work.id, State.ACTIVATING, Note(NOW))
        await asyncio.to_thread(
            eventually, lambda: calls(desktop, "CloseNotification"), within_s=30
        )
        assert len(calls(desktop, "Notify")) == 1


def test_launching_asks_for_what_is_ready_and_does_not_wait_for_ever(
    settings, ready, tmp_path
):
    with listener(settings, tmp_path, idle_s=0.05) as (path, _):
        root = launch.activate("acme", path, wait_s=0.3)
    assert root == str(settings.products["acme"].root)
    assert ready.product("acme").apply_seq == 2


def test_launching_does_not_ask_for_what_a_person_postponed(settings, ready, tmp_path):
    ready.remember("acme", decision="postponed")
    with listener(settings, tmp_path, idle_s=0.05) as (path, _):
        assert launch.activate("acme", path, wait_s=5.0)
    assert ready.product("acme").apply_seq is None


def test_launching_starts_the_application_when_nobody_answers(tmp_path):
    assert launch.activate("acme", tmp_path / "none", wait_s=5.0) == ""
