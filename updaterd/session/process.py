# SPDX-License-Identifier: Apache-2.0
"""The process in a person's session: from Monitor to notices, and choices back."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jeepney.io.asyncio import open_dbus_router

from updaterd import durable
from updaterd.api.client import (
    PLACE,
    Client,
    RefusedError,
    UnreachableError,
    places,
    subjects,
)
from updaterd.session import news
from updaterd.session.desktop import Desktop
from updaterd.session.notices import Notice, Notices, is_about

_AGAIN_S = 30.0
_LOOK_EVERY_S = 300.0  # for kits that came since
_MOST_FOLLOWED = 64  # a thread each
_TONIGHT = 22
_MOST_REMEMBERED = 200


class Session:
    """Tells a person what the products on this machine ask of him.

    Args:
        socket: where updaterd answers applications; None: in each of the usual places
            a daemon may do that.
        memory: file of what was shown before.
        now: Unix seconds.
    """

    def __init__(
        self,
        socket: Path | None,
        memory: Path,
        *,
        now: Callable[[], float],
    ) -> None:
        self._socket = socket
        self._memory = memory
        self._now = now
        self._notices = Notices(_remembered(memory))
        self._requested: list[Notice] = []
        self._changed = asyncio.Event()
        self._places: dict[str, Path] = {}

    async def run(self) -> None:
        """Tell, until cancelled.

        Raises:
            UnreachableError: updaterd does not answer.
            OSError: there is no session bus.
        """
        # the default has as many threads as there are processors, and a few
        asyncio.get_running_loop().set_default_executor(
            ThreadPoolExecutor(_MOST_FOLLOWED + 4)
        )
        products = await asyncio.to_thread(self._unfollowed)
        async with open_dbus_router("SESSION") as router, asyncio.TaskGroup() as group:
            desktop = Desktop(router, self._choose)
            group.create_task(desktop.listen())
            group.create_task(self._discover(group))
            for name in products:
                group.create_task(self._follow(name))
            while True:
                await self._tell(desktop)
                self._changed.clear()
                until = self._notices.next_at(self._now())
                pause_s = None if until is None else max(0.0, until - self._now())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause_s)

    async def _discover(self, group: asyncio.TaskGroup) -> None:
        """Follow products that come later, with a kit."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with suppress(UnreachableError, RefusedError):
                for name in await asyncio.to_thread(self._unfollowed):
                    group.create_task(self._follow(name))

    def _unfollowed(self) -> list[str]:
        """Return products that are not followed yet; note who answers for each.

        Raises:
            UnreachableError: nobody answers.
            RefusedError: the only one who answers refuses.
        """
        troubles: list[UnreachableError | RefusedError] = []
        offers: dict[Path, set[str]] = {}
        usual = [place for place in places() if place.exists()] or [PLACE]
        for place in [self._socket] if self._socket else usual:
            try:
                listed = self._call(place, "List").get("products")
                names = listed if isinstance(listed, list) else []
                named = {name for name in names if isinstance(name, str)}
                heard = None if self._socket else subjects(place)
                # nobody takes threads for what he invents
                offers[place] = named if heard is None else named & heard
            except (UnreachableError, RefusedError) as trouble:
                troubles.append(trouble)
        if not offers:
            raise troubles[0]
        fresh = sorted(set().union(*offers.values()) - self._places.keys())
        fresh = fresh[: _MOST_FOLLOWED - len(self._places)]
        for name in fresh:
            answering = [place for place in offers if name in offers[place]]
            first = (place for place in places(name) if place in answering)
            self._places[name] = next(first, answering[0])
        return fresh

    async def _tell(self, desktop: Desktop) -> None:
        """Show what is new, take back what is over; remember it."""
        for ident, key in desktop.open.items():
            if self._notices.is_over(key):
                with suppress(OSError, TimeoutError):
                    await desktop.close(ident)
        fresh = self._notices.new(self._now())
        if fresh:
            self._remember()  # before it is shown: rather never than twice
        requested, self._requested = self._requested, []
        for notice in (*fresh, *requested):
            with suppress(OSError, TimeoutError):
                await desktop.show(notice)

    def _remember(self) -> None:
        """Keep what was shown.

        Power cut: it is shown once more, or this was kept.
        """
        keys = sorted(self._notices.shown)[-_MOST_REMEMBERED:]
        with suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            durable.write_file(self._memory, json.dumps(keys).encode())

    async def _follow(self, product: str) -> None:
        """Learn each change of a product, however often the connection ends."""
        loop = asyncio.get_running_loop()

        def learn(state: Mapping[str, Any], text: str) -> None:
            self._notices.learn(state, text)
            self._changed.set()

        def listen(client: Client) -> None:
            with suppress(UnreachableError, RefusedError):
                for answer in client.follow("Monitor", product=product):
                    state = answer.get("status")
                    if is_about(state, product):
                        text = news.of(state, os.environ)
                        loop.call_soon_threadsafe(learn, state, text)

        while True:
            try:
                client = Client(self._places[product], patience_s=None)
            except UnreachableError:
                await asyncio.sleep(_AGAIN_S)
                continue
            try:
                await asyncio.to_thread(listen, client)
            finally:
                client.shut()
            await asyncio.sleep(_AGAIN_S)

    def _choose(self, key: tuple[str, str, str], action: str) -> None:
        """Do what a person chose."""
        product, _, _ = key
        if action == "news" and (notice := self._notices.news(product)) is not None:
            self._requested.append(notice)
            self._changed.set()
        elif action == "apply":
            asyncio.get_running_loop().run_in_executor(
                None, self._try, "Apply", product
            )
        elif action == "tonight":
            until = int(tonight(datetime.fromtimestamp(self._now()).astimezone()))
            asyncio.get_running_loop().run_in_executor(
                None, self._try, "Postpone", product, until
            )

    def _try(self, method: str, product: str, until: int | None = None) -> None:
        more = {} if until is None else {"until": until}
        with suppress(UnreachableError, RefusedError):
            self._call(self._places[product], method, product=product, **more)

    def _call(self, place: Path, method: str, **parameters: object) -> dict[str, Any]:
        client = Client(place)
        try:
            return client.call(method, **parameters)
        finally:
            client.close()


def tonight(now: datetime) -> float:
    """Return the next ten in the evening, in Unix seconds."""
    evening = now.replace(hour=_TONIGHT, minute=0, second=0, microsecond=0)
    if evening <= now:
        evening += timedelta(days=1)
    return evening.timestamp()


def _remembered(path: Path) -> list[tuple[str, str, str]]:
    try:
        return [(str(a), str(b), str(c)) for a, b, c in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
