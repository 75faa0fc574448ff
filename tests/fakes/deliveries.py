# SPDX-License-Identifier: Apache-2.0
"""Publishing to a destination, to be interrupted: a directory, or a bucket.

After each interruption python-tuf, which knows nothing of updaterd, reads the
destination over HTTP and must be offered a release whole; the command, repeated, must
finish.
"""

import os
import random
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from fakes.bench import Bench
from fakes.cloud import PATIENCE_S, Cloud, Gate, offered
from fakes.origin import Origin
from fakes.trees import make_tree

_ON = ("--product", "acme", "--channel", "stable")
_LATER = timedelta(days=30)


class Delivery(Bench):
    """A release is delivered; what is put back is the workspace and the destination."""

    follows = True
    before: tuple[str, ...] = ("", "1.1.0")
    """What may be offered after an interruption, besides `after`; "": nothing yet."""
    after = "1.2.0"
    later = False
    """The command runs a month later."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True)
        self.ops, self.out = root / "ops", root / "out"
        self.out.mkdir()
        self.place()
        init = ("init", self.ops, "--profile", "demo", "--product", "acme")
        self.do(*init, bare=True)
        for number in (0, 1):
            self.push(f"1.{number}.0")
        self.bootstrap = (self.ops / "public/metadata/1.root.json").read_bytes()
        self.set_up()
        self.keep()

    def place(self) -> None:
        """Make the destination."""
        self.origin = Origin(self.out).__enter__()

    @property
    def address(self) -> str:
        return str(self.out)

    @property
    def url(self) -> str:
        return self.origin.url

    def keep(self) -> None:
        """Begin each try from here."""
        shutil.copytree(self.ops, self.root / "ops-before", symlinks=True)
        shutil.copytree(self.out, self.root / "out-before", symlinks=True)

    def reset(self) -> None:
        for name in ("ops", "out"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            shutil.copytree(
                self.root / f"{name}-before", self.root / name, symlinks=True
            )

    def close(self) -> None:
        self.origin.__exit__(None, None, None)

    def prepare(self) -> None:
        if self.later and self.running:
            from freezegun import freeze_time

            freeze_time(datetime.now(UTC) + _LATER).start()

    running = False

    def tree(self, version: str, size: int = 20_000) -> Path:
        return make_tree(
            self.root / "trees" / version,
            {
                "bin/app": f"#!/bin/sh\necho {version}\n" * 50,
                "lib/data.bin": random.Random(version).randbytes(size),
            },
        )

    def do(self, *words: object, bare: bool = False) -> None:
        """Run a command of the publisher that nothing interrupts."""
        bench = [] if bare else self.options(())
        code = Bench.run(self, ("release", *map(str, words), *bench))
        assert code == 0, self.output()

    def run(self, words=None, tracer=None) -> int:
        if words is not None:
            return super().run(words, tracer)
        self.running = True
        try:
            return super().run((*self.words, *self.options(())), tracer)
        finally:
            self.running = False

    def options(self, words: tuple[str, ...]) -> list[str]:
        return [] if words else ["--repo", str(self.ops), "--destination", self.address]

    def push(self, version: str, *more: str, size: int = 20_000) -> None:
        tree = self.tree(version, size)
        self.do("push", tree, *_ON, "--version", version, "--deltas", "1", *more)

    def set_up(self) -> None:
        """Do what comes before the command."""

    def broken_tree(self) -> list[str]:
        """Return what is wrong with what the destination says."""
        cache = self.root / "client"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        if (
            httpx.get(
                f"{self.url}/metadata/timestamp.json", timeout=PATIENCE_S
            ).status_code
            == 404
        ):
            return [] if "" in self.before else ["the destination says nothing"]
        try:
            version = offered(self.url, self.bootstrap, cache)
        except Exception as error:  # noqa: BLE001 # whatever it is, a client has it
            return [f"a client fails: {error!r:.300}"]
        wanted = (*self.before, self.after)
        return [] if version in wanted else [f"a client is offered {version}"]

    def settle(self, code: int) -> list[str]:
        if (again := self.run()) != 0:
            return [f"repeated, it ended with {again}: {self.output()}"]
        self.before, before = (), self.before
        try:
            problems = self.broken_tree()
        finally:
            self.before = before
        return problems


class PushTo(Delivery):
    """1.2.0 is pushed, and brought there."""

    before = ("1.1.0",)

    @property
    def words(self) -> tuple[str, ...]:
        return (
            "release", "push", str(self.tree("1.2.0")), *_ON, "--version", "1.2.0",
        )  # fmt: skip


class SyncTo(Delivery):
    """1.2.0 was published here alone."""

    before = ("1.1.0",)
    words = ("release", "sync")

    def set_up(self) -> None:
        # so large that it goes in parts
        self.push("1.2.0", "--no-upload", "--deltas", "0", size=5_500_000)


class FirstTo(SyncTo):
    """The destination is empty."""

    before = ("",)

    def set_up(self) -> None:
        super().set_up()
        self.empty()

    def empty(self) -> None:
        shutil.rmtree(self.out)
        self.out.mkdir()


class CollectAt(Delivery):
    """1.0.0 was withdrawn a month ago: what only it needed is deleted there, too."""

    before = ()
    after = "1.1.0"
    later = True
    words = ("release", "gc")

    def set_up(self) -> None:
        self.do("yank", "--product", "acme", "--version", "1.0.0")
        self.do("gc")
        self.foreign = {"index.html": b"a site's own"}
        (self.out / "index.html").write_bytes(b"a site's own")

    def settle(self, code: int) -> list[str]:
        problems = super().settle(code)
        there = {name.rpartition("/")[2] for name in self.names()}
        if "index.html" not in there:
            problems.append("what is not the repository's was deleted")
        if "2.snapshot.json" in there:
            problems.append("garbage is left")
        return problems

    def names(self) -> list[str]:
        return [path.as_posix() for path in self.out.rglob("*")]


class _Bucket:
    """The same with a bucket; `out` only holds what it is filled with."""

    follows = False
    cloud: Cloud | None = None
    pid = 0

    def place(self) -> None:
        type(self).cloud = self.cloud or Cloud()
        self.gate = Gate(self.cloud.port)
        os.environ.update(self.cloud.environment(self.gate.url))
        self.cloud.reset()
        self._url = f"{self.cloud.make('releases')}/repo"

    @property
    def address(self) -> str:
        return "s3://releases/repo"

    @property
    def url(self) -> str:
        return self._url

    def close(self) -> None:
        self.gate.close()

    def keep(self) -> None:
        for name in self.names():
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                httpx.get(f"{self.url}/{name}", timeout=PATIENCE_S).content
            )
        super().keep()

    def empty(self) -> None:
        self.cloud.reset()
        self.cloud.make("releases")

    def names(self) -> list[str]:
        answer = httpx.get(
            f"{self.cloud.url}/releases?list-type=2",
            headers=_SIGNED,
            timeout=PATIENCE_S,
        )
        keys = answer.text.split("<Key>")[1:]
        return [key.partition("</Key>")[0].removeprefix("repo/") for key in keys]

    def reset(self) -> None:
        shutil.rmtree(self.ops, ignore_errors=True)
        shutil.copytree(self.root / "ops-before", self.ops, symlinks=True)
        self.cloud.reset()
        self.cloud.make("releases")
        before = self.root / "out-before"
        with httpx.Client(timeout=PATIENCE_S) as client:
            for path in before.rglob("*"):
                if path.is_file():
                    name = path.relative_to(before).as_posix()
                    url = f"{self.url}/{name}"
                    client.put(url, content=path.read_bytes()).raise_for_status()
        self.gate.clear()

    def count(self) -> int:
        """Return how many requests the command makes when nothing interrupts it."""
        self.reset()
        assert self.run() == 0, self.output()
        return len(self.gate.requests)

    def interrupted(self, number: int, mode: str) -> list[str]:
        """Interrupt the command at a request; return what is wrong then and after.

        Modes: `before` the cloud sees it, `after` it was done and nobody was told, the
        publisher is killed; `lost`: it goes on, and was told that the cloud failed.
        """
        self.reset()

        def kill(at: int, *_: str) -> int | None:
            if at == number:
                os.kill(self.pid, signal.SIGKILL)
                return 500
            return None

        if mode == "before":
            self.gate.before = kill
        elif mode == "after":
            self.gate.after = kill
        else:
            self.gate.after = lambda at, *_: 500 if at == number else None
        self.running = True
        try:
            words = (*self.words, *self.options(()))
            with self.started(words) as self.pid:
                _, status = os.waitpid(self.pid, 0)
        finally:
            self.running = False
        code = os.waitstatus_to_exitcode(status)
        reached = len(self.gate.requests) >= number
        self.gate.clear()
        if mode != "lost" and (code != -signal.SIGKILL or not reached):
            return [f"it was not killed: {code}, {self.output()}"]
        if mode == "lost" and code != 0:
            return [f"it did not try again: {code}, {self.output()}"]
        return self.broken_tree() or self.settle(code)


_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/x"}


class PushToBucket(_Bucket, PushTo):
    """1.2.0 is pushed, and brought to a bucket."""


class SyncToBucket(_Bucket, SyncTo):
    """1.2.0 was published here alone."""


class FirstToBucket(_Bucket, FirstTo):
    """The bucket is empty."""


class CollectAtBucket(_Bucket, CollectAt):
    """1.0.0 was withdrawn a month ago."""

    def set_up(self) -> None:
        super().set_up()
        httpx.put(
            f"{self.url}/index.html", content=b"a site's own", timeout=PATIENCE_S
        ).raise_for_status()


FOLDERS: dict[str, type[Delivery]] = {
    "push-to": PushTo,
    "sync-to": SyncTo,
    "first-to": FirstTo,
    "gc-at": CollectAt,
}
BUCKETS: dict[str, type[Delivery]] = {
    "push-to": PushToBucket,
    "sync-to": SyncToBucket,
    "first-to": FirstToBucket,
    "gc-at": CollectAtBucket,
}
