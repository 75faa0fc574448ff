# SPDX-License-Identifier: Apache-2.0
"""`updaterd demo --fleet N`: small machines, a good and a bad release, a console."""

import os
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.demo.stage import Stage
from updaterd.core import layout
from updaterd.core.report import CHANNEL_PATH

if TYPE_CHECKING:
    import httpx

_TAGS = ("staff", "berlin", "paris", "kiosk", "lab")
_BROKEN_ON = ("kiosk", "lab")
_MOST_DAEMONS = 8
_APP = "#!/bin/sh\necho acme {version}\n"
_CHECK = "#!/bin/sh\ncase $1 in {broken}) echo no screen >&2; exit 1;; esac\nexit 0\n"


class FleetPlay:
    """A fleet on one machine: every one of them real, and small.

    Args:
        stage: where it plays.
        count: how many machines.
    """

    def __init__(self, stage: Stage, count: int) -> None:
        self.stage = stage
        self.story = stage.story
        self.root = stage.root
        self.ops = stage.root / "ops"
        self.count = count
        self.machines = [stage.root / f"m{number:03d}" for number in range(count)]
        self.address = ""
        self.token = ""

    def perform(self) -> None:
        """Play all chapters; the last one leaves everything running."""
        print(
            f"updaterd demo, in {self.root} (shown below as ~demo): {self.count} "
            "machines.\nUpdates of all of them share this computer's cores: about half "
            "a second of one for each update."
        )
        self.keys_and_server()
        self.first_release()
        self.good_release()
        self.bad_release()

    def keys_and_server(self) -> None:
        """Make keys and tokens; start the feed with its console."""
        story, stage = self.story, self.stage
        story.chapter("A publisher makes keys; an operator starts feed and console")
        stage.run(
            "release", "init", self.ops, "--profile", "demo",
            "--product", "acme", "--channel", "stable",
        )  # fmt: skip
        self._token("publish", "publish:acme/stable")
        self.token = self._token("reader", "fleet:read")
        address = self.root / "address"
        stage.start(
            "serve", "--repo", self.ops / "public", "--state", self.root / "feed",
            "--reports", "open", "--reports-rate", "10000",
            "--console", "--audit", self.ops / "audit.jsonl",
            "--port", "0", "--address-file", address, log="serve.log",
        )  # fmt: skip
        self.address = stage.wait(
            lambda: address.read_text().strip() if address.exists() else None,
            "the feed server",
        )
        story.check(f"the console answers at {self.address}/console/", self.address)

    def first_release(self) -> None:
        """Install 1.0.0 on every machine; on some, start the daemon."""
        self.story.chapter(f"1.0.0 is installed on {self.count} machines")
        self._push("1.0.0")
        for number, machine in enumerate(self.machines):
            (machine / "opt").mkdir(parents=True)
            (machine / "updaterd.toml").write_text(self._configuration(number))
        self._update(self.machines)
        for machine in self.machines[:_MOST_DAEMONS]:
            self.stage.start("run", *_options(machine), log="daemons.log")
        self._check("1.0.0", {"installed": self.count})

    def good_release(self) -> None:
        """Push 1.1.0: daemons hear of it, the others are told to look."""
        self.story.chapter("1.1.0 is good")
        self._push("1.1.0")
        self._update(self.machines[_MOST_DAEMONS:])
        self._check("1.1.0", {"installed": self.count})

    def bad_release(self) -> None:
        """Push 1.2.0, whose health check fails on two kinds of machines."""
        names = " and ".join(_BROKEN_ON)
        self.story.chapter(f"1.2.0 does not start on machines tagged {names}")
        self._push("1.2.0", broken="|".join(_BROKEN_ON))
        self._update(self.machines[_MOST_DAEMONS:])
        tags = [_TAGS[number % len(_TAGS)] for number in range(self.count)]
        bad = sum(tag in _BROKEN_ON for tag in tags)
        ends = {"installed": self.count - bad, "rolled_back": bad}
        self._check("1.2.0", {name: n for name, n in ends.items() if n})

    def stay(self) -> None:
        """Say where to look, and wait for Ctrl-C."""
        story = self.story
        story.chapter("Look at it")
        story.say(f"console: {self.address}/console/")
        story.say(f"token:   {self.token}")
        story.say("Ctrl-C ends it.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()

    # ---- what the chapters use --------------------------------------------------

    def _token(self, name: str, scope: str) -> str:
        done = self.stage.run(
            "token", "create", "--state", self.root / "feed", "--scope", scope
        )
        file = self.root / name
        file.touch(mode=0o600)
        file.write_text(done.stdout)
        return done.stdout.strip()

    def _configuration(self, number: int) -> str:
        machine, tag = self.machines[number], _TAGS[number % len(_TAGS)]
        root = self.ops / "public" / layout.METADATA / layout.role_file("root", 1)
        return f"""
[feed]
url = "{self.address}/v1/events"
[trust]
root = "{root}"
repository = "{self.address}/repo"
[download]
min_free = "1MiB"
[reports]
send = true
tags = ["{tag}"]
[products.acme]
root = "{machine}/opt"
health = {{ command = ["{machine}/opt/current/bin/check", "{tag}"], timeout_s = 5 }}
"""

    def _push(self, version: str, *, broken: str = "none") -> None:
        tree = self.root / "build" / version
        for name, text in (
            ("bin/app", _APP.format(version=version)),
            ("bin/check", _CHECK.format(broken=broken)),
        ):
            file = tree / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        data = b"".join(number.to_bytes(4, "big") for number in range(50_000))
        (tree / "lib").mkdir()
        (tree / "lib" / "data").write_bytes(data + version.encode())
        self.stage.run(
            "release", "push", tree, "--repo", self.ops, "--product", "acme",
            "--version", version, "--channel", "stable",
            "--feed", f"{self.address}/v1/events",
            "--token-file", self.root / "publish",
        )  # fmt: skip

    def _update(self, machines: Iterable[Path]) -> None:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            work = [
                pool.submit(
                    self.stage.run, "update", "acme", *_options(machine),
                    quiet=True, expect=None,
                )
                for machine in machines
            ]  # fmt: skip
            for update in work:
                update.result()

    def _check(self, version: str, ends: dict[str, int]) -> None:
        """See that the server counted exactly what happened.

        Raises:
            BrokenError: it never did.
        """
        machines = self.stage.wait(
            lambda: row if (row := self._counted(version)) == ends else None,
            f"word of {version} from all machines",
        )
        text = ", ".join(
            f"{name.replace('_', ' ')} on {n}" for name, n in sorted(machines.items())
        )
        self.story.check(f"the server counted {version}: {text}", machines)

    @cache  # noqa: B019 - one play a process
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(trust_env=False)

    def _counted(self, version: str) -> dict[str, int]:
        """Return what the server counted of a release, as its API says."""
        path = CHANNEL_PATH.format(product="acme", channel="stable")
        answer = self._client().get(
            f"{self.address}{path}", headers={"authorization": f"Bearer {self.token}"}
        )
        answer.raise_for_status()
        for release in answer.json()["releases"]:
            if release["version"] == version:
                counted: dict[str, int] = release["machines"]
                return counted
        return {}


def _options(machine: Path) -> list[str]:
    return [
        "--config", str(machine / "updaterd.toml"),
        "--state-dir", str(machine / "state"),
        "--cache-dir", str(machine / "cache"),
        "--runtime-dir", str(machine / "run"), "--demo",
    ]  # fmt: skip
