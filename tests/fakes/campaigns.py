# SPDX-License-Identifier: Apache-2.0
"""What else can be interrupted: each a bench with its command and what must hold.

`tests/faults/killpoints.py` fails each at every system call that changes a file.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
from fakes.bench import NOW, UPDATE, Bench, Tracer
from fakes.machine import cli
from fakes.site import Site
from fakes.trees import snapshot
from fakes.waiting import eventually

ROLL_BACK = ("rollback", "acme")
RETRY = ("update", "acme", "--retry")
REPAIR = ("verify", "acme", "--repair")
HOLD = ("hold", "acme", "--for", "2h", "--reason", "month end")
_HALF = re.compile(r"\..+\.[0-9a-f]{8}\.new")
"""A file that was not written to its end: never served, collected by `release gc`."""
BY_HAND = {"1.1.0": "rolled_back_by_hand"}


class Update(Bench):
    """1.1.0 is offered to a machine with 1.0.0."""


class Unhealthy(Bench):
    """1.1.0 is offered and is not well: 1.0.0 goes on running."""

    def __init__(self, root: Path):
        super().__init__(root, healthy=False)


class First(Bench):
    """Nothing is installed yet."""

    def __init__(self, root: Path):
        super().__init__(root, first=True)


class RollBack(Bench):
    """1.1.0 runs, and a person returns to 1.0.0.

    The order counts from the moment it is journalled, and is then carried out by the
    next run, whoever starts it. It never blocks the release that was asked for.
    """

    words = ROLL_BACK

    def __init__(self, root: Path):
        super().__init__(root)
        assert self.run(UPDATE) == 0, self.output()
        self.keep_as_before()

    def settle(self, code: int) -> list[str]:
        after = self.run(UPDATE)
        if after == 10:
            after = self.run(NOW)
        returned = self.machine.running == "1.0.0"
        if after != (30 if returned else 0):
            return [f"the next update ended with {after}: {self.output()}"]
        if self.blocked() != (BY_HAND if returned else {}):
            return [f"{self.machine.running} runs, blocked: {self.blocked()}"]
        if code == 0 and not returned:
            return ["the roll back said that it was done, and 1.1.0 runs"]
        problems = self.unsettled(self.machine.running)
        if not returned:
            problems = problems or self.well(ROLL_BACK, "1.0.0")
        return problems or self.well(RETRY, "1.1.0")


class Repair(Bench):
    """A file of the release that runs is changed, one is gone; it is put right."""

    words = REPAIR

    def __init__(self, root: Path):
        super().__init__(root)
        assert self.run(UPDATE) == 0, self.output()
        (self.machine.current / "lib/changing.bin").write_bytes(b"another")
        (self.machine.current / "only-in-1").unlink()
        self.damaged = snapshot(self.machine.current)
        self.keep_as_before()

    def broken_tree(self) -> list[str]:
        """Return which files are neither as they were nor as they were signed."""
        if self.machine.running != "1.1.0":
            return [f"`current` names {self.machine.running}"]
        tree, signed = snapshot(self.machine.current), self.trees["1.1.0"]
        wrong = [
            path
            for path in tree.keys() | signed
            if tree.get(path) not in (self.damaged.get(path), signed.get(path))
        ]
        return [f"neither as before nor as signed: {wrong}"] if wrong else []

    def settle(self, code: int) -> list[str]:
        if (after := self.run(UPDATE)) != 0:
            return [f"the next update ended with {after}: {self.output()}"]
        if code == 0 and snapshot(self.machine.current) != self.trees["1.1.0"]:
            return ["the repair said that it was done, and it is not"]
        return self.well(REPAIR, "1.1.0") or self.there_and_back()


class Remove(Bench):
    """1.1.0 runs, 1.0.0 is beside it, and a person removes the product.

    Whatever is left, the application does not start or is whole; an order that was
    journalled is finished by the next run, and what is not updaterd's stays.
    """

    words = ("remove", "acme")

    def __init__(self, root: Path):
        super().__init__(root)
        assert self.run(UPDATE) == 0, self.output()
        data = self.machine.app / "data"
        data.mkdir()
        (data / "letter").write_text("a person's own")
        (self.machine.app / "releases/1.1.0-data").symlink_to(data)
        self.keep_as_before()

    def broken_tree(self) -> list[str]:
        if not os.path.lexists(self.machine.current):
            return []
        return super().broken_tree()

    def settle(self, code: int) -> list[str]:
        after = self.run(UPDATE)
        removed = after == 10
        if after not in (0, 10) or (code == 0 and not removed):
            return [f"remove ended with {code}, then update with {after}"]
        if not removed and (code := self.run(self.words)) != 0:
            return [f"the removal, repeated, ended with {code}: {self.output()}"]
        app = self.machine.app
        if {path.name for path in app.iterdir()} != {"data"}:
            return [f"left over: {sorted(map(str, app.rglob('*')))}"]
        if (app / "data/letter").read_text() != "a person's own":
            return ["a person's own data is gone"]
        if (code := self.run(("unhold", "acme"))) != 0:
            return [f"unhold ended with {code}: {self.output()}"]
        return self.well(UPDATE, "1.1.0")


class Adopt(Bench):
    """An application stands in `current` that others installed, as a directory."""

    def __init__(self, root: Path):
        super().__init__(root, first=True)
        self.push("1.1.0")
        self.first = False
        self.trees["unmanaged"] = self.trees["1.0.0"]
        shutil.copytree(root / "trees/1.0.0", self.machine.current, symlinks=True)
        self.keep_as_before()

    def there_and_back(self) -> list[str]:
        """Return what is wrong with the way back to what others installed."""
        return self.well(ROLL_BACK, "unmanaged") or self.well(RETRY, "1.1.0")


class Hold(Bench):
    """A person sets a hold; one that was confirmed holds."""

    words = HOLD

    def settle(self, code: int) -> list[str]:
        after = self.run(UPDATE)
        if after not in (0, 10) or (code == 0 and after != 10):
            return [
                f"hold ended with {code}, then update with {after}: {self.output()}"
            ]
        if after == 0:
            return self.unsettled("1.1.0")
        for words, expected in ((HOLD, 0), (UPDATE, 10), (("unhold", "acme"), 0)):
            if (code := self.run(words)) != expected:
                return [f"{words[0]} ended with {code}: {self.output()}"]
        return self.recover()


class Push(Bench):
    """1.2.0 is pushed. Whatever is left, a machine is well with it; a push ends it.

    What is put back is the workspace; the server goes on.
    """

    follows = True

    def __init__(self, root: Path):
        super().__init__(root)
        self.push("1.2.0")  # for its tree and what a finished push looks like
        self._tree = self.root / "trees/1.2.0"
        site = self.site
        shutil.rmtree(site.workspace)
        self._ops = root / "ops-before"
        shutil.copytree(self._ops_of_1_1, site.workspace, symlinks=True)

    def push(self, version: str, *, healthy: bool = True) -> None:
        if version == "1.2.0":
            self._ops_of_1_1 = self.root / "ops-before"
            shutil.copytree(self.site.workspace, self._ops_of_1_1, symlinks=True)
        super().push(version, healthy=healthy)

    @property
    def words(self) -> tuple[str, ...]:
        return (
            "release", "push", str(self._tree), "--version", "1.2.0",
            "--channel", "stable",
        )  # fmt: skip

    def options(self, words: tuple[str, ...]) -> list[str]:
        if words[0] != "release":
            return super().options(words)
        site = self.site
        return [
            "--repo", str(site.workspace), "--product", site.product,
            "--feed", site.feed_url, "--token-file", str(site.token_file),
        ]  # fmt: skip

    def reset(self) -> None:
        super().reset()
        shutil.rmtree(self.site.workspace)
        shutil.copytree(self._ops, self.site.workspace, symlinks=True)

    def broken_tree(self) -> list[str]:
        """Return how a machine fails with what is out now."""
        if (code := self.run(UPDATE)) != 0:
            return [f"a machine's update ended with {code}: {self.output()}"]
        return [*super().broken_tree(), *self.unsettled(self.machine.running)]

    def settle(self, code: int) -> list[str]:
        if code == 0 and self.machine.running != "1.2.0":
            return [f"the push said that it was done, {self.machine.running} runs"]
        if (again := self.run(self.words)) != 0:
            return [f"the push, repeated, ended with {again}: {self.output()}"]
        if problems := self.well(UPDATE, "1.2.0"):
            return problems
        public = self.site.public
        return [
            f"left in public/: {path.relative_to(public)}"
            for path in public.rglob("*")
            if path.name.startswith(".") and not _HALF.fullmatch(path.name)
        ]


class Take(Push):
    """1.2.0 was built and signed elsewhere, and is taken in and offered."""

    def __init__(self, root: Path):
        super().__init__(root)
        self._file = root / "acme.release"
        ops = self.site.workspace
        cli(
            "release", "build", self._tree, "-o", self._file, "--from", ops / "public",
            "--product", self.site.product, "--version", "1.2.0",
        )  # fmt: skip
        cli("release", "sign", self._file, "--repo", ops, "--yes")

    @property
    def words(self) -> tuple[str, ...]:
        return ("release", "publish", str(self._file), "--channel", "stable")

    def options(self, words: tuple[str, ...]) -> list[str]:
        options = super().options(words)
        if words[0] != "release":
            return options
        at = options.index("--product")
        return [*options[:at], *options[at + 2 :]]


class Serve(Bench):
    """A feed takes announcements: what it confirmed is there after a restart."""

    follows = True
    posts = 3

    def __init__(self, root: Path):
        self.root = root
        self.site = Site(root / "site")
        self.before = root / "feed-before"
        self._address = root / "address"
        self._confirmed: list[tuple[str, str]] = []
        self._heard: list[tuple[str, str]] = []
        self._seq = 0
        self._first = ""
        assert self._served(1) == 0, self.output()
        ((self._first, _),) = self._confirmed
        shutil.copytree(self.site.state, self.before)

    words = ("serve",)

    def options(self, words: tuple[str, ...]) -> list[str]:
        return [
            "--state", str(self.site.state), "--port", "0",
            "--address-file", str(self._address),
        ]  # fmt: skip

    def reset(self) -> None:
        shutil.rmtree(self.site.state)
        shutil.copytree(self.before, self.site.state)
        self._confirmed = []

    def run(
        self, words: tuple[str, ...] | None = None, tracer: Tracer | None = None
    ) -> int:
        """Serve, take some announcements in, end; return the exit code."""
        return self._served(self.posts, tracer)

    def _served(self, posts: int, tracer: Tracer | None = None) -> int:
        self._address.unlink(missing_ok=True)
        with self.started(self.words, tracer) as pid:
            ended: list[int] = []

            def has_ended() -> bool:
                if not ended:
                    ended_pid, status = os.waitpid(pid, os.WNOHANG)
                    if ended_pid:
                        ended.append(status)
                return bool(ended)

            def listens() -> bool:
                return has_ended() or (
                    self._address.exists() and bool(self._address.read_text().strip())
                )

            eventually(listens, event="the server")
            if not ended:
                address = self._address.read_text().strip()
                for _ in range(posts):
                    self._post(f"{address}/v1/events")
                self._heard = [] if has_ended() else self._read(f"{address}/v1/events")
            if not has_ended():
                os.kill(pid, signal.SIGTERM)
                eventually(has_ended, within_s=60, event="the server's end")
        return os.waitstatus_to_exitcode(ended[0])

    def _post(self, url: str) -> None:
        self._seq += 1
        body = {
            "schema": 1, "product": "acme", "channel": "stable", "seq": self._seq,
            "version": f"1.{self._seq}.0",
        }  # fmt: skip
        headers = {
            "Authorization": f"Bearer {self.site.token}",
            "Idempotency-Key": f"push-{self._seq}",
        }
        try:
            answer = httpx.post(url, json=body, headers=headers, timeout=10)
        except httpx.HTTPError:
            return  # the server is gone: nothing was promised
        if answer.is_success:
            self._confirmed.append((answer.json()["id"], f"1.{self._seq}.0"))

    def _read(self, url: str) -> list[tuple[str, str]]:
        """Return (id, version) of what came after the first, up to the last known."""
        if not (self._confirmed and self._first):
            return []
        try:
            return list(_events(url, self._first, self._confirmed[-1][0]))
        except httpx.HTTPError:
            return []  # the server is gone, or says nothing

    def broken_tree(self) -> list[str]:
        return []

    def settle(self, code: int) -> list[str]:
        """Serve again without faults; return what of that is wrong."""
        confirmed = list(self._confirmed)
        if (after := self._served(1)) != 0:
            return [f"the next start ended with {after}: {self.output()}"]
        if len(self._confirmed) != len(confirmed) + 1:
            return [f"the next start takes nothing in: {self.output()}"]
        problems = []
        if missing := [event for event in self._confirmed if event not in self._heard]:
            problems.append(f"confirmed, and not served: {missing} of {self._heard}")
        order = [
            tuple(map(int, number.rpartition(".")[2].split("-")))
            for number, _ in self._heard
        ]
        versions = [version for _, version in self._heard]
        if order != sorted(set(order)) or len(set(versions)) != len(versions):
            problems.append(f"ids or events come twice: {self._heard}")
        return problems


def _events(url: str, after: str, last: str) -> Iterator[tuple[str, str]]:
    number = ""
    with httpx.stream(
        "GET",
        url,
        params={"product": "acme"},
        headers={"Last-Event-ID": after},
        timeout=10,
    ) as stream:
        for line in stream.iter_lines():
            word, _, rest = line.partition(": ")
            if word == "id":
                number = rest
            if word == "data" and "version" in (data := json.loads(rest)):
                yield number, data["version"]
                if number == last:
                    return


CAMPAIGNS: dict[str, type[Bench]] = {
    "update": Update,
    "unhealthy": Unhealthy,
    "first": First,
    "rollback": RollBack,
    "repair": Repair,
    "remove": Remove,
    "adopt": Adopt,
    "hold": Hold,
    "push": Push,
    "take": Take,
    "serve": Serve,
}
