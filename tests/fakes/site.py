# SPDX-License-Identifier: Apache-2.0
"""The publisher's and the operator's side: real workspace, real server."""

import os
import signal
import subprocess
from pathlib import Path

from fakes.machine import cli
from fakes.waiting import eventually


class Site:
    """A release workspace of the demo profile and, when asked, a feed server."""

    serve_options: tuple[str, ...] = ()

    def __init__(self, root: Path, *, product: str = "acme", channel: str = "stable"):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.workspace = root / "ops"
        self.public = self.workspace / "public"
        self.state = root / "feed"
        self.product = product
        self.channel = channel
        self.server: subprocess.Popen | None = None
        self.address = ""
        self._port = 0
        cli(
            "release", "init", self.workspace, "--profile", "demo",
            "--product", product, "--channel", channel,
        )  # fmt: skip
        self.token = cli(
            "token", "create", "--state", self.state,
            "--scope", f"publish:{product}/{channel}",
        ).stdout.strip()  # fmt: skip
        self.token_file = root / "token"
        self.token_file.write_text(self.token)
        self.token_file.chmod(0o600)

    @property
    def feed_url(self) -> str:
        return f"{self.address}/v1/events"

    @property
    def bootstrap(self) -> Path:
        return self.public / "metadata" / "1.root.json"

    def start(self) -> None:
        """Start the server; the second time on the same port, as after a reboot."""
        address_file = self.root / "address"
        address_file.unlink(missing_ok=True)
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [
                    *cli.command, "serve", "--repo", self.public, "--state", self.state,
                    "--port", str(self._port), "--address-file", address_file,
                    *self.serve_options,
                ],
                stderr=log,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self.address = eventually(
            lambda: self._answer(address_file), event="the server's address"
        )
        self._port = int(self.address.rsplit(":", 1)[1])

    def _answer(self, address_file: Path) -> str | None:
        if self.server.poll() is not None:
            raise AssertionError((self.root / "server.log").read_text())
        return address_file.read_text().strip() if address_file.exists() else None

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.server is not None:
            self.server.send_signal(number)
            self.server.wait(30)
            self.server = None

    def push(
        self, tree: Path | None, version: str, *options: object, announce: bool = True
    ):
        """Push a release; announced when the server runs, unless told otherwise.

        `tree` is None where the options name one for each platform.
        """
        announcing = (
            ["--feed", self.feed_url, "--token-file", self.token_file]
            if announce and self.server is not None
            else ["--no-announce"]
        )
        return cli(
            "release", "push", *([tree] if tree else []),
            "--repo", self.workspace, "--product", self.product,
            "--version", version, "--channel", self.channel,
            *announcing, *options,
        )  # fmt: skip

    def hard_stop(self) -> None:
        if self.server is not None and self.server.poll() is None:
            os.kill(self.server.pid, signal.SIGKILL)
            self.server.wait()
        self.server = None
