# SPDX-License-Identifier: Apache-2.0
"""The supervisor starts workers when it should, and outlives what they do."""

import asyncio
import json
import shutil
import socket
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest
import structlog
from fakes.waiting import eventually

from updaterd.clocks import Clocks
from updaterd.core.lifecycle import State
from updaterd.core.settings import (
    Directories,
    Download,
    Feed,
    Product,
    Schedule,
    Settings,
    Trust,
)
from updaterd.daemon.subscription import Subscription
from updaterd.daemon.supervisor import Supervisor
from updaterd.daemon.workers import Ended
from updaterd.feed.client import ConnectionState
from updaterd.store.inbox import Inbox
from updaterd.store.journal import Journal, Note, Release
from updaterd.store.schema import open_state
from updaterd.system.notify import Notifier

pytestmark = pytest.mark.slow

START = 1_800_000_000.0


class FakeWorkers:
    """Stands where processes would be: tells what was asked, answers as told."""

    def __init__(self, journal):
        self.started: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.answers: list[int] = []
        self.decided: tuple[int, ...] = ()
        self.stopped: list[tuple[float, float]] = []
        self.ends: asyncio.Event | None = None
        self.looks = 0
        self.journal = journal
        self.now = START

    async def update(self, product, *, trigger, pushed=None):
        code = self.answers.pop(0) if self.answers else 0
        if code in (0, *self.decided):
            self.looks += 1  # as a decision does, of which no two are at one instant
            at = self.now + self.looks / 1e3
            self.journal.remember(
                product,
                checked_at=at,
                next_attempt_at=None,
                looked_up_to=self.journal.newest_event(),
            )
        await self.started.put((product, trigger))
        return Ended(code=code)

    async def stop(self, *, grace_s, patience_s):
        self.stopped.append((grace_s, patience_s))
        if self.ends is not None and patience_s > 60:
            await self.ends.wait()

    async def next(self):
        return await asyncio.wait_for(self.started.get(), 20)


class Rig:
    """A supervisor on a real database, with a clock that the test moves."""

    def __init__(self, tmp_path):
        self.now = START
        with socket.create_server(("127.0.0.1", 0)) as closed_again:
            port = closed_again.getsockname()[1]
        self.settings = Settings(
            feed=Feed(url=f"http://127.0.0.1:{port}/v1/events", fallback_poll_s=3600),
            trust=Trust(root=tmp_path, repository="http://127.0.0.1:9"),
            download=Download(),
            schedule=Schedule(),
            products={"acme": Product(name="acme", root=tmp_path / "opt")},
            directories=Directories(
                config=tmp_path, state=tmp_path, cache=tmp_path, runtime=tmp_path
            ),
        )
        self.connection = open_state(tmp_path / "state.db")
        self.journal = Journal(self.connection)
        self.workers = FakeWorkers(self.journal)
        self.status_file = tmp_path / "status.json"

    @asynccontextmanager
    async def running(self, notifier=None):
        self.supervisor = Supervisor(
            self.settings,
            connection=self.connection,
            workers=self.workers,
            clocks=Clocks(now=lambda: self.now, draw=lambda: 0.5),
            notifier=notifier or Notifier(),
        )
        self.task = task = asyncio.create_task(self.supervisor.run())
        try:
            yield
        finally:
            self.supervisor.stop()
            await asyncio.wait_for(task, 20)

    def pass_time(self, seconds):
        self.now += seconds
        self.workers.now = self.now
        self.supervisor.look_again()

    def receive(self, event_id, **members):
        from updaterd.core.sse import Event

        data = {"schema": 1, "product": "acme", "channel": "stable", **members}
        inbox = Inbox(
            self.connection,
            feed=self.settings.feed.url,
            products={"acme": "stable"},
        )
        event = Event(
            id=event_id,
            event="update_available",
            data=json.dumps(data),
            retry=None,
            identified=True,
        )
        assert inbox.accept(event, now=self.now).products


