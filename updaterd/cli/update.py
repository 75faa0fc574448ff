# SPDX-License-Identifier: Apache-2.0
"""`updaterd update`: bring products to their target release."""

import argparse
import json
import os
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli import (
    EXIT_CODES,
    EXIT_CURRENT,
    EXIT_DEGRADED,
    EXIT_ERROR,
    EXIT_PENDING,
    EXIT_ROLLED_BACK,
    EXIT_USAGE,
)
from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    load_pipeline,
    nudge_daemon,
    random_draw,
    settings_from,
    version,
    wall_clock,
)
from updaterd.core import layout
from updaterd.exits import tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from updaterd.core.settings import Settings
    from updaterd.pipeline.machine import Services, Teller
    from updaterd.pipeline.run import Outcome, Request
    from updaterd.store.report_rows import Reporter
    from updaterd.system.progress import Published
    from updaterd.trust.client import Pushed

SCHEMA = 1
EXIT_OF = {
    "current": EXIT_CURRENT,
    "installed": EXIT_CURRENT,
    "pending": EXIT_PENDING,
    "held": EXIT_PENDING,
    "blocked": EXIT_ROLLED_BACK,
    "rolled_back": EXIT_ROLLED_BACK,
    "refused": EXIT_DEGRADED,
}
_WORST = (EXIT_ERROR, EXIT_ROLLED_BACK, EXIT_DEGRADED, EXIT_PENDING, EXIT_CURRENT)
_BUSY_CODE = "busy"
_CHANGES = frozenset({"installed", "rolled_back"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.add_argument(
        "--now",
        action="store_true",
        help="do not wait for the maintenance window or this machine's turn in a "
        "rollout; a hold still counts",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="try a release again although it failed on this machine, or install an "
        "application again although it was deleted",
    )
    parser.add_argument(
        "--to",
        type=version,
        metavar="VERSION",
        help="bring PRODUCT to this release, offered or not, as long as its publisher "
        "signs it and it is not below the floor. Where the channel offers a newer one, "
        "PRODUCT is held at it until `updaterd unhold`",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="only say what would be done and why",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line each")
    parser.add_argument(
        "--trigger",
        choices=("manual", "event", "poll", "boot"),
        default="manual",
        help="what the journal says started this (default: manual)",
    )
    parser.add_argument(
        "--pushed",
        type=Path,
        metavar="DIR",
        help="signed metadata that came with an event: timestamp.json, snapshot.json",
    )
    parser.add_argument(
        "--from",
        dest="carried",
        type=Path,
        metavar="DIR",
        help="make the first install from a copy of the repository's files, such as a "
        "kit brings along, without a network: signed as ever, and as new as it was "
        "then. What is installed already is left to the repository itself",
    )
    parser.epilog = EXIT_CODES
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Update the products, one after the other; return the worst exit code."""
    if arguments.to and arguments.product is None:
        print("updaterd: --to is about one product: name it", file=sys.stderr)
        return EXIT_USAGE
    load_pipeline()
    from updaterd.pipeline.run import Request

    settings = settings_from(arguments)
    request = Request(
        trigger=arguments.trigger,
        forced=arguments.now,
        retry_blocked=arguments.retry,
        to=arguments.to or "",
        dry=arguments.explain,
        pushed=_pushed(arguments.pushed),
        as_of=_signed_at(arguments.carried) if arguments.carried else None,
    )
    names = chosen_products(settings, arguments.product)
    return bring(
        settings, names, request, as_json=arguments.json, carried=arguments.carried
    )


def bring(
    settings: "Settings",
    names: list[str],
    request: "Request",
    *,
    as_json: bool,
    carried: Path | None = None,
) -> int:
    """Bring each product to its target; return the worst exit code."""
    from updaterd.errors import UpdaterError
    from updaterd.pipeline import update

    worst, changed = EXIT_CURRENT, False
    if not names and not as_json:
        print(f"no product is configured in {settings.directories.config}")
    on = Machine(settings, teller(as_json=as_json), carried=carried)
    with closing(on) as machine:
        for name in _due(machine, names, carried, as_json=as_json):
            try:
                with machine.telling(name) as services:
                    outcome = update.update(settings.products[name], services, request)
            except UpdaterError as error:
                code = EXIT_PENDING if error.code == _BUSY_CODE else EXIT_ERROR
                if as_json:
                    _print({"product": name, "result": "error", "code": error.code,
                            "reason": str(error), "exit": code})  # fmt: skip
                if request.trigger == "manual":
                    tell(error)  # else the daemon, which knows whether it is new
            else:
                code = EXIT_OF[outcome.result]
                if outcome.result == "blocked":
                    code = _exit_of_block(machine, name)
                changed |= outcome.result in _CHANGES
                show(outcome, code, as_json=as_json, dry=request.dry)
                if outcome.result == "current" and settings.reports.sign_of_life:
                    channel = settings.products[name].channel
                    services = machine.services
                    services.journal.say_alive(name, channel, services.note())
            worst = min(worst, code, key=_WORST.index)
        machine.report()
    if changed and request.trigger == "manual":
        nudge_daemon(settings)  # it may be of an older release, by its own disk
    return worst


def _due(
    machine: "Machine", names: list[str], carried: Path | None, *, as_json: bool
) -> list[str]:
    """Return the products that are to be brought: a first install, of what came."""
    if carried is None:
        return names
    journal = machine.services.journal
    missing = [name for name in names if journal.installed(name) is None]
    for name in names:
        if name not in missing and not as_json:
            print(f"{name}: is installed; what was carried here is not needed")
    return missing


def _exit_of_block(machine: "Machine", product: str) -> int:
    """Return the exit code that `status` ends with for the same."""
    from updaterd import status

    last = machine.services.journal.history(product, limit=2)
    ended = [deployment.state for deployment in last if deployment.ended_at is not None]
    return status.EXIT_CODES[status.of_block(ended[0] if ended else None)]


class Machine:
    """The open things of one run: database, network, services.

    Raises:
        BrokenError: the database, the bootstrap root or the network settings cannot
            be used.
    """

    def __init__(
        self,
        settings: "Settings",
        teller: "Teller",
        *,
        carried: Path | None = None,
    ) -> None:
        from updaterd.files import places
        from updaterd.net import Fetcher
        from updaterd.net.folder import Folder
        from updaterd.pipeline.machine import open_services
        from updaterd.store.journal import Journal
        from updaterd.store.rebuild import open_or_rebuild
        from updaterd.store.schema import open_state
        from updaterd.system import locks, presence

        path = Path(settings.directories.state) / "state.db"
        loss = ""
        # before a lock's parents are made: local users have no business in them
        places.require(path.parent, code="state_unusable")
        cache = Path(settings.directories.cache)
        places.require(cache, like=path.parent, code="cache_unusable")
        if presence.is_running(Path(settings.directories.runtime), None):
            connection = open_state(path)  # the daemon has it open
        else:
            # two workers must not both set a damaged database aside
            lock = path.parent / "locks" / "state.lock"
            with locks.hold(lock, subject="the state database", wait=True):
                connection, loss = open_or_rebuild(path, now=wall_clock())
        if loss:
            print(f"updaterd: {loss}", file=sys.stderr)
        self._connection = connection
        self._settings = settings
        network = settings.trust.network
        self._fetcher = Fetcher(
            headers=network.headers,
            headers_file=network.headers_file,
            ca_file=network.ca_file,
            proxy=network.proxy,
            origin=settings.trust.repository,
            redirect_hosts=settings.download.redirect_hosts,
            max_rate=settings.download.max_rate,
            way=Folder(settings.trust.repository, carried) if carried else None,
        )
        self.services: Services = open_services(
            settings,
            Journal(connection, _reporter(settings)),
            self._fetcher,
            clock=wall_clock,
            draw=random_draw,
            teller=teller,
            environment=os.environ,
        )

    @contextmanager
    def telling(self, product: str) -> "Iterator[Services]":
        """Tell everybody how far the downloads of a product are."""
        from dataclasses import replace

        from updaterd.clocks import steady_clock
        from updaterd.system import progress

        runtime = Path(self._settings.directories.runtime)
        published = progress.Published(runtime, product, steady_clock)
        try:
            telling = _Told(self.services.teller, published)
            yield replace(self.services, teller=telling)
        finally:
            published.end()

    def report(self) -> None:
        """Send what the run has to report, where the owner wants that."""
        if self._settings.reports.send:
            from updaterd.cli import reports

            reports.after_update(self._settings, self.services.journal)

    def close(self) -> None:
        """Close them."""
        self._fetcher.close()
        self._connection.close()


def _reporter(settings: "Settings") -> "Reporter | None":
    """Return what reports of this machine say; None where it reports nothing."""
    if not settings.reports.send:
        return None
    from updaterd import __version__
    from updaterd.pipeline.machine import default_platform
    from updaterd.store.report_rows import Reporter

    return Reporter(
        platform=default_platform(),
        updater=__version__,
        tags=settings.reports.tags,
    )


def teller(*, as_json: bool) -> "Teller":
    """Return who tells what is being done: a terminal, a log, or nobody."""
    if as_json:
        from updaterd.pipeline.machine import Silent

        return Silent()
    return _Bar() if sys.stderr.isatty() else _Lines()


class _Told:
    """Tells whom it should, and everybody how far a download is."""

    def __init__(self, teller: "Teller", published: "Published") -> None:
        self._teller = teller
        self._published = published

    def say(self, line: str) -> None:
        self._teller.say(line)

    def progress(self, step: str, done: int, total: int) -> None:
        self._teller.progress(step, done, total)
        self._published.tell(done, total, now=wall_clock())


class _Lines:
    """Tells in plain lines; of long steps, only that they began."""

    def __init__(self) -> None:
        self._step = ""

    def say(self, line: str) -> None:
        from updaterd.core.text import printable

        print(f"  {printable(line)}", flush=True)

    def progress(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self._step = step
            self.say(f"{step}: {total} bytes")
        del done


class _Bar(_Lines):
    """Tells in lines, and long steps as a bar that goes away when they are done."""

    def __init__(self) -> None:
        super().__init__()
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: Any = None  # tqdm's own type is generic over what it iterates

    def say(self, line: str) -> None:
        self._end()
        super().say(line)

    def progress(self, step: str, done: int, total: int) -> None:
        if step != self._step or self._bar is None:
            self._end()
            self._step = step
            self._bar = self._tqdm(
                total=total, desc=f"  {step}", unit="B", unit_scale=True, leave=False
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._step = None, ""


class _Files:
    """Pushed metadata in a directory; absent files are absent metadata."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError:
            return None
        return data if len(data) <= limit else None

    @property
    def timestamp(self) -> bytes | None:
        return self._read(layout.TIMESTAMP, 4 * 1024)

    @property
    def snapshot(self) -> bytes | None:
        return self._read(layout.SNAPSHOT, 256 * 1024)


def _signed_at(folder: Path) -> float | None:
    """Return when a carried repository was signed; None: it does not say.

    Its signatures expire within days, and a kit lies about for longer. What it says of
    the time is signed, too: whoever changed it would need the keys.

    Raises:
        BrokenError: it is not one.
    """
    from tuf.api.metadata import Metadata, Timestamp

    from updaterd.errors import BrokenError
    from updaterd.trust.clock import signed_at

    path = folder / layout.METADATA / layout.TIMESTAMP
    try:
        return (
            signed_at(Metadata[Timestamp].from_bytes(path.read_bytes()).signed) or None
        )
    except Exception as error:
        raise BrokenError(
            f"{folder} holds no files of a repository: {error}",
            means="nothing was installed",
            do="name the folder that has `metadata/`; or leave --from out",
            code="not_a_copy",
        ) from error


def _pushed(folder: Path | None) -> "Pushed | None":
    return None if folder is None else _Files(folder)


def _print(document: dict[str, object]) -> None:
    print(json.dumps({"schema": SCHEMA, **document}), flush=True)


def show(outcome: "Outcome", code: int, *, as_json: bool, dry: bool = False) -> None:
    """Print how it ended: what, why, what it cost."""
    from dataclasses import asdict

    from updaterd.core.text import printable

    if as_json:
        _print({**asdict(outcome), "exit": code})
        return
    for note in outcome.notes:
        print(f"  note: {printable(note)}")
    would = "would do: " if dry and outcome.path else ""
    headline = f"{outcome.product}: {would}{_headline(outcome)}"
    print(printable(headline))
    if outcome.path and outcome.result != "rolled_back":
        print(f"  path: {printable(outcome.path)}")
    for other in outcome.alternatives:
        print(f"  instead of: {printable(other)}")
    if outcome.path and outcome.bytes_full:
        part = 100 * outcome.bytes_fetched / outcome.bytes_full
        verb = "to download" if dry else "downloaded"
        print(
            f"  {outcome.bytes_fetched} bytes {verb}, "
            f"{part:.1f} % of the full bundle's {outcome.bytes_full}"
        )
    if outcome.next_attempt_at is not None:
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(outcome.next_attempt_at, UTC).astimezone()
        print(f"  next attempt: {at:%Y-%m-%d %H:%M:%S %Z}")


def _headline(outcome: "Outcome") -> str:
    match outcome.result:
        case "installed":
            return f"{outcome.from_version or 'nothing'} -> {outcome.version} installed"
        case "rolled_back":
            return (
                f"{outcome.from_version} failed and was rolled back to "
                f"{outcome.version or 'nothing'}: {outcome.reason}"
            )
        case _:
            return f"{outcome.reason} ({outcome.code})"
