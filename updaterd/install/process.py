# SPDX-License-Identifier: Apache-2.0
"""Run a configured command: no shell, a closed environment, a deadline, a bounded tail.

For hooks, health commands and systemctl. What a command says goes through a process of
its own (`relay.py`) to us and, for hooks, to the journal; so what it leaves running can
go on speaking when we are gone. What a bundle or a manifest says never
gets here: argv comes from the owner's configuration.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.install.commands import PATH
from updaterd.system import oom

# A command may be a program of the release, and runs as the user who may write there.
_CLOSED_TREE = {"PYTHONDONTWRITEBYTECODE": "1"}
_KEEP = 4000
_RELAY = Path(__file__).with_name("relay.py")
_PYTHON = "/proc/self/exe"  # the interpreter itself, whatever stands before it
_LAST_LINES = 5  # the first of them often names the cause
_INHERITED = ("LANG", "TZ", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME")


class Output(Enum):
    """Who listens to a command.

    OURS: we do, to the end of the command and of ourselves. LASTING: what it leaves
    running is listened to when we are gone. JOURNAL: and all of it is in the journal,
    if that is where our own goes.
    """

    OURS = auto()
    LASTING = auto()
    JOURNAL = auto()


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
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    output: Output = Output.OURS,
) -> Ran:
    """Run a command in its own process group and wait for it.

    Standard input is empty, the working directory is `/`. Children that it leaves
    running are left alone unless the time is up: a hook may start a service.

    Args:
        argv: the command and its arguments.
        timeout_s: after this many seconds the whole process group is killed.
        env: added to a closed environment (PATH, HOME, locale, session bus, and that
            Python shall leave no byte code in a signed tree).
        output: who may go on listening.
    """
    memory = oom.Watch()
    try:
        pipe = _Pipe(output)
    except OSError as error:  # no descriptors left
        return Ran(127, f"cannot run {argv[0]}: {error.strerror}")
    closed = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    try:
        process = subprocess.Popen(  # noqa: S603 - argv from the owner's configuration
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=pipe.mouth,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": PATH, **_CLOSED_TREE, **closed, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        pipe.close_mouth()
        pipe.text()
        return Ran(127, f"cannot run {argv[0]}: {error.strerror}")
    pipe.close_mouth()
    try:
        code: int | None = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = None
    starved = code == -signal.SIGKILL and memory.has_killed
    return Ran(code, pipe.text(), starved=starved)


class _Pipe:
    """Where a command's output goes: its last bytes are kept, nobody is blocked.

    Attributes:
        mouth: for the command to write to.
    """

    def __init__(self, output: Output) -> None:
        ear, self.mouth = os.pipe()
        self._relay: int | None = None
        if output is not Output.OURS:
            ear = self._relayed(ear, output)
        self._ear = ear
        self._tail = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def close_mouth(self) -> None:
        """Leave the writing to the command."""
        os.close(self.mouth)

    def _relayed(self, ear: int, output: Output) -> int:
        """Put a relay between; return where we listen then.

        Where no process can be made, the command speaks to us directly.
        """
        listening, relayed = os.pipe()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        from updaterd import log  # noqa: PLC0415 - most runs start no process

        heard = output is Output.JOURNAL and log.stderr_is_journal()
        try:
            self._relay = os.posix_spawn(
                _PYTHON,
                [_PYTHON, "-I", "-S", str(_RELAY)],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, 2 if heard else nowhere, 2),
                    (os.POSIX_SPAWN_DUP2, ear, 0),
                    (os.POSIX_SPAWN_DUP2, relayed, 1),
                ],
                setsid=True,  # not killed with the command's group
            )
        except (OSError, NotImplementedError):
            os.close(listening)
            return ear
        finally:
            os.close(relayed)
            os.close(nowhere)
        os.close(ear)
        return listening

    def _drain(self) -> None:
        while piece := os.read(self._ear, 65536):
            self._tail = (self._tail + piece)[-_KEEP:]
        os.close(self._ear)
        if self._relay is not None:
            os.waitpid(self._relay, 0)  # it ends with its last word

    def text(self) -> str:
        """Return the last words."""
        # A child that lives on may hold the pipe open: do not wait for it.
        self._thread.join(timeout=0.5)
        return self._tail.decode(errors="replace")