async def settle():
    """Let everything run that can run without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def rig(tmp_path):
    found = Rig(tmp_path)
    yield found
    found.connection.close()


async def test_first_thing_after_a_start_is_to_look(rig):
    """It also finishes what a dead run left."""
    async with rig.running():
        assert ("acme", "boot") == await rig.workers.next()


async def test_event_that_was_stored_before_a_crash_is_acted_on_after_it(rig):
    rig.receive("7")

    async with rig.running():
        await rig.workers.next()

    inbox = Inbox(rig.connection, feed="", products={"acme": "stable"})
    assert 0 == inbox.depth()


async def test_safety_poll_comes_without_any_event(rig):
    async with rig.running():
        await rig.workers.next()

        rig.pass_time(3600)

        assert ("acme", "poll") == await rig.workers.next()


@pytest.mark.parametrize("code", [-9, -11, 1, 2])
async def test_worker_that_dies_without_word_is_retried_later_and_told(rig, code):
    rig.workers.answers = [code]
    async with rig.running():
        await rig.workers.next()
        rig.pass_time(0)
        await asyncio.sleep(0)
        rig.pass_time(60)

        assert ("acme", "poll") == await rig.workers.next()

    facts = rig.journal.product("acme")
    assert "worker_died" == facts.last_error_code
    assert rig.journal.history("acme") == ()


async def test_worker_that_dies_after_its_decision_is_retried_too(rig):
    """It was applying the release: what it had decided is no plan."""
    rig.workers.answers, rig.workers.decided = [-9], (-9,)
    async with rig.running():
        await rig.workers.next()
        await settle()

        assert rig.journal.product("acme").next_attempt_at <= rig.now + 60


@pytest.mark.parametrize(("dies", "within_s"), [((-9,), 2), ((-9, -9), 300)])
async def test_worker_that_dies_on_trial_is_followed_at_once_but_not_for_ever(
    rig, dies, within_s
):
    """A release that nobody proved runs: it is left, or proven, without delay."""
    ident = rig.journal.begin(
        "acme", "stable", Release("1.1.0", 11, "t"), "event", Note(START)
    )
    for state in (State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION):
        rig.journal.move(ident, state, Note(START))
    rig.workers.answers = list(dies)
    async with rig.running():
        for _ in dies[1:]:
            await rig.workers.next()
            await settle()
            rig.pass_time(2)
        await rig.workers.next()
        await settle()

        planned = rig.journal.next_attempt_at("acme") - rig.now
        assert (planned <= 0) == (within_s == 2)
        assert planned <= within_s


@pytest.mark.parametrize("code", [10, 126, 127])
async def test_event_waits_until_a_worker_has_looked(rig, code):
    """An administrator's own command had the product, or no worker could start."""
    rig.workers.answers = [0, code]
    async with rig.running():
        await rig.workers.next()
        rig.receive("1")
        rig.pass_time(1)
        assert ("acme", "event") == await rig.workers.next()
        await settle()

        rig.pass_time(60)

        await rig.workers.next()


async def test_a_look_that_began_before_the_event_does_not_settle_it(rig):
    """Our worker found another at work, which then decided on what it had seen."""
    async with rig.running():
        await rig.workers.next()
        rig.receive("1", urgency="critical")
        seen_by_the_other = rig.journal.newest_event() - 1
        update = rig.workers.update

        async def busy(product, *, trigger, pushed=None):
            rig.journal.remember(
                product,
                checked_at=rig.now + 0.5,
                next_attempt_at=None,
                looked_up_to=seen_by_the_other,
            )
            rig.workers.update = update
            await rig.workers.started.put((product, trigger))
            return Ended(code=10)

        rig.workers.update = busy
        rig.pass_time(1)
        assert ("acme", "event") == await rig.workers.next()
        await settle()

        assert "critical" == rig.supervisor._inbox.waiting("acme").urgency

        rig.pass_time(60)
        await rig.workers.next()
        await settle()

        assert rig.supervisor._inbox.waiting("acme") is None


async def test_busy_product_is_looked_at_again_soon_after_the_start(rig):
    """It need not be told by an event: the safety poll may be hours away."""
    rig.workers.answers = [10]
    async with rig.running():
        await rig.workers.next()
        await settle()

        rig.pass_time(70)

        assert ("acme", "poll") == await rig.workers.next()


async def test_database_that_is_locked_while_a_worker_ends_does_not_end_the_daemon(
    rig, tmp_path
):
    rig.connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    async with rig.running():
        await rig.workers.next()
        rig.receive("1")
        rig.workers.answers = [-9]
        other.execute("BEGIN IMMEDIATE")
        rig.pass_time(1)
        await rig.workers.next()
        await settle()
        other.close()

        rig.pass_time(5)

        assert ("acme", "event") == await rig.workers.next()


