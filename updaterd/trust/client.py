# SPDX-License-Identifier: Apache-2.0
"""What the repository says, verified: `refresh()` gives a `View` or a typed error.

TUF specification 1.0.34 section 5 is python-tuf's work; here is what it leaves open:
pushed metadata, a stale mirror, which repositories are not to be trusted at all.
`store` has the cache and its lock, `clock` the time, `view` what is asked of the
outcome.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Timestamp

from updaterd import durable
from updaterd.core import layout, words
from updaterd.core.words import Speakers, Word
from updaterd.errors import BrokenError, UpdaterError
from updaterd.net import Fetcher
from updaterd.trust.cache import Carrier, Store
from updaterd.trust.clock import Clock, Notice, ahead, moment
from updaterd.trust.failures import explain
from updaterd.trust.lineage import lineage
from updaterd.trust.roles import Role, read_roles
from updaterd.trust.updater import LIMITS, Source
from updaterd.trust.view import Lookup, View

__all__ = ["Carrier", "Notice", "Pushed", "TrustClient", "View"]

PROBE_EVERY = timedelta(days=1)
"""How long pushed metadata may be taken without asking for a newer root."""
PROFILE = "x-updaterd-profile"
ROOT_VERSION = "x-updaterd-root"


class Pushed(Protocol):
    """Metadata that came with an event: decompressed, and not verified."""

    @property
    def timestamp(self) -> bytes | None:
        """Return `timestamp.json`."""

    @property
    def snapshot(self) -> bytes | None:
        """Return the snapshot that the timestamp names."""


class TrustClient:
    """The machine's side of the repository.

    Args:
        cache: directory for verified metadata, 0700; may be deleted at any time.
        bootstrap: bytes of the root this machine was given.
        repository: address of the directory that holds `metadata/`.
        fetcher: asks the network.
        demo: accept a repository whose keys protect nothing.
        carrier: who has manifests on this machine, or makes them of less.
    """

    def __init__(  # noqa: PLR0913 - what it reads, and through what
        self,
        *,
        cache: Path,
        bootstrap: bytes,
        repository: str,
        fetcher: Fetcher,
        demo: bool = False,
        carrier: Carrier | None = None,
    ) -> None:
        self._cache = cache
        self._bootstrap = bootstrap
        self._base = repository.rstrip("/") + "/"
        self._fetcher = fetcher
        self._demo = demo
        self._store = Store(cache, self._base, fetcher, carrier)
        self._heard: tuple[Word, ...] = ()

    def roles(self) -> tuple[Role, ...]:
        """Return what the cache holds, verified when it was written."""
        return read_roles(self._cache)

    def refresh(
        self,
        *,
        now: datetime | None,
        pushed: Pushed | None = None,
        heard: Sequence[Word] = (),
    ) -> View:
        """Return the repository as it is now.

        Args:
            now: the machine's clock; None: python-tuf reads it itself.
            pushed: from an event; used where it verifies and the repository itself
                has nothing newer, forgotten where not: it saves requests, and never
                lowers what the repository says.
            heard: what timestamps said before (the journal's): a clock before the
                time that one of them was signed is not believed, as long as the
                keys that signed it may sign timestamps.

        Raises:
            TransientError: unreachable, incomplete, expired, forged or stale;
                nothing was accepted, and a later attempt may succeed.
            BrokenError: the bootstrap root or the cache cannot be used, or the
                repository is a demonstration and `demo` was not given.

        Power cut: the cache holds verified files, old or new, each of them whole.
        """
        with self._store.locked():
            check_bootstrap(self._bootstrap, demo=self._demo)
            for path in self._cache.glob(".*.new"):  # of a power cut
                path.unlink(missing_ok=True)
            self._heard = tuple(heard)
            warnings: list[Notice] = []
            engine = self._pushed_refresh(pushed, now) if pushed else None
            if engine is None:
                engine = self._full_refresh(now, warnings)
            _check_profile(engine.root, demo=self._demo)
            clock = self._clock(now, engine.speakers()[Timestamp.type])
            warnings[:0] = clock.warnings
            warnings += ahead(engine.timestamp, clock.time)
            return View(
                engine=engine,
                store=self._store,
                warnings=tuple(warnings),
                lineage=lineage(self._cache, self._bootstrap, engine.root.version),
            )

    def _full_refresh(self, now: datetime | None, warnings: list[Notice]) -> Lookup:
        source = Source(self._fetcher, self._url)
        try:
            engine = self._run(source, now)
        except exceptions.BadVersionNumberError as error:
            if source.name != layout.TIMESTAMP:
                raise explain(error, name=source.name) from error
            # A mirror behind what we know: what we know still stands, so go on
            # with it instead of letting one stale edge stop updates.
            stale = explain(error, name=source.name)
            files = {layout.TIMESTAMP: self._cached(layout.TIMESTAMP)}
            source = Source(self._fetcher, self._url, files=files, probe=False)
            try:
                engine = self._run(source, now)
            except exceptions.RepositoryError:
                raise stale from error
            except (exceptions.DownloadError, OSError) as second:
                raise explain(second, name=source.name) from second
            warnings.append(Notice(code="stale_mirror", text=str(stale)))
        except Exception as error:  # python-tuf's own errors have no common root
            raise explain(error, name=source.name) from error
        if source.probed:
            self._note_probe(engine.root.version, now)
        return engine

    def _pushed_refresh(self, pushed: Pushed, now: datetime | None) -> Lookup | None:
        # the outcome with pushed files; None: go the long way
        if pushed.timestamp is None or len(pushed.timestamp) > (
            LIMITS.timestamp_max_length
        ):
            return None
        try:
            timestamp = Metadata[Timestamp].from_bytes(pushed.timestamp).signed
            root = timestamp.unrecognized_fields.get(ROOT_VERSION)
            probe = not self._probed_lately(root, now)
            known = _version(self._cached(layout.TIMESTAMP))
            if timestamp.version <= known:
                return None  # a replay, or nothing new: ask
            url = self._url + layout.TIMESTAMP
            newest = self._fetcher.get(url, limit=LIMITS.timestamp_max_length)
            if _version(newest) > timestamp.version:
                return None  # superseded since it was announced
            files = {layout.TIMESTAMP: pushed.timestamp}
            if pushed.snapshot is not None:
                files[layout.SNAPSHOT] = pushed.snapshot
            source = Source(self._fetcher, self._url, files=files, probe=probe)
            engine = self._run(source, now)
        except (exceptions.RepositoryError, exceptions.DownloadError, UpdaterError):
            return None
        except OSError as error:
            raise explain(error, name=layout.TIMESTAMP) from error
        except Exception:  # noqa: BLE001 # hostile bytes may fail anywhere in it
            return None
        if source.probed:
            self._note_probe(engine.root.version, now)
        return engine

    @property
    def _url(self) -> str:
        return f"{self._base}{layout.METADATA}/"

    def _run(self, source: Source, now: datetime | None) -> Lookup:
        engine = Lookup(
            self._cache,
            self._bootstrap,
            url=self._url,
            source=source,
            now=lambda speakers: self._clock(now, speakers).time,
        )
        engine.refresh()
        return engine

    def _clock(self, now: datetime | None, speakers: Speakers) -> Clock:
        counting = (
            word
            for word in self._heard
            if words.counts(word, speakers, root_version=word.root_version)
        )
        return Clock.judge(now, moment(words.passed(counting)), demo=self._demo)

    def _cached(self, name: str) -> bytes:
        try:
            return (self._cache / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _probed_lately(self, root: object, now: datetime | None) -> bool:
        """Tell whether the root that the publisher names is the one we asked for."""
        try:
            note = json.loads((self._cache / "probe").read_bytes())
            at = datetime.fromtimestamp(note["at"], UTC)
            newest = note["root"]
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        return (
            now is not None
            and root == newest
            and timedelta(0) <= now - at <= PROBE_EVERY
        )

    def _note_probe(self, root: int, now: datetime | None) -> None:
        if now is None:
            return
        note = json.dumps({"root": root, "at": now.timestamp()}).encode()
        # lost in a power cut: one request more, so it is not worth an fsync
        durable.publish_file(self._cache / "probe", note, mode=0o600)


def check_bootstrap(raw: bytes, *, demo: bool) -> None:
    """Check that bytes are a root that a machine can begin with.

    Raises:
        BrokenError: they are not; or, without `demo`, a demonstration's.
    """
    _check_profile(_bootstrap_root(raw), demo=demo)


def _check_profile(root: Root, *, demo: bool) -> None:
    if root.unrecognized_fields.get(PROFILE) == "demo" and not demo:
        raise BrokenError(
            "the repository was made with the demo profile",
            means="its keys protect nothing, so nothing from it is installed",
            do="publish from a repository of the prod profile, or run updaterd with "
            "--demo to try it out",
            code="demo_repository",
        )


def _version(raw: bytes) -> int:
    """Return the version of a cached file that was verified when written."""
    try:
        return int(json.loads(raw)["signed"]["version"])
    except (ValueError, KeyError, TypeError):
        return 0


def _bootstrap_root(raw: bytes) -> Root:
    try:
        root = Metadata[Root].from_bytes(raw)
        root.verify_delegate(Root.type, root)  # TypeError: not a root at all
    except Exception as error:
        raise BrokenError(
            f"the bootstrap root cannot be used: {error}",
            means="without it nothing can be verified, so nothing is installed",
            do="put the repository's root.json where `[trust] root` points to",
            code="bad_root",
        ) from error
    return root.signed
