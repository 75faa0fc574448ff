# SPDX-License-Identifier: Apache-2.0
"""`updaterd demo`: the whole road on one machine, told as a story."""

import argparse
import hashlib
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from updaterd.cli.demo.stage import Stage, Story
from updaterd.core import layout

_MOST_MACHINES = 2000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the feed and the daemon running until Ctrl-C, and keep the folder",
    )
    parser.add_argument(
        "--fleet",
        type=_machines,
        metavar="N",
        help="another story: N machines that report, a good and a bad release, and a "
        "console in the browser, until Ctrl-C",
    )
    parser.epilog = (
        "Everything happens in a temporary folder and on the loopback interface, with\n"
        "all the real parts in processes of their own. Exit code 0: every step was\n"
        "checked and held. Needs the extras: pip install 'updaterd[all]'."
    )


def _machines(text: str) -> int:
    """Return how many machines a fleet has.

    Raises:
        ArgumentTypeError: none, or more than one computer bears.
    """
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_MACHINES:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is no number from 1 to {_MOST_MACHINES}"
        )
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Play the demo.

    Raises:
        BrokenError: an extra is missing, or a check did not hold.
    """
    _need_extras()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # `timeout 60 updaterd demo`, a terminal that is closed: as Ctrl-C
        signal.signal(number, signal.default_int_handler)
    root = Path(tempfile.mkdtemp(prefix="updaterd-demo-"))
    stage = Stage(root, Story(), _machine_options(root / "machine"))
    try:
        if arguments.fleet is not None:
            from updaterd.cli.demo.fleet import FleetPlay

            fleet = FleetPlay(stage, arguments.fleet)
            fleet.perform()
            fleet.stay()
        else:
            _Play(stage).perform()
        if arguments.keep and arguments.fleet is None:
            _stay(stage)
    finally:
        if arguments.keep:
            stage.end()
            print(f"\nEverything is in {root}; remove it when you are done.")
        else:
            stage.close()
    return 0


def _need_extras() -> None:
    import importlib.util

    from updaterd.errors import BrokenError

    if any(
        importlib.util.find_spec(name) is None
        for name in ("uvicorn", "starlette", "jinja2")
    ):
        raise BrokenError(
            "the demo runs a feed server, whose packages are not installed",
            do="pip install 'updaterd[all]'",
            code="missing_extra",
        )


def _stay(stage: Stage) -> None:
    story = stage.story
    story.chapter("It is all still running")
    story.say(f"folder: {stage.root}")
    story.say("try, in another terminal:")
    story.say(f"  updaterd status --watch {' '.join(stage.options)}")
    story.say("Ctrl-C ends it.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def _machine_options(machine: Path) -> list[str]:
    """Return the options that lead a command to the demo's machine."""
    return [
        "--config", str(machine / "updaterd.toml"),
        "--state-dir", str(machine / "state"),
        "--cache-dir", str(machine / "cache"),
        "--runtime-dir", str(machine / "run"), "--demo",
    ]  # fmt: skip


