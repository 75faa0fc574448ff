# SPDX-License-Identifier: Apache-2.0
"""The supervisor: schedule, workers, and the status that it publishes.

    subscription   feed -> inbox, see subscription.py
    schedule       what is due, see core/due.py
    work           one worker at a time; the journal says how it went
    watchdog       tells systemd that the schedule still turns

Everything that must survive is in SQLite: a killed daemon has nothing to undo.
"""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

from updaterd import __version__, durable, log, self_update, status
from updaterd.clocks import Clocks
from updaterd.core.backoff import Backoff
from updaterd.core.due import Agenda, Due, Waiting, due, settled
from updaterd.core.lifecycle import TOUCHED
from updaterd.core.settings import ITSELF, Settings
from updaterd.daemon import outcomes
from updaterd.daemon.folders import Folders, identity
from updaterd.daemon.mail import Mail
from updaterd.daemon.network import Suspends
from updaterd.daemon.pushed import hand_over
from updaterd.daemon.subscription import Subscription
from updaterd.daemon.troubles import Looks, trouble
from updaterd.daemon.workers import Ended, Workers
from updaterd.store.inbox import Inbox, Pending
from updaterd.store.journal import Journal, ProductFacts
from updaterd.system.notify import Notifier

_LONGEST_SLEEP_S = 3600.0  # notices a suspend or a changed clock within the hour
_STOP_GRACE_S = 15.0
_STOP_PATIENCE_S = 40.0  # with the grace less than the unit's TimeoutStopSec
_RESTARTS_S = 2 * 120.0  # onto the new release and back; as install/restart_systemd
_BUSY_RETRY_S = 60.0
_CRASH_RETRY = Backoff(base=10.0, cap=3600.0)


