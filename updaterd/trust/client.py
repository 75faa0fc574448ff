"""What the repository says, verified: `refresh()` gives a `View` or a typed error.

TUF specification 1.0.34 section 5 is python-tuf's work; here is what it leaves open:
one lock for the cache, pushed metadata, a stale mirror, the clock, and that every
target says itself what it is (product, channel, version, platform) and is believed
only where that is what was asked for.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Timestamp

from updaterd import durable, locks
from updaterd.core import channel as channels
from updaterd.core import manifest as manifests
from updaterd.core.channel import ChannelPointer
from updaterd.core.manifest import Manifest
from updaterd.core.names import check_name, check_version
from updaterd.core.wire import Fields
from updaterd.errors import BrokenError, MalformedError, RejectedError, TransientError
from updaterd.net import Fetcher, NotFoundError
from updaterd.trust.engine import LIMITS, Engine, Source
from updaterd.trust.failures import explain
from updaterd.trust.roles import Role, read_roles

BUILT = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time to this version of updaterd."""
CLOCK_SLACK = timedelta(days=1)
PROBE_EVERY = timedelta(days=1)
"""How long pushed metadata may be taken without asking for a newer root."""
PROFILE = "x-updaterd-profile"
ROOT_VERSION = "x-updaterd-root"
SIGNED_AT = "x-updaterd-signed"


class Pushed(Protocol):
    """Metadata that came with an event: decompressed, and not verified."""

    @property
    def timestamp(self) -> bytes | None:
        """Return `timestamp.json`."""

    @property
    def snapshot(self) -> bytes | None:
        """Return the snapshot that the timestamp names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell a person although the refresh succeeded."""

    code: str
    what: str