class _Play:
    """The chapters, in order."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.story = stage.story
        self.root = stage.root
        self.ops = stage.root / "ops"
        self.machine = stage.root / "machine"
        self.app = self.machine / "opt" / "atlas"

    def perform(self) -> None:
        """Play all chapters."""
        started = time.monotonic()
        print(
            f"updaterd demo, in {self.root} (shown below as ~demo).\n"
            "Commands of the machine also get its --config, --state-dir, --cache-dir,\n"
            "--runtime-dir and --demo; the story leaves them out."
        )
        self.keys_and_server()
        self.first_install()
        self.push_as_delta()
        self.broken_release()
        self.power_cut()
        self.aftermath()
        took = time.monotonic() - started
        print(f"\n{self.story.checks} checks held, in {took:.0f} seconds.")

    # ---- chapters ---------------------------------------------------------------

    def keys_and_server(self) -> None:
        """Make keys and a repository; start the feed server."""
        story, stage = self.story, self.stage
        story.chapter("A publisher makes keys; an operator starts the feed")
        stage.run(
            "release", "init", self.ops, "--profile", "demo",
            "--product", "atlas", "--channel", "stable",
        )  # fmt: skip
        self.bootstrap = self.ops.joinpath(
            "public", layout.METADATA, layout.role_file("root", 1)
        )
        story.check("the repository has a signed root", self.bootstrap.is_file())
        token = stage.run(
            "token", "create", "--state", self.root / "feed",
            "--scope", "publish:atlas/stable",
        )  # fmt: skip
        self.token_file = self.root / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token.stdout.strip())
        address_file = self.root / "address"
        stage.start(
            "serve", "--repo", self.ops / "public", "--state", self.root / "feed",
            "--port", "0", "--address-file", address_file, log="serve.log",
        )  # fmt: skip
        self.address = stage.wait(
            lambda: address_file.exists() and address_file.read_text().strip(),
            "the feed server",
        )
        story.check(f"the feed answers at {self.address}/v1/events", self.address)

    def first_install(self) -> None:
        """Push 1.0.0, install it, start the daemon."""
        story, stage = self.story, self.stage
        story.chapter("Acme Atlas 1.0.0 is released and installed on a machine")
        self._build("1.0.0")
        self._push("1.0.0")
        self.app.mkdir(parents=True)
        (self.machine / "updaterd.toml").write_text(self._configuration())
        stage.run("update", "atlas", *self.stage.options)
        story.check(
            "the installed tree is the one that was pushed", self._same("1.0.0")
        )
        story.say(self._ask_the_application())
        self.daemon = stage.start("run", *self.stage.options, log="daemon.log")
        stage.wait(self._connected, "the subscription")
        story.check("the daemon holds the subscription open", self._connected())

    def push_as_delta(self) -> None:
        """Push 1.1.0; it arrives by event, as a delta."""
        story = self.story
        story.chapter("1.1.0 is pushed, and arrives by itself")
        self._build("1.1.0")
        self._push("1.1.0")
        pushed = time.monotonic()
        self._wait_installed("1.1.0")
        took = time.monotonic() - pushed
        last = self._product()["last"]
        story.check("an event brought it", last["trigger"] == "event")
        story.check(
            "the installed tree is the one that was pushed", self._same("1.1.0")
        )
        fetched, full = last["bytes_fetched"], last["bytes_full"]
        story.check(
            f"as a delta: {fetched:,} bytes instead of {full:,} "
            f"({100 * fetched / full:.2f} %)",
            0 < fetched < full / 4,
        )
        story.say(
            f"{took:.1f} seconds from the end of the push to installed and healthy"
        )
        story.say(self._ask_the_application())

    def broken_release(self) -> None:
        """Push 1.2.0, which does not start; it is rolled back and blocked."""
        story, stage = self.story, self.stage
        story.chapter("1.2.0 is broken: it needs data that it does not carry")
        self._build("1.2.0", broken=True)
        self._push("1.2.0")
        last = stage.wait(
            lambda: (p := self._product()["last"])["version"] == "1.2.0" and p,
            "the roll back of 1.2.0",
        )
        story.check("its health check failed", last["state"] == "ROLLED_BACK")
        story.say(f"reason: {last['reason']}")
        story.check("1.1.0 runs again, byte for byte", self._same("1.1.0"))
        story.say(self._ask_the_application())
        done = stage.run("status", *stage.options, expect=30)
        story.say(self.stage.short(done.stdout))
        again = stage.run("update", "atlas", *self.stage.options, expect=30)
        story.check(
            "1.2.0 is blocked on this machine, also by hand",
            "1.2.0" in again.stdout + again.stderr and self._same("1.1.0"),
        )

    def power_cut(self) -> None:
        """Push 1.3.0 and SIGKILL everything while it is being applied."""
        story, stage = self.story, self.stage
        story.chapter("1.3.0 is pushed, and the daemon is killed while it is applied")
        self._build("1.3.0", new_tiles=40)
        self._push("1.3.0")
        at_work = stage.wait(self._at_work, "1.3.0 being downloaded")
        stage.kill(self.daemon)
        story.check(
            f"SIGKILL hit daemon and worker in state {at_work['state']}",
            at_work["version"] == "1.3.0",
        )
        story.check("1.1.0 still runs, byte for byte", self._same("1.1.0"))
        self.daemon = stage.start("run", *self.stage.options, log="daemon.log")
        self._wait_installed("1.3.0")
        story.check("the next start finished 1.3.0", self._same("1.3.0"))
        story.say(self._ask_the_application())

    def aftermath(self) -> None:
        """Show how things stand, and what happened."""
        story, stage = self.story, self.stage
        story.chapter("How things stand")
        done = stage.run("status", *stage.options)
        story.say(stage.short(done.stdout))
        done = stage.run("history", *self.stage.options)
        story.say(done.stdout)
        outcomes = [
            line.partition("atlas")[2].split()[0] for line in done.stdout.splitlines()
        ]
        story.check(
            "the history tells all of it",
            outcomes == ["installed:", "rolled", "installed:", "installed:"],
        )
        stage.end()
        story.check("the daemon ends when it is told to", self.daemon.returncode == 0)

    # ---- what the chapters use --------------------------------------------------

    def _configuration(self) -> str:
        return f"""
