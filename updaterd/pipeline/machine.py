# SPDX-License-Identifier: Apache-2.0
"""What the machine gives to a run: clock, journal, network, units, as interfaces."""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import tzinfo
from pathlib import Path
from typing import Protocol

from updaterd import durable
from updaterd.clocks import steady_clock
from updaterd.core import layout
from updaterd.core.dataclass import dataclass
from updaterd.core.manifest import Manifest
from updaterd.core.settings import Download, Product, Schedule, Settings
from updaterd.errors import BrokenError
from updaterd.files import ownership
from updaterd.install.health import Manager
from updaterd.install.restart_systemd import Systemd
from updaterd.net import Fetcher
from updaterd.pipeline.manifests import Carrier
from updaterd.store.journal import Journal, Note
from updaterd.system import surroundings
from updaterd.trust.client import TrustClient


class Teller(Protocol):
    """Where a run says what it does: a terminal, a log, nowhere."""

    def say(self, line: str) -> None:
        """Tell one thing, in one line."""

    def progress(self, step: str, done: int, total: int) -> None:
        """Tell how far a long step is, in bytes."""


class Silent:
    """A teller that tells nothing."""

    def say(self, line: str) -> None:
        """Tell nothing."""

    def progress(self, step: str, done: int, total: int) -> None:
        """Tell nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The machine as a run sees it.

    Attributes:
        trust: makes a client; one for each refresh.
        bases: addresses to fetch blobs from, the repository's first or mirrors first.
        clock: Unix seconds.
        draw: uniform in [0, 1), for backoff.
        boot: id of the running boot; another one after a restart of the machine.
        steady: seconds of a clock that nobody sets.
        tags: what the owner calls this machine.
        zone: the machine's own time zone.
    """

    journal: Journal
    trust: Callable[[], TrustClient]
    fetcher: Fetcher
    bases: tuple[str, ...]
    download: Download
    schedule: Schedule
    state: Path
    cache: Path
    platform: str
    machine_id: str
    updater: str
    clock: Callable[[], float]
    draw: Callable[[], float]
    boot: str
    manager: Manager = field(default_factory=Systemd)
    zone: Callable[[str | None], tzinfo]
    steady: Callable[[], float] = steady_clock
    teller: Teller = field(default_factory=Silent)
    metered: Callable[[], bool] = surroundings.is_metered
    on_battery: Callable[[], bool] = surroundings.is_on_battery
    tags: tuple[str, ...] = ()

    def note(self, code: str = "", reason: str = "") -> Note:
        """Return a note for the journal, as of now."""
        return Note(self.clock(), code, reason, self.boot, self.steady())

    def bundles(self, manifest: Manifest) -> Path:
        """Return where the bundles of a release's product are, whole or in part."""
        return self.cache / "bundles" / manifest.product

    @property
    def trusted(self) -> frozenset[int]:
        """Return the users who may change what this machine obeys."""
        return ownership.owners(self.state)

    def lock(self, product: Product) -> Path:
        """Return the lock file of a product: two workers never meet."""
        return self.state / "locks" / f"{product.name}.lock"


def default_platform() -> str:
    """Return this machine's platform, as publishers name it: `linux-x86_64`."""
    return layout.platform(os.uname().machine)


def machine_id(state: Path, etc: Path = Path("/etc/machine-id")) -> str:
    """Return what rollouts draw this machine's cohort from; never sent anywhere.

    The owner's `machine-id` in the state directory, if there is one: for several
    machines on one computer. Else systemd's, and without that a random one, drawn once.
    It never counts before systemd's: an image may have been used before it was copied,
    and its copies must not all be first.

    Power cut: the id is kept or drawn anew by the next run.
    """
    drawn_before = state / "machine-id.drawn"
    for path in (state / "machine-id", etc, drawn_before):
        try:
            ident = path.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if ident and ident != "uninitialized":
            return ident
    drawn = secrets.token_hex(16)
    durable.write_file(drawn_before, drawn.encode() + b"\n", mode=0o600)
    return drawn


def boot_id(
    environment: Mapping[str, str],
    kernel: Path = Path("/proc/sys/kernel/random/boot_id"),
) -> str:
    """Return the kernel's id of this boot, as 32 hex digits; "" when it is not told.

    systemd hides the kernel's file from the packaged service (`ProcSubset=pid`); there
    the unit hands the id over as `UPDATERD_BOOT_ID` (`%b`).
    """
    try:
        ident = kernel.read_text("ascii")
    except OSError:
        ident = environment.get("UPDATERD_BOOT_ID", "")
    return ident.strip().replace("-", "")


def zones(name: str | None) -> tzinfo:
    """Return a time zone by name, the machine's own for None.

    Raises:
        BrokenError: there is no such zone on this machine.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - where there is a window

    if name is None:
        name = os.environ.get("TZ", "").removeprefix(":") or None
    try:
        if name is not None:
            return ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, KeyError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        if name is None:
            return ZoneInfo("UTC")  # localtime(5): absent means UTC
        raise BrokenError(
            f"no time zone {name!r:.80} on this machine",
            do="correct schedule.window, or install the time zones (tzdata)",
            code="no_such_zone",
        ) from None


def open_services(  # noqa: PLR0913 # each is a way in for the outside
    settings: Settings,
    journal: Journal,
    fetcher: Fetcher,
    *,
    clock: Callable[[], float],
    draw: Callable[[], float],
    teller: Teller,
    environment: Mapping[str, str],
) -> Services:
    """Return the services that the settings describe.

    `UPDATERD_SYSTEMCTL` names another service manager's `systemctl`.

    Raises:
        BrokenError: the bootstrap root cannot be read.
    """
    trust = settings.trust
    try:
        bootstrap = Path(trust.root).read_bytes()
    except OSError as error:
        raise BrokenError(
            f"cannot read the bootstrap root {trust.root}: {error.strerror}",
            means="without it nothing can be verified, so nothing is installed",
            do="put the repository's 1.root.json there",
            code="bad_root",
        ) from error
    state = Path(settings.directories.state)
    bases = (*trust.mirrors, trust.repository)
    carrier = Carrier(
        journal=journal,
        roots={name: Path(item.root) for name, item in settings.products.items()},
        fetcher=fetcher,
        bases=bases,
    )
    systemctl = environment.get("UPDATERD_SYSTEMCTL", "systemctl")

    def client() -> TrustClient:
        return TrustClient(
            cache=state / "trust",
            bootstrap=bootstrap,
            repository=trust.repository,
            fetcher=fetcher,
            demo=settings.demo,
            carrier=carrier,
        )

    from updaterd import __version__  # noqa: PLC0415 # not at the top: a cycle

    return Services(
        journal=journal,
        trust=client,
        fetcher=fetcher,
        bases=bases,
        download=settings.download,
        schedule=settings.schedule,
        state=state,
        cache=Path(settings.directories.cache),
        platform=default_platform(),
        machine_id=machine_id(state),
        updater=__version__,
        clock=clock,
        draw=draw,
        boot=boot_id(environment),
        manager=Systemd((systemctl,)),
        zone=zones,
        teller=teller,
        tags=settings.tags,
    )
