"""Run a configured command: no shell, a closed environment, a deadline, a bounded tail.

For hooks, health commands and systemctl. What a bundle or a manifest says never
gets here: argv comes from the owner's configuration.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from updaterd import oom
from updaterd.install.commands import PATH

# A command may be a program of the release, and runs as the user who may write there.
_CLOSED_TREE = {"PYTHONDONTWRITEBYTECODE": "1"}
_KEEP = 4000
_LAST_LINES = 5  # the first of them often names the cause
_INHERITED = ("LANG", "TZ", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: None for a timeout, minus the signal, or the exit code.

    `starved`: the kernel killed it for want of memory.
    """

    code: int | None
    tail: str
    starved: bool = False

    def __str__(self) -> str:
        """Return "exit code 3: last words", the last lines in one."""
        if self.code is None:
            how = "took too long"
        elif self.starved:
            how = f"the kernel killed it: out of memory; {oom.CURE}"
        elif self.code < 0:
            named = {number.value: number.name for number in signal.Signals}
            how = f"killed by {named.get(-self.code, f'signal {-self.code}')}"
        else:
            how = f"exit code {self.code}"
        lines = [line.strip() for line in self.tail.splitlines() if line.strip()]
        return f"{how}: {' / '.join(lines[-_LAST_LINES:])}" if lines else how


def run(
    argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None
) -> Ran:
    """Run a command in its own process group and wait for it.

    Standard input is empty, the working directory is `/`. Children that it leaves
    running are left alone unless the time is up: a hook may start a service.

    Args:
        argv: the command and its arguments.
        timeout_s: after this many seconds the whole process group is killed.
        env: added to a closed environment (PATH, HOME, locale, session bus, and that
            Python shall leave no byte code in a signed tree).
    """
    memory = oom.Watch()
    closed = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    try:
        process = subprocess.Popen(  # noqa: S603 - argv from the owner's configuration
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": PATH, **_CLOSED_TREE, **closed, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        return Ran(127, f"cannot run {argv[0]}: {error.strerror}")
    tail = _Tail(process.stdout)
    try:
        code: int | None = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = None
    starved = code == -signal.SIGKILL and memory.has_killed
    return Ran(code, tail.text(), starved=starved)


class _Tail:
    """Reads a pipe to its end, keeps the last bytes, never blocks the writer."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while self._pipe is not None and (piece := os.read(self._pipe.fileno(), 65536)):
            self._kept = (self._kept + piece)[-_KEEP:]
        if self._pipe is not None:
            self._pipe.close()

    def text(self) -> str:
        # A child that lives on may hold the pipe open: do not wait for it.
        self._thread.join(timeout=0.5)
        return self._kept.decode(errors="replace")
