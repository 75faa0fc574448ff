# SPDX-License-Identifier: Apache-2.0
"""Where the demo plays: its folder, its processes, and how it tells the story."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from updaterd.errors import BrokenError
from updaterd.files import deletion

T = TypeVar("T")
_PATIENCE_S = 600.0


class Story:
    """Prints the story: chapters, commands, and checks that must hold."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._chapter = 0
        self.checks = 0

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._chapter += 1
        print(f"\n{self._paint(f'{self._chapter}. {title}', '1')}", flush=True)

    def say(self, text: str) -> None:
        """Tell something."""
        for line in text.splitlines():
            print(f"   {line}", flush=True)

    def command(self, words: list[str]) -> None:
        """Show a command as a person would type it."""
        shown = " ".join(word for word in words)
        print(f"   {self._paint('$ updaterd ' + shown, '36')}", flush=True)

    def check(self, claim: str, holds: object) -> None:
        """Check a step of the story.

        Raises:
            BrokenError: it does not hold; the demo ends with exit code 1.
        """
        if not holds:
            raise BrokenError(
                f"the demo's check failed: {claim}",
                do="run `updaterd demo --keep` and look at the logs in its folder",
                code="demo_failed",
            )
        self.checks += 1
        print(f"   {self._paint('✓', '32')} {claim}", flush=True)


class Stage:
    """The demo's folder and the processes in it; `close` leaves nothing behind.

    Args:
        root: the folder.
        story: where it is told.
        options: lead a command to the demo's machine; the story leaves them out.
    """

    def __init__(self, root: Path, story: Story, options: list[str]) -> None:
        self.root = root
        self.story = story
        self.options = options
        self._processes: list[subprocess.Popen[bytes]] = []

    def short(self, text: str) -> str:
        """Return `text` with the demo's folder shown as `~demo`."""
        return text.replace(str(self.root), "~demo")

    def _shown(self, line: list[str]) -> list[str]:
        """Return a command as the story shows it: without the machine's options."""
        if line[-len(self.options) :] == self.options:
            line = line[: -len(self.options)]
        return [self.short(word) for word in line]

    def run(
        self, *words: object, quiet: bool = False, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in a process of its own and return what it said.

        Raises:
            BrokenError: it ended with another exit code than `expect`, or not at all.
        """
        line = [str(word) for word in words]
        if not quiet:
            self.story.command(self._shown(line))
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                [sys.executable, "-I", "-m", "updaterd", *line],
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokenError(
                f"`updaterd {line[0]}` did not end within {_PATIENCE_S:.0f} s",
                means="this machine is too busy, or the command hangs",
                do="try again when the machine has less to do",
                code="demo_failed",
            ) from error
        if expect is not None and done.returncode != expect:
            raise BrokenError(
                f"`updaterd {line[0]}` ended with {done.returncode}, not {expect}: "
                f"{(done.stderr or done.stdout).strip()[-1000:]}",
                code="demo_failed",
            )
        return done

    def start(self, *words: object, log: str) -> subprocess.Popen[bytes]:
        """Start a long-running command in a session of its own."""
        line = [str(word) for word in words]
        self.story.command([*self._shown(line), "&"])
        with (self.root / log).open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                [sys.executable, "-I", "-m", "updaterd", *line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def wait(self, look: Callable[[], T | None], event: str) -> T:
        """Return the first truthy answer of `look`.

        Raises:
            BrokenError: none came within two minutes, or a process died meanwhile.
        """
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            if answer := look():
                return answer
            for process in self._processes:
                if process.poll() not in (None, 0, -signal.SIGKILL):
                    raise BrokenError(
                        f"while waiting for {event}, a process ended with "
                        f"{process.returncode}",
                        do=f"see the logs in {self.root} (with --keep)",
                        code="demo_failed",
                    )
            time.sleep(0.1)
        raise BrokenError(
            f"{event} did not happen within {_PATIENCE_S:.0f} s", code="demo_failed"
        )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL a process and everything it started, at this instant."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        """End every process that is still there, the newest first."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    self.kill(process)

    def close(self) -> None:
        """End every process and remove the folder."""
        self.end()
        deletion.delete_tree(self.root)
