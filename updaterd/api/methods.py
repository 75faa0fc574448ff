# SPDX-License-Identifier: Apache-2.0
"""What the methods of the interface do.

Reading is reading the status document. What changes something writes a wish into the
journal and wakes the daemon, whose worker does it: this process starts none but for
Check, which installs nothing.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import field
from pathlib import Path
from typing import Any

from updaterd import __version__, status
from updaterd.api import interface, wishes
from updaterd.api.callers import Caller, Polkit, may
from updaterd.api.looks import Looks
from updaterd.api.product import shown
from updaterd.api.wire import SERVICE, Call, CallError, denied, failed
from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product, Settings
from updaterd.errors import UpdaterError
from updaterd.store.schema import open_for_reading
from updaterd.system import inhibitions

_LOOK_EVERY_S = 0.5
_LOOKS_A_MINUTE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the methods work on.

    Attributes:
        load: reads the configuration, anew for each call.
        now: Unix seconds.
        polkit: whether polkit lets a caller change a product.
        arguments: options that lead a worker to the same settings.
        looks: has products looked at.
    """

    load: Callable[[], Settings]
    now: Callable[[], float]
    polkit: Polkit
    arguments: Sequence[str] = ()
    looks: Looks = field(default_factory=Looks)


class Connection:
    """One client, from its first call to the end of its connection.

    Args:
        world: what its calls are about.
        caller: who it is.
        inhibitors: the wishes to wait of all clients.
    """

    def __init__(self, world: World, caller: Caller, inhibitors: "Inhibitors") -> None:
        self._world = world
        self._caller = caller
        self._inhibitors = inhibitors

    async def answers(self, call: Call) -> AsyncGenerator[Mapping[str, object]]:
        """Yield the answers to a call: one, or with `more` perhaps several.

        Raises:
            CallError: what is wrong with it.
            failed: the machine refused.
        """
        name, _, method = call.method.rpartition(".")
        if name == SERVICE:
            yield _of_service(method, call)
            return
        if name != interface.NAME:
            raise CallError(f"{SERVICE}.InterfaceNotFound", interface=name)
        if method not in _PARAMETERS:
            raise CallError(f"{SERVICE}.MethodNotFound", method=call.method)
        interface.only(call.parameters, *_PARAMETERS[method])
        try:
            async for answer in self._of_updates(method, call):
                yield answer
        except UpdaterError as error:
            raise failed(error.code, str(error)) from error
        except (OSError, sqlite3.Error) as error:
            raise failed("machine_refused", str(error)) from error

    async def _of_updates(
        self, method: str, call: Call
    ) -> AsyncGenerator[Mapping[str, object]]:
        """Yield the answers to a call of our own interface.

        Raises:
            denied: the caller may not do that.
        """
        settings = self._world.load()
        if method == "List":
            yield {"products": sorted(settings.products)}
            return
        product = _product(settings, interface.text(call.parameters, "product"))
        if not await may(self._caller, method, product, self._world.polkit):
            raise denied()
        if method == "Monitor" and call.more:
            async for state in self._monitor(settings, product):
                yield state
        yield await self._act(method, settings, product, call.parameters)
        if is_endless(call):
            await asyncio.Event().wait()  # for as long as the client is there

    async def _act(  # noqa: PLR0911 - a case a method
        self,
        method: str,
        settings: Settings,
        product: Product,
        parameters: Mapping[str, Any],
    ) -> Mapping[str, object]:
        """Do what a method says; return its answer.

        Raises:
            CallError: it cannot be done.
            TypeError: no such method: a defect.
        """
        now = self._world.now()
        match method:
            case "Status" | "Monitor":
                return {"status": _shown(settings, product, now)}
            case "Check":
                return await self._world.looks.look(product.name, self._world.arguments)
            case "Update":
                wishes.write(settings, product, next_attempt_at=now)
                return {}
            case "Apply":
                return wishes.apply(settings, product, now)
            case "Postpone":
                return wishes.postpone(
                    settings, product, interface.moment(parameters, "until"), now
                )
            case "Hold":
                wishes.hold(settings, product, parameters, now)
                return {}
            case "Unhold":
                wishes.write(
                    settings,
                    product,
                    hold_until=None,
                    hold_reason="",
                    hold_at="",
                    next_attempt_at=now,
                )
                return {}
            case "Inhibit":
                why = interface.text(parameters, "why")
                self._inhibitors.add(self, settings, product.name, why)
                return {}
            case _:
                raise TypeError(method)

    async def _monitor(
        self, settings: Settings, product: Product
    ) -> AsyncGenerator[Mapping[str, object]]:
        before = last_marks = None
        looks = 0
        while True:
            marks, looks = _marks(settings, product), looks + 1
            if marks != last_marks or looks % _LOOKS_A_MINUTE == 0:  # times pass, too
                last_marks = marks
                state = _shown(settings, product, self._world.now())
                if state != before:
                    before = state
                    yield {"status": state}
            await asyncio.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """Take back what lasts as long as the connection."""
        self._inhibitors.drop(self, self._world.now())