class TrustClient:
    """The machine's side of the repository.

    Args:
        cache: directory for verified metadata, 0700; may be deleted at any time.
        bootstrap: bytes of the root this machine was given.
        repository: address of the directory that holds `metadata/`.
        fetcher: asks the network.
        demo: accept a repository whose keys protect nothing.
    """

    def __init__(
        self,
        *,
        cache: Path,
        bootstrap: bytes,
        repository: str,
        fetcher: Fetcher,
        demo: bool = False,
    ) -> None:
        self._cache = cache
        self._bootstrap = bootstrap
        self._base = repository.rstrip("/") + "/"
        self._fetcher = fetcher
        self._demo = demo

    def roles(self) -> tuple[Role, ...]:
        """Return what the cache holds, verified when it was written."""
        return read_roles(self._cache)

    def refresh(
        self,
        *,
        now: datetime | None,
        pushed: Pushed | None = None,
        clock_floor: datetime | None = None,
    ) -> "View":
        """Return the repository as it is now.

        Args:
            now: the machine's clock; None: python-tuf reads it itself.
            pushed: from an event; used where it verifies, forgotten where not.
            clock_floor: the latest time known to have passed (the journal's last
                good time): a clock before it is not believed.

        Raises:
            TransientError: unreachable, incomplete, expired, forged or stale;
                nothing was accepted, and a later attempt may succeed.
            BrokenError: the bootstrap root or the cache cannot be used, or the
                repository is a demonstration and `demo` was not given.

        Power cut: the cache holds verified files, old or new, each of them whole.
        """
        with self.locked():
            self._check_profile(_bootstrap_root(self._bootstrap))
            for path in self._cache.glob(".*.new"):  # of a power cut
                path.unlink(missing_ok=True)
            clock = _Clock.judge(now, clock_floor, demo=self._demo)
            warnings = list(clock.warnings)
            engine = self._pushed_refresh(pushed, clock.time) if pushed else None
            if engine is None:
                engine = self._full_refresh(clock.time, warnings)
            self._check_profile(engine.root)
            warnings += _ahead(engine.timestamp, clock.time)
            return View(
                engine=engine,
                client=self,
                time=clock.time,
                warnings=tuple(warnings),
            )

    def _full_refresh(self, now: datetime | None, warnings: list[Notice]) -> "_Opened":
        source = Source(self._fetcher, self._url)
        try:
            engine = self._run(source, now)
        except exceptions.BadVersionNumberError as error:
            if source.name != "timestamp.json":
                raise explain(error, name=source.name) from error
            # A mirror behind what we know: what we know still stands, so go on
            # with it instead of letting one stale edge stop updates.
            stale = explain(error, name=source.name)
            given = {"timestamp.json": self._cached("timestamp.json")}
            source = Source(self._fetcher, self._url, given=given, probe=False)
            try:
                engine = self._run(source, now)
            except exceptions.RepositoryError:
                raise stale from error
            except (exceptions.DownloadError, OSError) as second:
                raise explain(second, name=source.name) from second
            warnings.append(Notice(code="stale_mirror", what=str(stale)))
        except Exception as error:  # python-tuf's own errors have no common root
            raise explain(error, name=source.name) from error
        if source.probed:
            self._note_probe(engine.root.version, now)
        return engine

    def _pushed_refresh(self, pushed: Pushed, now: datetime | None) -> "_Opened | None":
        # the outcome with pushed files; None: go the long way
        if pushed.timestamp is None or len(pushed.timestamp) > (
            LIMITS.timestamp_max_length
        ):
            return None
        given = {"timestamp.json": pushed.timestamp}
        if pushed.snapshot is not None:
            given["snapshot.json"] = pushed.snapshot
        try:
            said = Metadata[Timestamp].from_bytes(pushed.timestamp).signed
            root = said.unrecognized_fields.get(ROOT_VERSION)
            probe = not self._probed_lately(root, now)
            known = _version(self._cached("timestamp.json"))
            if said.version <= known:
                return None  # a replay, or nothing new: ask
            source = Source(self._fetcher, self._url, given=given, probe=probe)
            engine = self._run(source, now)
        except (exceptions.RepositoryError, exceptions.DownloadError):
            return None
        except OSError as error:
            raise explain(error, name="timestamp.json") from error
        except Exception:  # noqa: BLE001 # hostile bytes may fail anywhere in it
            return None
        if source.probed:
            self._note_probe(engine.root.version, now)
        return engine

    @property
    def _url(self) -> str:
        return self._base + "metadata/"

    def _run(self, source: Source, now: datetime | None) -> "_Opened":
        engine = _Opened(
            self._cache, self._bootstrap, url=self._url, source=source, now=now
        )
        engine.refresh()
        return engine

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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache: python-tuf is not made for two clients on one.

        Raises:
            TransientError: the disk is full.
            BrokenError: the cache cannot be used.
            explain: one of these.
        """
        try:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locks.hold(self._cache / "lock", what="trust", wait=True):
                yield
        except OSError as error:
            raise explain(error, name="the trust cache") from error

    def _check_profile(self, root: Root) -> None:
        if root.unrecognized_fields.get(PROFILE) == "demo" and not self._demo:
            raise BrokenError(
                "the repository was made with the demo profile",
                means="its keys protect nothing, so nothing from it is installed",
                do="publish from a repository of the prod profile, or run updaterd "
                "with --demo to play",
                code="demo_repository",
            )

    def fetch_target(self, target: TargetFile, *, limit: int) -> bytes:
        """Return the bytes of a verified target.

        Raises:
            TransientError: not there, or not the bytes that were signed.
            RejectedError: larger than any manifest may be.
            explain: one of these.
        """
        if target.length > limit:
            raise RejectedError(
                f"{target.path} is said to have {target.length} bytes, "
                f"the limit is {limit}",
                code="too_large",
            )
        folder, _, name = target.path.rpartition("/")
        digest = target.hashes.get("sha256")
        if digest is None:
            raise RejectedError(f"{target.path} has no sha256", code="malformed")
        kept = self._cache / "manifests" / digest
        try:
            data = kept.read_bytes()
            target.verify_length_and_hashes(data)
        except (OSError, exceptions.LengthOrHashMismatchError):
            pass
        else:
            return data
        url = f"{self._base}targets/{folder}/{digest}.{name}"
        deadline_s = self._fetcher.deadline_s + target.length / 16384
        try:
            data = self._fetcher.get(url, limit=target.length, deadline_s=deadline_s)
            target.verify_length_and_hashes(data)
        except NotFoundError as error:
            raise TransientError(
                f"the repository has no {target.path}",
                means="a mirror or cache may be behind",
                do="updaterd tries again by itself",
                code="metadata_missing",
            ) from error
        except exceptions.LengthOrHashMismatchError as error:
            raise explain(error, name=target.path) from error
        self._keep(kept, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        """Keep a manifest for the next attempt; only the few newest.

        Power cut: at worst it is fetched again; its hash is checked when read.
        """
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.publish_file(path, data, mode=0o600)
            aged = sorted(path.parent.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in aged[:-8]:
                old.unlink(missing_ok=True)
        except OSError:
            return  # a full disk costs a request, no more


class _Opened(Engine):
    """An engine whose lookups raise our errors."""

    def find(self, path: str) -> TargetFile | None:
        source = self._fetcher
        try:
            return self.get_targetinfo(path)
        except Exception as error:
            name = source.name if isinstance(source, Source) else path
            raise explain(error, name=name) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    time: datetime | None
    warnings: tuple[Notice, ...] = ()

    @classmethod
    def judge(
        cls, now: datetime | None, floor: datetime | None, *, demo: bool
    ) -> "_Clock":
        if now is None:
            return cls(time=None)
        bounds = [bound for bound in (floor, None if demo else BUILT) if bound]
        lowest = max(bounds, default=now)
        if now >= lowest:
            return cls(time=now)
        warnings: tuple[Notice, ...] = ()
        if lowest - now > CLOCK_SLACK:
            warnings = (_suspect(now, f"it was already {lowest:%Y-%m-%d %H:%M} UTC"),)
        return cls(time=lowest, warnings=warnings)


def _suspect(now: datetime, why: str) -> Notice:
    return Notice(
        code="clock_suspect",
        what=f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but {why}: set it, "
        "or expired metadata may look fresh",
    )


def _ahead(timestamp: Timestamp, now: datetime | None) -> tuple[Notice, ...]:
    """Warn when the timestamp was signed in this machine's future."""
    try:
        signed = datetime.fromisoformat(str(timestamp.unrecognized_fields[SIGNED_AT]))
        if now is None or signed - now <= CLOCK_SLACK:
            return ()
    except (KeyError, ValueError, TypeError):
        return ()
    return (_suspect(now, f"the timestamp was signed {signed:%Y-%m-%d %H:%M} UTC"),)


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


