# SPDX-License-Identifier: Apache-2.0
"""An end-user machine: configuration, directories, command line, daemon."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from fakes.starter import Starter
from fakes.waiting import eventually


class _Cli:
    """Runs `updaterd ...` as installed, isolated, and keeps its output."""

    command = (sys.executable, "-I", "-m", "updaterd")

    def __init__(self) -> None:
        self.as_typed = False
        """Whether each command has a new interpreter: tests/e2e, tests/unit/cli."""
        self.starter = Starter()

    def __call__(
        self,
        *words: object,
        expect: int | None = 0,
        env=None,
        within_s: float = 600,
        hardware: str = "",
    ):
        texts = [str(word) for word in words]
        everything = {**os.environ, **(env or {})}
        if self.as_typed and not hardware:
            done = subprocess.run(
                [*self.command, *texts],
                capture_output=True,
                text=True,
                check=False,
                timeout=within_s,
                env=everything,
            )
        else:
            done = self.starter.run(texts, everything, within_s, hardware)
        if expect is not None and done.returncode != expect:
            raise AssertionError(
                f"updaterd {' '.join(texts)}: exit {done.returncode}, "
                f"expected {expect}\n{done.stdout}\n{done.stderr}"
            )
        return done


cli = _Cli()


class Machine:
    """One machine with one product, all below one folder."""

    def __init__(
        self,
        root: Path,
        *,
        feed: str,
        repository: str,
        bootstrap: Path,
        product: str = "acme",
        health: list[str] | None = None,
        extra: str = "",
        product_extra: str = "",
        hardware: str = "",
    ):
        self.root = root
        self.hardware = "" if hardware == os.uname().machine else hardware
        self.product = product
        self.app = root / "opt" / product
        self.app.mkdir(parents=True)
        self.config = root / "updaterd.toml"
        command = json.dumps(health) if health else "[]"
        self.config.write_text(
            f"""
[feed]
url = "{feed}"
backoff_min_s = 0.1
backoff_max_s = 0.5
[trust]
root = "{bootstrap}"
repository = "{repository}"
[download]
min_free = "1MiB"
{extra}
[products.{product}]
root = "{self.app}"
health = {{ command = {command}, timeout_s = 1.5 }}
{product_extra}
"""
        )
        self.daemon: subprocess.Popen | None = None

    @property
    def options(self) -> list[str]:
        return [
            "--config", str(self.config), "--state-dir", str(self.root / "state"),
            "--cache-dir", str(self.root / "cache"),
            "--runtime-dir", str(self.root / "run"), "--demo",
        ]  # fmt: skip

    def __call__(self, command: str, *words: object, expect: int | None = 0):
        return cli(
            command, *words, *self.options, expect=expect, hardware=self.hardware
        )

    def status(self) -> dict:
        done = self("status", "--json", expect=None)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def product_status(self) -> dict:
        (product,) = self.status()["products"]
        return product

    @property
    def current(self) -> Path:
        return self.app / "current"

    @property
    def running(self) -> str | None:
        """The version that `current` names, from the disk alone."""
        return self.current.readlink().name if self.current.is_symlink() else None

    def start(self) -> None:
        assert not self.hardware, "only commands are run on what is not here"
        with (self.root / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*cli.command, "run", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # so that a kill can take its workers too
            )

    def log(self) -> str:
        path = self.root / "daemon.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, version: str, *, within_s: float = 60.0) -> None:
        """Wait until the daemon says that `version` is installed."""

        def installed() -> bool:
            assert self.daemon is None or self.daemon.poll() is None, self.log()
            release = self.product_status()["installed"]
            return release is not None and release["version"] == version

        try:
            eventually(installed, within_s=within_s, event=version)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-3000:]}") from None

    def kill(self) -> None:
        """SIGKILL the daemon and its worker at this very instant."""
        os.killpg(self.daemon.pid, signal.SIGKILL)
        self.daemon.wait()
        self.daemon = None

    def stop(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.daemon.pid, signal.SIGKILL)
                self.daemon.wait()
        self.daemon = None