[feed]
url = "{self.address}/v1/events"
[trust]
root = "{self.bootstrap}"
repository = "{self.address}/repo"
[download]
min_free = "1MiB"
max_rate = "512KiB/s"    # slow enough to be killed in the middle
[products.atlas]
root = "{self.app}"
health = {{ command = ["{self.app}/current/bin/healthcheck"], timeout_s = 5 }}
"""

    def _build(self, version: str, *, broken: bool = False, new_tiles: int = 0) -> None:
        from updaterd.cli.demo.application import make

        make(
            self.root / "build" / version,
            version,
            broken=broken,
            new_tiles=new_tiles,
            more=() if version == "1.0.0" else ("asyncio", "importlib"),
        )

    def _push(self, version: str) -> None:
        self.stage.run(
            "release", "push", self.root / "build" / version, "--repo", self.ops,
            "--product", "atlas", "--version", version, "--channel", "stable",
            "--feed", f"{self.address}/v1/events", "--token-file", self.token_file,
        )  # fmt: skip

    def _status(self) -> dict[str, Any]:
        done = self.stage.run(
            "status", "--json", *self.stage.options, quiet=True, expect=None
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def _product(self) -> dict[str, Any]:
        product: dict[str, Any] = self._status()["products"][0]
        return product

    def _connected(self) -> bool:
        connection = self._status()["feed"]["connection"]
        return bool(connection and connection["phase"] == "open")

    def _at_work(self) -> dict[str, Any] | None:
        """Return the open deployment once a part of its bundle has come."""
        deployment = self._product()["deployment"]
        parts = (self.machine / "cache").rglob("*.part")
        fetching = deployment and deployment["state"] == "FETCHING"
        return deployment if fetching and any(p.stat().st_size for p in parts) else None

    def _wait_installed(self, version: str) -> None:
        def installed() -> bool:
            product = self._product()
            is_installed = (
                product["installed"] and product["installed"]["version"] == version
            )
            return bool(is_installed and product["decision"]["code"] == "current")

        self.stage.wait(installed, f"{version} installed")

    def _same(self, version: str) -> bool:
        """Tell whether `current` holds exactly what was built as `version`."""
        return _tree(self.app / "current") == _tree(self.root / "build" / version)

    def _ask_the_application(self) -> str:
        done = subprocess.run(  # noqa: S603 - the demo's own application
            [self.app / "current" / "bin" / "acme-atlas"],
            capture_output=True,
            text=True,
            check=False,
        )
        return f"the application says: {done.stdout.strip() or done.stderr.strip()}"


def _tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Return contents, modes and links of a tree as values."""
    entries: dict[str, tuple[object, ...]] = {}
    base = root.resolve()
    for path in sorted(base.rglob("*")):
        name = str(path.relative_to(base))
        if path.is_symlink():
            entries[name] = ("link", str(path.readlink()))
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entries[name] = ("file", path.stat().st_mode & 0o777, digest)
    return entries