async def test_inbox_that_cannot_be_written_is_told(rig, tmp_path):
    """Nothing is heard meanwhile: status must not say that all is well."""

    class Full(Inbox):
        def cursor(self):
            raise sqlite3.OperationalError("database or disk is full")

    subscription = Subscription(
        rig.settings,
        inbox=Full(rig.connection, feed="", products={}),
        clocks=Clocks(now=lambda: START, draw=lambda: 0.5),
        on_change=lambda: None,
        on_return=lambda: None,
    )
    task = asyncio.create_task(subscription.run())
    await settle()
    task.cancel()

    assert "inbox_failed" == subscription.state.code
    assert "disk is full" in subscription.state.error


async def test_worker_that_the_stop_of_the_daemon_ends_has_not_failed(rig):
    """Else each restart in the middle of a download would look like trouble."""

    async def update(product, *, trigger, pushed=None):
        rig.supervisor.stop()
        return Ended(code=-15)

    rig.workers.update = update
    async with rig.running():
        await settle()

    assert 0 == rig.journal.failures("acme")


async def test_flood_of_events_starts_few_workers(rig):
    async with rig.running():
        await rig.workers.next()
        rig.receive("1")
        rig.pass_time(0)
        rig.pass_time(1)
        await rig.workers.next()

        for number in range(2, 500):
            rig.receive(str(number))
            rig.supervisor.look_again()
            await asyncio.sleep(0)

        assert rig.workers.started.empty(), "events were not paced"


async def test_spread_event_waits_for_this_machines_share(rig):
    async with rig.running():
        await rig.workers.next()
        rig.pass_time(100)
        rig.receive("1", spread_s=600)

        rig.pass_time(299)
        await settle()
        assert rig.workers.started.empty()

        rig.pass_time(1)
        assert ("acme", "event") == await rig.workers.next()


async def test_status_file_is_whole_and_says_that_the_feed_is_down(rig):
    async with rig.running():
        await rig.workers.next()
        await asyncio.to_thread(eventually, lambda: _phase(rig) == "waiting")

    document = json.loads(rig.status_file.read_bytes())
    assert "degraded" == document["state"]
    assert "refused" == document["feed"]["connection"]["code"]


async def test_status_says_why_while_the_feed_is_tried_again(rig):
    async with rig.running():
        await rig.workers.next()
        await asyncio.to_thread(eventually, lambda: _phase(rig) == "waiting")
        subscription = rig.supervisor._subscription
        subscription._tell(ConnectionState(phase="connecting", attempt=2))

        assert "refused" == subscription.state.code


def _phase(rig):
    if not rig.status_file.exists():
        return None
    connection = json.loads(rig.status_file.read_bytes())["feed"]["connection"]
    return connection and connection["phase"]


async def test_unwritable_runtime_directory_does_not_stop_the_daemon(rig, tmp_path):
    rig.settings = replace(
        rig.settings,
        directories=replace(rig.settings.directories, runtime=tmp_path / "gone"),
    )

    async with rig.running():
        await rig.workers.next()


async def test_reload_lets_a_trial_end_but_a_stop_does_not_wait_for_it(rig):
    """Killed on trial, a good release would be rolled back for a typed `reload`."""
    rig.workers.ends = asyncio.Event()
    async with rig.running():
        await rig.workers.next()
        rig.supervisor.stop(patient=True)
        await settle()
        ((_, patience_s),) = rig.workers.stopped
        product = rig.settings.products["acme"]
        assert patience_s > 2 * product.health.timeout_s
        # leaving the block stops at once, although that worker never ends
    assert [patience_s, 40.0] == [patience for _, patience in rig.workers.stopped]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_database_that_is_taken_away_is_noticed_at_the_next_turn(rig, replaced):
    """Or workers write into one file and the daemon into another, for ever."""
    path = rig.status_file.with_name("state.db")
    async with rig.running():
        await rig.workers.next()
        await settle()
        assert not rig.supervisor.state_lost
        path.unlink()
        if replaced:
            open_state(path).close()
        rig.pass_time(1)
        await settle()

        assert rig.supervisor.state_lost


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_PROXY", "localhost,::1/128,<local>"), ("all_proxy", "socks://127.0.0.2:9/")],
)
async def test_an_odd_proxy_variable_is_named_once_and_ends_nothing(
    rig, monkeypatch, name, value
):
    """The daemon looks on, and says what it has left out."""
    monkeypatch.setenv(name, value)
    with structlog.testing.capture_logs() as lines:
        async with rig.running():
            await rig.workers.next()
            rig.pass_time(4000)
            await rig.workers.next()
    reasons = [one["reason"] for one in lines if one["event"] == "proxy_ignored"]
    assert len(reasons) == 1
    assert name in reasons[0]
    assert rig.supervisor._subscription.state.code == "refused"