class Supervisor:
    """Keeps one machine's products up to date until it is told to stop.

    Args:
        settings: the configuration.
        connection: `state.db`, from `store.schema.open_state`.
        workers: how worker processes are made.
        clocks: time and chance.
        notifier: systemd's ear.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connection: sqlite3.Connection,
        workers: Workers,
        clocks: Clocks,
        notifier: Notifier,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._workers = workers
        self._clocks = clocks
        self._notifier = notifier
        self._log = log.get()
        self._journal = Journal(connection)
        self._inbox = Inbox(
            connection,
            feed=settings.feed.url,
            products={name: p.channel for name, p in settings.products.items()},
            cap=max(1000, 4 * len(settings.products)),
            steady=clocks.steady,
        )
        self._subscription = Subscription(
            settings,
            inbox=self._inbox,
            clocks=clocks,
            on_change=self._turn,
            on_return=self._reconcile,
        )
        self._mail = Mail(connection, workers=workers, clocks=clocks)
        self._agendas = {name: Agenda() for name in settings.products}
        self._wake = asyncio.Event()
        self._stopping = False
        self._patient = False
        self._hurry = asyncio.Event()
        self._state_path = Path(settings.directories.state) / "state.db"
        self._state_file = identity(self._state_path)
        self.state_lost = False
        self._folders = Folders(settings.directories)
        self._refused: status.Document | None = None
        self._cage: status.Document | None = None
        self._looks = Looks()
        self._suspends = Suspends()
        self._unpublished = False
        self._turns = 0
        self._started_at = clocks.now()

    async def run(self) -> None:
        """Run until `stop` is called; a worker at work may finish.

        Raises:
            ExceptionGroup: a defect; systemd restarts the daemon, nothing is lost.
        """
        self._notifier.ready()
        # A hand-over is progress: the next sign of life may be a period's third away.
        self._notifier.watchdog()
        self._log.info(
            "daemon_started",
            version=__version__,
            products=sorted(self._settings.products),
        )
        async with asyncio.TaskGroup() as group:
            side = [
                group.create_task(self._subscription.run(), name="subscription"),
                group.create_task(self._watchdog(), name="watchdog"),
            ]
            if self._settings.reports.send:
                side.append(group.create_task(self._mail.run(), name="reports"))
            await self._schedule(group)
            side[0].cancel()
            await self._end_workers()
            outcomes.excuse(self._journal, now=self._clocks.now())
            for task in side[1:]:
                task.cancel()
        self._log.info("daemon_stopped")

    def stop(self, *, patient: bool = False) -> None:
        """Ask `run` to return.

        Args:
            patient: not before a release that is on trial has passed or failed, which
                takes as long as its own checks may; a later impatient call wins.
        """
        self._stopping = True
        self._patient = patient
        if not patient:
            self._hurry.set()
        self._turn()

    async def _end_workers(self) -> None:
        """Let the worker at work end, as patiently as was asked for."""
        if self._patient:
            ending = asyncio.create_task(
                self._workers.stop(
                    grace_s=_STOP_GRACE_S,
                    patience_s=_RESTARTS_S + self._settings.longest_trial_s,
                )
            )
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if ending.done():
                return await ending
            ending.cancel()
        return await self._workers.stop(
            grace_s=0.0 if self._patient else _STOP_GRACE_S,
            patience_s=_STOP_PATIENCE_S,
        )

    def look_again(self) -> None:
        """Connect now, and read the journal again.

        It starts no worker by itself: `updaterd check` must not install anything.
        """
        self._subscription.connect_now()
        self._turn()

    def know_cage(self, cage: status.Document) -> None:
        """Publish which layers confine the bundle opener."""
        self._cage = cage
        self._turn()

    def refuse(self, refused: status.Document) -> None:
        """Go on as before, and tell why newer settings were not taken."""
        self._refused = refused
        self._turn()

    def _turn(self) -> None:
        """Let the schedule turn: something may be due, and status has changed."""
        self._wake.set()

    def _reconcile(self) -> None:
        """Look at every product now.

        A fleet whose feed is back does not ask at once: its reconnections were
        spread over time already.
        """
        now = self._clocks.now()
        for name, agenda in self._agendas.items():
            self._agendas[name] = replace(agenda, poll_at=min(agenda.poll_at, now))

    # ---- the schedule -----------------------------------------------------------

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        work: asyncio.Task[None] | None = None
        while not self._stopping:
            self._turns += 1
            self._wake.clear()
            if self._suspends.passed():
                self._subscription.connect_now()
            if identity(self._state_path) != self._state_file:
                # Workers would write into the new file and this process into the old.
                self.state_lost = True
                self.stop(patient=True)
                break
            if self._folders.needs_new_start(connected=self._notifier.connected):
                self.stop(patient=True)
                break
            now = self._clocks.now()
            pause_s = _LONGEST_SLEEP_S
            if work is None or work.done():
                if self._is_replaced():
                    break
                first, name = min(
                    ((self._due(name, now), name) for name in self._agendas),
                    key=lambda item: item[0].at,
                    default=(None, ""),
                )
                if first is not None and first.at <= now:
                    work = group.create_task(self._work(name, first.trigger))
                elif first is not None:
                    pause_s = min(first.at - now, _LONGEST_SLEEP_S)
            self._publish()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    def _due(self, name: str, now: float) -> Due:
        waiting = self._inbox.waiting(name)
        poll_s = self._settings.feed.fallback_poll_s
        agenda = settled(self._agendas[name], now=now, poll_s=poll_s)
        self._agendas[name] = agenda
        return due(
            agenda,
            now=now,
            retry_at=self._journal.next_attempt_at(name),
            waiting=None
            if waiting is None
            else Waiting(
                received_at=waiting.received_at,
                spread_s=waiting.spread_s,
                urgent=waiting.urgency == "critical",
            ),
            poll_s=poll_s,
        )

    # ---- the work ---------------------------------------------------------------

    async def _work(self, product: str, trigger: str) -> None:
        waiting = self._inbox.waiting(product)
        # A poll asks the repository alone: what came along may be hours old.
        pushed = None
        if trigger == "event" and waiting is not None and waiting.pushed is not None:
            pushed = hand_over(waiting.pushed, Path(self._settings.directories.runtime))
        before = self._journal.product(product), self._journal.installed(product)
        over = outcomes.ended(self._journal, product)
        self._log.info("worker_started", product=product, trigger=trigger)
        if trigger == "poll":
            self._subscription.connect_now()
        ended = await self._workers.update(product, trigger=trigger, pushed=pushed)
        self._mail.look()
        if self._stopping and ended.crashed:
            return  # we ended it; the next start goes on from the journal
        try:
            looked = self._settle(product, ended, before[0], waiting)
            outcomes.tell(self._journal, product, over)
            self._looks.note(self._journal, product, now=self._clocks.now())
            useful = self._journal.installed(product) != before[1]
        except sqlite3.OperationalError as error:
            # Locked or full. The events still wait, so it comes again.
            self._log.error(
                "journal_refused",
                product=product,
                **trouble("journal_refused", str(error)),
            )
            looked = useful = False
        now, poll_s = self._clocks.now(), self._settings.feed.fallback_poll_s
        if not looked:
            poll_s = min(poll_s, _BUSY_RETRY_S)
        self._agendas[product] = Agenda(
            poll_at=now + poll_s * (0.9 + 0.2 * self._clocks.draw()),
            share=self._clocks.draw(),
            throttle=self._agendas[product].throttle.after(now=now, useful=useful),
        )
        self._turn()

    def _is_replaced(self) -> bool:
        """Make way, if updaterd itself is another release by now, whoever did it.

        Not for one that is on trial: it may be left again.
        """
        if not self_update.waits():
            return False
        open_ = self._journal.open_deployment(ITSELF)
        if open_ is not None and open_.state in TOUCHED:
            return False
        self._log.info("self_replaced")
        self.stop()  # systemd starts the release that is installed now
        return True

    def _settle(
        self,
        product: str,
        ended: Ended,
        before: ProductFacts,
        waiting: Pending | None,
    ) -> bool:
        """Take note of how a worker ended; tell whether it has looked.

        One that found another at work has not: the events wait on.

        Raises:
            sqlite3.Error: the journal cannot be written.

        Power cut: the events wait on, and are looked at once more.
        """
        facts = self._journal.product(product)
        # One that could speak has left a decision, and a plan if it came to an error.
        left_word = facts.checked_at != before.checked_at and facts.next_attempt_at
        if ended.crashed and not left_word:
            self._note_crash(product, ended, self._clocks.now(), waiting)
            facts = self._journal.product(product)
        looked = facts.checked_at != before.checked_at
        if waiting is not None and facts.looked_up_to < waiting.up_to_row:
            looked = False  # who did, beside us, had begun before the event came
        if waiting is not None and looked:
            self._inbox.done(product, waiting.up_to_row)
        self._log.info(
            "worker_ended",
            product=product,
            exit_code=ended.code,
            decision=facts.decision,
            reason=facts.decision_reason,
        )
        return looked

    def _note_crash(
        self, product: str, ended: Ended, now: float, waiting: Pending | None
    ) -> None:
        """Schedule a retry for a worker that died without leaving word."""
        failures = self._journal.failures(product) + 1
        delay = _CRASH_RETRY.delay(failures, draw=self._clocks.draw())
        open_ = self._journal.open_deployment(product)
        if failures == 1 and open_ is not None and open_.state in TOUCHED:
            delay = 0.0  # an unproven release runs, and nobody watches it
        self._journal.note_failure(
            product,
            code="out_of_memory" if ended.starved else "worker_died",
            reason=f"the worker ended early: {ended}",
            next_attempt_at=now + delay,
            now=now,
            looked_up_to=waiting.up_to_row if waiting else 0,
        )

    # ---- what others see --------------------------------------------------------

    def _publish(self) -> None:
        document = status.collect(
            self._connection,
            self._settings,
            daemon=status.daemon_section(
                self._started_at,
                self._subscription.state,
                self._refused,
                self._cage,
            ),
            now=self._clocks.now(),
        )
        path = Path(self._settings.directories.runtime) / "status.json"
        try:
            durable.publish_file(path, status.encode(document), mode=0o644)
        except OSError as error:
            if not self._unpublished:
                self._log.warning(
                    "status_unwritable",
                    path=str(path),
                    **trouble("not_writable", str(error)),
                )
            self._unpublished = True
        else:
            self._unpublished = False
        self._notifier.status(status.headline(document))

    async def _watchdog(self) -> None:
        """Feed systemd's watchdog with turns of the schedule, not a bare timer."""
        period_s = self._notifier.watchdog_s
        if period_s is None:
            return
        while True:
            turns = self._turns
            self._turn()
            await asyncio.sleep(period_s / 3)
            if self._turns > turns or self._stopping:  # its end is bounded
                self._notifier.watchdog()