class View:
    """The repository at one moment: consistent, verified, not expired.

    Attributes:
        time: the time it was judged by; the journal's next last good time.
        warnings: `stale_mirror`, `clock_suspect`.
    """

    def __init__(
        self,
        *,
        engine: _Opened,
        client: TrustClient,
        time: datetime | None,
        warnings: tuple[Notice, ...],
    ) -> None:
        self._engine = engine
        self._client = client
        self.time = time
        self.warnings = warnings

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return the roles that were needed so far."""
        return self._engine.roles()

    def authority(self, product: str, channel: str) -> tuple[int, int]:
        """Return versions of the root and of the role that signs the channel.

        A machine that remembers the highest pair it acted on notices a replay even
        when its cache was lost; a new root starts the second number anew, which is
        how a stolen online key that counted up to 2^31 is got rid of.

        Raises:
            TransientError: as `channel`.
        """
        self.channel(product, channel)
        role = self._engine.role(f"{product}.{channel}")
        return self._engine.root.version, role.version if role else 0

    def channel(self, product: str, channel: str) -> ChannelPointer:
        """Return what a channel offers.

        Raises:
            TransientError: there is no such channel (yet), or its role cannot be
                fetched or verified.
            MalformedError: signed, but not a pointer, or another channel's.
        """
        check_name("product", product)
        check_name("channel", channel)
        path = f"{product}/channels/{channel}.json"
        target = self._find(path)
        if target is None:
            raise TransientError(
                f"the repository has no channel {channel!r} of {product!r}",
                means="nothing was published there yet, or the name is wrong",
                do="check `channel` in the configuration",
                code="no_such_channel",
            )
        return channels.parse_custom(
            _custom(target, path), product=product, channel=channel
        )

    def manifest(self, product: str, version: str, platform: str) -> Manifest:
        """Return what a release is on a platform.

        Raises:
            TransientError: it cannot be fetched or verified now.
            RejectedError: there is no such release for the platform.
            MalformedError: signed, but not a manifest, or another release's.
        """
        raw = self.manifest_bytes(product, version, platform)
        where = f"manifest of {product} {version} for {platform}"
        found = manifests.parse(raw, where=where)
        asked = (product, version, platform)
        if (found.product, found.version, found.platform) != asked:
            raise MalformedError(
                f"{where} says it is {found.product} {found.version} for "
                f"{found.platform}",
                code="wrong_target",
            )
        return found

    def manifest_bytes(self, product: str, version: str, platform: str) -> bytes:
        """Return the signed bytes of a manifest.

        Raises:
            TransientError: they cannot be fetched or verified now.
            RejectedError: there is no such release for the platform.
        """
        check_name("product", product)
        check_version(version)
        check_name("platform", platform)
        target = self._find(f"{product}/releases/{version}/{platform}.json")
        if target is None:
            raise RejectedError(
                f"there is no release {version} of {product} for {platform}",
                means="the channel points to it, but no release key signed it",
                do="whoever publishes must add it for this platform",
                code="no_such_release",
            )
        with self._client.locked():
            return self._client.fetch_target(target, limit=manifests.MAX_BYTES)

    def _find(self, path: str) -> TargetFile | None:
        with self._client.locked():
            return self._engine.find(path)


def _custom(target: TargetFile, path: str) -> Fields:
    custom = target.unrecognized_fields.get("custom")
    if not isinstance(custom, dict):
        raise MalformedError(f"{path} has no `custom` object")
    return Fields(custom, path)