class Inhibitors:
    """Who asks that nothing is activated, of all clients; a lock for each product.

    Power cut: the locks are gone with the process.
    """

    def __init__(self) -> None:
        self._asking: dict[str, dict[Connection, Settings]] = {}
        self._locks: dict[str, ExitStack] = {}

    def add(
        self, client: Connection, settings: Settings, product: str, why: str
    ) -> None:
        """Have a product's release wait as long as the client is there.

        Raises:
            BusyError: another process of this kind has applications that ask.
        """
        if product not in self._locks:
            lock = ExitStack()
            state = Path(settings.directories.state)
            lock.enter_context(inhibitions.ask(state, product, why))
            self._locks[product] = lock
        self._asking.setdefault(product, {})[client] = settings

    def drop(self, client: Connection, now: float) -> None:
        """Take a client's wishes back; where it was the last, look again."""
        for product, clients in self._asking.items():
            settings = clients.pop(client, None)
            if settings is None or clients:
                continue
            self._locks.pop(product).close()
            try:
                wishes.write(settings, settings.products[product], next_attempt_at=now)
            except (UpdaterError, OSError, sqlite3.Error):
                continue  # the daemon looks again by itself, minutes later


_PARAMETERS = {
    "List": (),
    "Status": ("product",),
    "Monitor": ("product",),
    "Check": ("product",),
    "Update": ("product",),
    "Postpone": ("product", "until"),
    "Apply": ("product",),
    "Hold": ("product", "until", "reason"),
    "Unhold": ("product",),
    "Inhibit": ("product", "why"),
}


def is_endless(call: Call) -> bool:
    """Tell whether a call is answered as long as the client is there."""
    prefix = f"{interface.NAME}."
    return call.more and call.method in (f"{prefix}Monitor", f"{prefix}Inhibit")


def _of_service(method: str, call: Call) -> Mapping[str, object]:
    """Answer a question about the service itself.

    Raises:
        CallError: there is no such interface, or method.
        invalid: a parameter is wrong.
    """
    if method == "GetInfo":
        return {
            "vendor": "updaterd",
            "product": "updaterd",
            "version": __version__,
            "url": "https://updaterd.example.org/",
            "interfaces": [SERVICE, interface.NAME],
        }
    if method == "GetInterfaceDescription":
        name = interface.text(call.parameters, "interface")
        known = {
            SERVICE: interface.SERVICE_DESCRIPTION,
            interface.NAME: interface.DESCRIPTION,
        }
        if name not in known:
            raise CallError(f"{SERVICE}.InterfaceNotFound", interface=name)
        return {"description": known[name]}
    raise CallError(f"{SERVICE}.MethodNotFound", method=call.method)


def _product(settings: Settings, name: str) -> Product:
    """Return a configured product.

    Raises:
        CallError: there is none by that name.
    """
    product = settings.products.get(name)
    if product is None:
        raise CallError(f"{interface.NAME}.NoSuchProduct", product=name)
    return product


def _shown(settings: Settings, product: Product, now: float) -> Mapping[str, object]:
    """Return how a product stands.

    Raises:
        StateError: the database cannot be read.
        sqlite3.Error: as above.
    """
    connection = open_for_reading(Path(settings.directories.state) / "state.db")
    try:
        document = status.collect(connection, settings, daemon=None, now=now)
    finally:
        if connection is not None:
            connection.close()
    return next(shown(p) for p in document["products"] if p["name"] == product.name)


def _marks(settings: Settings, product: Product) -> tuple[object, ...]:
    """Return what is otherwise when a product may stand otherwise: three files' times.

    For a client that follows a product for days: opening the database each time costs
    a hundred times as much.
    """
    state = Path(settings.directories.state)
    progress = Path(settings.directories.runtime) / f"progress-{product.name}.json"
    marks: list[object] = []
    for path in (state / "state.db", state / "state.db-wal", progress):
        try:
            entry = path.stat()
        except OSError:
            marks.append(None)
        else:
            marks.append((entry.st_mtime_ns, entry.st_size, entry.st_ino))
    return tuple(marks)
