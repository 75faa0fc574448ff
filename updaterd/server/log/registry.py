# SPDX-License-Identifier: Apache-2.0
"""Opens the event log that an address names: the kinds of logs, by URL scheme.

A further kind fulfils `contract.EventLog`, stands in `_KINDS`, and runs the tests of
`tests/server/test_log_contract.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from updaterd.errors import BrokenError
from updaterd.log import redact
from updaterd.server.log.contract import EventLog, Retention
from updaterd.server.log.sqlite import SqliteLog

_EMBEDDED = "feed.db"


class _Opener(Protocol):
    """Opens a log of one kind."""

    def __call__(
        self, url: str, *, retention: Retention, now: Callable[[], float]
    ) -> EventLog:
        """Return the log at an address; nothing is read or connected to yet.

        Raises:
            ValueError: no address of this kind.
        """
        ...


def _sqlite(url: str, *, retention: Retention, now: Callable[[], float]) -> EventLog:
    parts = urlsplit(url)
    if parts.netloc or not parts.path:
        raise ValueError("its path is not absolute")
    return SqliteLog(Path(parts.path), retention=retention, now=now)


@contextmanager
def _extra(database: str, name: str) -> Iterator[None]:
    """Say what to install where the library of a kind is missing.

    Raises:
        BrokenError: it is.
    """
    try:
        yield
    except ImportError as error:
        raise BrokenError(
            f"an event log in {database} needs a package that is missing: {error.name}",
            do=f"pip install 'updaterd[{name}]'",
            code="extra_missing",
        ) from error


def _redis(url: str, *, retention: Retention, now: Callable[[], float]) -> EventLog:
    with _extra("Redis", "server"):
        from updaterd.server.log.redis import RedisLog  # noqa: PLC0415  7 MiB
    return RedisLog(url, retention=retention, now=now)


def _postgres(url: str, *, retention: Retention, now: Callable[[], float]) -> EventLog:
    with _extra("PostgreSQL", "postgres"):
        from updaterd.server.log.postgres import (  # noqa: PLC0415  not for all
            PostgresLog,
        )
    return PostgresLog(url, retention=retention, now=now)


def _nats(url: str, *, retention: Retention, now: Callable[[], float]) -> EventLog:
    with _extra("NATS", "nats"):
        from updaterd.server.log.nats import NatsLog  # noqa: PLC0415  not for all
    return NatsLog(url, retention=retention, now=now)


_KINDS: Mapping[str, tuple[_Opener, str]] = {
    "sqlite": (_sqlite, "sqlite:///ABSOLUTE/PATH"),
    "redis": (_redis, "redis://HOST:PORT/DB"),
    "rediss": (_redis, "rediss://HOST:PORT/DB"),
    "postgresql": (_postgres, "postgresql://USER@HOST/DATABASE"),
    "postgres": (_postgres, "postgresql://USER@HOST/DATABASE"),
    "nats": (_nats, "nats://HOST:PORT"),
    "tls": (_nats, "tls://HOST:PORT"),
    "unix": (_redis, "unix:///ABSOLUTE/PATH"),
}
"""What opens a log, and how its address is written."""


def open_log(
    url: str, *, state: Path, retention: Retention, now: Callable[[], float]
) -> EventLog:
    """Return the log that an address names.

    Args:
        url: its address; empty for the embedded one in the state directory.
        state: the server's own directory.
        retention: what the log keeps.
        now: seconds since 1970.

    Raises:
        BrokenError: an unknown kind of address, or one that cannot be read.
    """
    if not url:
        return SqliteLog(state / _EMBEDDED, retention=retention, now=now)
    kind = _KINDS.get(url.partition(":")[0].lower())
    if kind is None:
        raise BrokenError(
            f"no event log is kept at {redact(url)!r:.200}",
            do="use "
            + " or ".join(dict.fromkeys(shape for _, shape in _KINDS.values())),
            code="log_url",
        )
    opener, shape = kind
    try:
        return opener(url, retention=retention, now=now)
    except ValueError as error:
        raise BrokenError(
            f"the address of the event log cannot be read: {error}",
            do=f"write it as {shape}, and what is special in a password as %XX",
            code="log_url",
        ) from error