class TestFoldersThatAreDeleted:
    async def test_cache_is_made_again_by_the_daemon(self, tmp_path):
        """`rm -rf /var/cache/updaterd` is allowed: no update fails for it."""
        rig = Rig(tmp_path)
        cache = tmp_path / "cache"
        cache.mkdir()
        rig.settings = with_cache(rig.settings, cache)
        async with rig.running():
            await rig.workers.next()
            cache.rmdir()

            rig.pass_time(4000)
            await rig.workers.next()

            assert cache.is_dir()
            assert 0o700 == cache.stat().st_mode & 0o777

    async def test_daemon_that_cannot_is_started_again_by_its_unit(self, tmp_path):
        """systemd made the folder, and will again; within the unit it is read-only."""
        rig = Rig(tmp_path)
        cache = tmp_path / "cache"
        cache.mkdir()
        rig.settings = with_cache(rig.settings, cache)
        with closing(Notifier("@nobody-listens")) as notifier:
            async with rig.running(notifier):
                await rig.workers.next()
                cache.rmdir()
                cache.write_text("what cannot be made again, even by root")

                rig.pass_time(4000)
                await asyncio.wait_for(rig.task, 20)

                assert rig.workers.started.empty()

    @pytest.mark.parametrize("unit", [True, False])
    async def test_runtime_folder_takes_the_lock_along(self, tmp_path, unit):
        """Made again it is empty: nobody would see that the daemon runs."""
        rig = Rig(tmp_path)
        runtime = tmp_path / "run"
        runtime.mkdir()
        directories = replace(rig.settings.directories, runtime=runtime)
        rig.settings = replace(rig.settings, directories=directories)
        listener = Notifier("@nobody-listens" if unit else "")
        with closing(listener), structlog.testing.capture_logs() as told:
            async with rig.running(listener):
                await rig.workers.next()
                shutil.rmtree(runtime)
                rig.pass_time(4000)
                if unit:
                    await asyncio.wait_for(rig.task, 20)
                else:
                    await rig.workers.next()
        (line,) = [line for line in told if line["event"] == "folder_lost"]
        assert unit == line["remedy"].startswith("nothing: the unit starts")

    async def test_daemon_without_a_unit_tells_and_goes_on(self, tmp_path):
        rig = Rig(tmp_path)
        cache = tmp_path / "cache"
        cache.mkdir()
        rig.settings = with_cache(rig.settings, cache)
        with structlog.testing.capture_logs() as told:
            async with rig.running():
                await rig.workers.next()
                cache.rmdir()
                cache.write_text("in the way")
                for _ in range(2):
                    rig.pass_time(4000)
                    await rig.workers.next()

        assert 1 == sum(line["event"] == "folder_lost" for line in told)


def with_cache(settings, cache):
    return replace(settings, directories=replace(settings.directories, cache=cache))


class Chooser:
    """The package's: which release an interpreter would run that starts now."""

    CHOSEN = "/opt/updaterd/releases/1"

    def __init__(self):
        self.now = self.CHOSEN

    def choose(self):
        return self.now


async def test_updaterd_that_a_person_updated_makes_way_at_once(rig, monkeypatch):
    """By hand, the daemon's own workers have no part in it; a trial is waited for."""
    chooser = Chooser()
    monkeypatch.setitem(sys.modules, "_updaterd_site", chooser)
    async with rig.running():
        await rig.workers.next()
        ident = rig.journal.begin(
            "updaterd", "stable", Release("2", 2, "t"), "manual", Note(START)
        )
        for state in (State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION):
            rig.journal.move(ident, state, Note(START))
        chooser.now = "/opt/updaterd/releases/2"
        rig.supervisor.look_again()
        await settle()
        assert not rig.task.done()

        rig.journal.install(ident, "t", Note(START))
        rig.supervisor.look_again()

        await asyncio.wait_for(rig.task, 20)
